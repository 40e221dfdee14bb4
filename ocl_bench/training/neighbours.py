"""Validates image features during training: k-NN classification of held-out images of the *training* split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from ..cards.protocols import KnnProtocol
from ..cards.protocols import Protocol as Rules
from ..core.types import Batch, Sample
from ..data.transforms import granted, granted_boxes, prepare
from ..metrics.definitions.knn import MAIN_K
from ..metrics.knn import Search, knn_hits

RULES = KnnProtocol(crop="short-center-0.875", interpolation="bicubic", temperature=0.07)
"""Protocol of task imagenet-knn. It is used when the task of the training has another family."""

BOX_MODES = {"_boxes": "attention", "_crop": "crop", "_blackout": "blackout"}
"""Suffix of a validation number -> use of the boxes of an image's class in imagenet-knn-boxes, -crop, -blackout."""


def validate_neighbours(
    model: Any, *, bank: Sequence[Sample], queries: Sequence[Sample], rules: Rules, device: str, batch: int = 32
) -> dict[str, float]:
    """Top-1 accuracy of `queries` by the votes of their 20 nearest neighbours in `bank`, as the k-NN tasks score it.

    Args:
        model: A model with `predict` and `input_size`.
        bank: Images that vote.
        queries: Images to classify.
        rules: Protocol of the task; `RULES` replaces it unless it is a k-NN protocol.
        device: Device of the model.
        batch: Images per forward pass.

    Returns:
        `knn_top1` of whole images if all images have class labels, and one number for each of `BOX_MODES` if they have
        boxes of their class too. `spread` is the length of the vector of standard deviations of the queries' unit
        embeddings: at most 1, near 0 when they have collapsed to one point.
    """
    rules = rules if isinstance(rules, KnnProtocol) else RULES
    numbers: dict[str, float] = {}
    labelled = len(bank) > 0 and all(sample.truth.label is not None for sample in [*bank, *queries])
    if not len(queries):
        return {}
    boxed = labelled and any(granted(sample.truth) for sample in bank)
    for mode in ["", *BOX_MODES] if boxed else [""]:
        mode_rules = rules.model_copy(update={"boxes": BOX_MODES.get(mode)})
        query_vectors = embeddings(model, queries, mode_rules, device, batch)
        if labelled:
            bank_vectors = embeddings(model, bank, mode_rules, device, batch)
            numbers[f"knn_top1{mode}"] = top1(bank_vectors, query_vectors, _labels(bank), _labels(queries), rules)
        if not mode:
            numbers["spread"] = float(np.sqrt(query_vectors.var(0).sum()))
    return dict(sorted(numbers.items()))


def embeddings(model: Any, samples: Sequence[Sample], rules: Rules, device: str, batch: int = 32) -> np.ndarray:
    """L2-normalised embeddings of images (N, D) float32. An embedding of zeros stays zero."""
    size, rows = model.input_size, []
    for first in range(0, len(samples), batch):
        chosen = [samples[position] for position in range(first, min(first + batch, len(samples)))]
        images = torch.stack([prepare(sample, rules, size)[0] for sample in chosen]).to(device)
        boxes = None
        if rules.grants == "attention":
            boxes = tuple(granted_boxes(sample, rules, size).to(device) for sample in chosen)
        ids = tuple(sample.id for sample in chosen)
        vectors = model.predict(Batch(ids, images, boxes=boxes, any_of=("embedding",))).embedding
        rows.append(normalize(vectors.float(), dim=1).cpu().numpy())
    return np.concatenate(rows)


def _labels(samples: Sequence[Sample]) -> np.ndarray:
    """Class labels (N,) of samples."""
    return np.array([sample.truth.label for sample in samples])


def top1(bank: np.ndarray, queries: np.ndarray, of_bank: np.ndarray, target: np.ndarray, rules: KnnProtocol) -> float:
    """Share of the queries whose class wins the votes of their `MAIN_K` nearest neighbours.

    Args:
        bank: (N, D) unit vectors.
        queries: (M, D) unit vectors.
        of_bank: (N,) labels of the bank.
        target: (M,) labels of the queries.
        rules: Gives the temperature of the votes.
    """
    similarity, rows = Search(bank).nearest(queries, MAIN_K)
    classes, temperature = np.union1d(of_bank, target), rules.temperature
    _, hits = knn_hits(("knn_top1",), similarity, of_bank[rows], target, classes, temperature)
    return float(hits["knn_top1"].mean())
