"""Validation of image features while they are learnt: k-NN of held-out images of the *training* split."""

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
"""Those of task imagenet-knn, for tasks of other families."""

BOX_MODES = {"_boxes": "attention", "_crop": "crop", "_blackout": "blackout"}
"""Ending of a number -> what tasks imagenet-knn-boxes, -crop and -blackout do with the boxes of an image's class."""


def validate_neighbours(
    model: Any, *, bank: Sequence[Sample], queries: Sequence[Sample], rules: Rules, device: str, batch: int = 32
) -> dict[str, float]:
    """Top-1 of `queries` by the votes of the 20 nearest of `bank`, as the k-NN adapter scores them.

    Returns `knn_top1` of whole images, and one number for each of `BOX_MODES` where images have boxes of their own
    class; none of them without class labels. `spread` is the length of the standard deviation of unit embeddings of
    whole images: at most 1, near 0 where they have collapsed.
    """
    rules = rules if isinstance(rules, KnnProtocol) else RULES
    numbers: dict[str, float] = {}
    labelled = len(bank) > 0 and all(sample.truth.label is not None for sample in [*bank, *queries])
    if not len(queries):
        return {}
    boxed = labelled and any(granted(sample.truth) for sample in bank)
    for mode in ["", *BOX_MODES] if boxed else [""]:
        asked = rules.model_copy(update={"boxes": BOX_MODES.get(mode)})
        asked_of_queries = embeddings(model, queries, asked, device, batch)
        if labelled:
            vectors = embeddings(model, bank, asked, device, batch)
            numbers[f"knn_top1{mode}"] = top1(vectors, asked_of_queries, _labels(bank), _labels(queries), rules)
        if not mode:
            numbers["spread"] = float(np.sqrt(asked_of_queries.var(0).sum()))
    return dict(sorted(numbers.items()))


def embeddings(model: Any, samples: Sequence[Sample], rules: Rules, device: str, batch: int = 32) -> np.ndarray:
    """Unit vectors (N, D) float32; zeros of a model stay zeros."""
    size, rows = model.input_size, []
    for first in range(0, len(samples), batch):
        chosen = [samples[position] for position in range(first, min(first + batch, len(samples)))]
        images = torch.stack([prepare(sample, rules, size)[0] for sample in chosen]).to(device)
        boxes = None
        if rules.grants == "attention":
            boxes = tuple(granted_boxes(sample, rules, size).to(device) for sample in chosen)
        ids = tuple(sample.id for sample in chosen)
        found = model.predict(Batch(ids, images, boxes=boxes, any_of=("embedding",))).embedding
        rows.append(normalize(found.float(), dim=1).cpu().numpy())
    return np.concatenate(rows)


def _labels(samples: Sequence[Sample]) -> np.ndarray:
    return np.array([sample.truth.label for sample in samples])


def top1(bank: np.ndarray, queries: np.ndarray, of_bank: np.ndarray, target: np.ndarray, rules: KnnProtocol) -> float:
    """Share of queries (M, D) whose `target` (M,) wins the votes of the nearest of the bank (N, D), labelled (N,)."""
    similarity, rows = Search(bank).nearest(queries, MAIN_K)
    classes, temperature = np.union1d(of_bank, target), rules.temperature
    _, hits = knn_hits(("knn_top1",), similarity, of_bank[rows], target, classes, temperature)
    return float(hits["knn_top1"].mean())
