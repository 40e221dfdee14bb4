"""Nearest neighbours: one vector for each image, compared with those of the fit split by DINO's weighted votes.

The protocol is that of DINO's `eval_knn.py` (arXiv:2104.14294); the arithmetic is in `metrics/knn.py`, and the bank is
made by `evaluation/bank.py`. A model without a vector for the whole image is pooled, which its signature says. With
boxes granted to the model, its own embedding counts only if it attends within them; else the tokens that they touch
are pooled.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from ..cards.protocols import KnnProtocol
from ..cards.task import TaskSpec
from ..core.errors import UsageError
from ..core.types import Prediction, Truth
from ..metrics.definitions.knn import MAIN_K
from ..metrics.knn import Search, knn_hits, ks
from .base import Family
from .checks import check_field, check_prediction, finite_rows, missing
from .files import prediction_path

if TYPE_CHECKING:
    from ..models.loading import LoadedModel


@dataclass(frozen=True, eq=False)
class Bank:
    """The images of the fit split, with which others are compared.

    features: (N, D) float32 unit rows, memory-mapped. labels: (N,) int64. positions: (N,) of the images in the fit
    split. left_out: how many images failed. zeros: how many rows are zeros, so that every cosine with them is 0.
    """

    features: np.ndarray
    labels: np.ndarray
    positions: np.ndarray
    left_out: int
    zeros: int = 0


@dataclass(frozen=True)
class Explanation:
    """Why an image got its label.

    predicted: label by the nearest 20. positions: (20,) of these images in the fit split, the nearest first; fewer in a
    smaller bank. labels: (20,) theirs. similarity: (20,) cosines.
    """

    predicted: int
    positions: np.ndarray
    labels: np.ndarray
    similarity: np.ndarray


class Knn:
    """Adapter of the `knn` family. An output is a unit vector (D,) float32, or zeros where the model gives zeros."""

    scored_at_once: int | None = 1024  # so that the bank is read less often

    def __init__(self, task: TaskSpec, *, reads_boxes: bool = False) -> None:
        """reads_boxes: the model's embedding attends within `Batch.boxes`."""
        protocol = cast(KnnProtocol, task.protocol)
        self.task = task
        self.temperature = protocol.temperature
        self.k = max(MAIN_K, *ks(task.metrics))
        self.reads_boxes = reads_boxes
        self.within = protocol.grants == "attention"
        self.bank: Bank | None = None
        self.search: Search | None = None
        self.classes = np.zeros(0, np.int64)

    def check(self, prediction: object, size: int, name: str) -> Prediction:
        """An embedding (B, D), tokens (B, D, h, w) or slots (B, K, D). Raises UsageError naming model and field."""
        checked = check_prediction(prediction, name)
        shapes: dict[str, tuple[int | None, ...]] = {
            "embedding": (size, None),
            "tokens": (size, None, None, None),
            "slots": (size, None, None),
        }
        usable = self._field(checked)
        if usable is None and self.within:
            raise missing(
                checked,
                name,
                "tokens",
                "with boxes as attention, k-NN needs tokens (B,D,h,w), or an embedding of a model with `reads_boxes`; "
                "task imagenet-knn-crop grants boxes to any model",
            )
        if usable is None:
            need = "k-NN needs an embedding (B,D), tokens (B,D,h,w) or slots (B,K,D)"
            raise missing(checked, name, "embedding", need)
        check_field(checked, usable, shapes[usable], name)
        return checked

    @property
    def any_of(self) -> tuple[str, ...]:
        """The fields that would do, the first one that is there is used.

        Slots go before tokens, which in most slot models are those of a frozen encoder and would say nothing of them.
        """
        if not self.within:
            return ("embedding", "slots", "tokens")
        return ("embedding", "tokens") if self.reads_boxes else ("tokens",)

    def _field(self, prediction: Prediction) -> str | None:
        """The field that is used; None without any."""
        return next((name for name in self.any_of if getattr(prediction, name) is not None), None)

    def finite(self, prediction: Prediction) -> np.ndarray:
        """(B,) bool: the images whose used field is finite."""
        return finite_rows(getattr(prediction, cast(str, self._field(prediction))))

    def source(self, prediction: Prediction) -> str:
        """How the vector was pooled: as the model says of its embedding, `tokens:mean`, `tokens:mean-in-box`, .."""
        field = self._field(prediction)
        if field == "embedding":
            return prediction.embedding_source
        return f"{field}:mean-in-box" if self.within else f"{field}:mean"

    def pooled(self, prediction: Prediction, boxes: Sequence[Tensor] | None, side: int | None) -> Tensor:
        """One vector for each image, (B, D) float32, or float64 of a model that computes so; not normalised.

        boxes: one (N, 4) tensor for each image, xyxy pixels of the square of `side` pixels; (0, 4) is the whole image.
        Slots of zeros are empty and are left out of the mean. Raises UsageError when boxes are needed and not given.
        """
        field = self._field(prediction)
        if field == "embedding":
            return _full(cast(Tensor, prediction.embedding))
        if field == "slots":
            slots = _full(cast(Tensor, prediction.slots))
            filled = (slots != 0).any(2).sum(1, keepdim=True)
            return slots.sum(1) / filled.clamp_min(1)
        tokens = _full(cast(Tensor, prediction.tokens))
        if not self.within:
            return tokens.mean((2, 3))
        if boxes is None or side is None:
            raise UsageError(f"task {self.task.name}: no boxes were granted, and protocol.boxes is attention")
        cells = [touched(own.cpu(), (tokens.shape[2], tokens.shape[3]), side) for own in boxes]
        return torch.stack([one[:, own.to(one.device)].mean(1) for one, own in zip(tokens, cells, strict=True)])

    def outputs(
        self, prediction: Prediction, shapes: Sequence[tuple[int, int]], side: int | None = None
    ) -> list[np.ndarray]:
        """A unit vector (D,) float32 for each image, divided by its length in float64; zeros stay zeros.

        Raises UsageError when finite numbers of the model are too large to be added.
        """
        del shapes
        pooled = self.pooled(prediction, prediction.granted, side)
        wide = pooled.detach().cpu().numpy().astype(np.float64)
        usable = np.isfinite(wide).all(1)
        if (self.finite(prediction) & ~usable).any():
            raise UsageError(f"task {self.task.name}: {self.source(prediction)} overflows; scale what the model gives")
        wide[~usable] = 0  # the runner leaves these images out
        _, exponent = np.frexp(np.abs(wide).max(1, keepdims=True, initial=0))
        wide = np.ldexp(wide, -exponent)  # exact, so that no square is too large or too small
        length = np.linalg.norm(wide, axis=1, keepdims=True)
        return list((wide / np.where(length > 0, length, 1)).astype(np.float32))

    def columns(self, task: TaskSpec) -> dict[str, str]:
        """Label, predicted label (by 20 neighbours), and 0 or 1 for each metric."""
        return dict.fromkeys(("label", "predicted", *task.metrics), "float64")

    def score(self, truth: Sequence[Truth], outputs: Sequence[np.ndarray], task: TaskSpec) -> list[dict[str, Any]]:
        """A row for each image; n_objects counts the objects of its own class that have a box. A pure function."""
        target = np.array([self._label(one) for one in truth], dtype=np.int64)
        labels, similarity, _ = self._neighbours(outputs, self.k)
        predicted, hits = knn_hits(task.metrics, similarity, labels, target, self.classes, self.temperature)
        rows = []
        for position, one in enumerate(truth):
            row: dict[str, Any] = {
                "n_objects": sum(instance.category == one.label for instance in one.instances),
                "label": float(target[position]),
                "predicted": float(predicted[position]),
            }
            rows.append(row | {name: float(hits[name][position]) for name in task.metrics})
        return rows

    def _label(self, truth: Truth) -> int:
        if truth.label is None:
            raise UsageError(
                f"task {self.task.name}: Truth.label is missing; k-NN needs data with a class of each image"
            )
        return truth.label

    def _neighbours(self, outputs: Sequence[np.ndarray], k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Labels, cosines and rows of the bank (Q, k), the nearest first. Raises UsageError without a bank."""
        if self.bank is None or self.search is None:
            raise UsageError(f"task {self.task.name}: the bank is not there; call with_head(plan) first")
        length = self.bank.features.shape[1]
        other = next((len(output) for output in outputs if len(output) != length), None)
        if other is not None:
            text = f"the model gives features of {other} numbers, and gave {length} for the bank"
            raise UsageError(f"task {self.task.name}: {text}")
        similarity, rows = self.search.nearest(np.stack(outputs), k)
        return self.bank.labels[rows], similarity, rows

    def with_bank(self, bank: Bank, declared: Sequence[int] = (), device: str = "cpu") -> Knn:
        """An adapter with a bank. declared: classes that count, whether or not the bank has images of them."""
        other = Knn(self.task, reads_boxes=self.reads_boxes)
        other.bank, other.search = bank, Search(bank.features, device)
        other.classes = np.union1d(bank.labels, np.array(declared, dtype=np.int64))
        return other

    def picture(self, output: np.ndarray, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
        """Raises UsageError: a vector is no map. What can be drawn are the neighbours, see `explain`."""
        del output, truth
        raise UsageError(f"task {self.task.name}: k-NN predicts no masks to draw")

    def explain(self, output: np.ndarray) -> Explanation:
        """The 20 nearest images and the label that they vote for. Raises UsageError without a bank."""
        labels, similarity, rows = self._neighbours([output], MAIN_K)
        predicted, _ = knn_hits((), similarity, labels, labels[:, 0], self.classes, self.temperature)
        positions = cast(Bank, self.bank).positions[rows[0]]
        return Explanation(int(predicted[0]), positions, labels[0], similarity[0])

    def write(self, folder: Path, sample_id: str, seed: int, output: np.ndarray) -> None:
        """`<folder>/seed-<n>/<id>.json`: what `explain` says. The true label is in the rows of the result."""
        path = prediction_path(folder, sample_id, seed, ".json")
        found = self.explain(output)
        lists = {name: getattr(found, name).tolist() for name in ("positions", "labels", "similarity")}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"predicted": found.predicted, **lists}), encoding="utf-8")


def _full(values: Tensor) -> Tensor:
    """At least float32."""
    return values if values.dtype == torch.float64 else values.float()


def touched(boxes: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """(h, w) bool: the cells of a grid over a square of `side` pixels that any of the boxes (N, 4) touches.

    A box without area touches the cell that it lies in. All cells, where there is no box or all lie outside.
    """
    cells = torch.zeros(grid, dtype=torch.bool)
    for left, top, right, bottom in boxes.tolist():
        cells[_span(top, bottom, grid[0], side), _span(left, right, grid[1], side)] = True
    return cells if bool(cells.any()) else torch.ones(grid, dtype=torch.bool)


def _span(low: float, high: float, count: int, side: int) -> slice:
    """The cells between two coordinates, at least one if they lie inside."""
    if high < 0 or low < high == 0 or low >= side:
        return slice(0, 0)
    first = max(0, math.floor(low * count / side))
    return slice(first, max(first + 1, math.ceil(high * count / side)))


def _adapter(task: TaskSpec, model: LoadedModel | None) -> Knn:
    return Knn(task, reads_boxes=bool(model is not None and getattr(model.model, "reads_boxes", False)))


KNN = Family("knn", KnnProtocol, _adapter, picture="neighbours")
