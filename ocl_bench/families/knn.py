"""k-NN classification: one feature vector per image, classified by weighted votes of its neighbours in the fit split.

The protocol is that of DINO's `eval_knn.py` (arXiv:2104.14294). The arithmetic is in `metrics/knn.py`, and
`evaluation/bank.py` makes the bank of features of the fit split. For a model without an embedding of the whole image,
slots or tokens are averaged, and the signature says so. When the task grants boxes as attention, a model's embedding is
used only if the model attends within the boxes; otherwise the tokens that the boxes touch are averaged.
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
import xxhash
from torch import Tensor

from ..cards.protocols import KnnProtocol
from ..cards.task import TaskSpec
from ..core.errors import UsageError
from ..core.types import Prediction, Truth
from ..metrics.definitions.knn import MAIN_K
from ..metrics.knn import Search, knn_hits, ks
from .base import Adapter, Family
from .checks import check_field, check_prediction, finite_rows, missing
from .files import prediction_path

if TYPE_CHECKING:
    from ..models.loading import LoadedModel


@dataclass(frozen=True, eq=False)
class Bank:
    """Features and labels of the fit split, with which images are compared.

    Attributes:
        features: (N, D) float32 rows of unit length, memory-mapped.
        labels: (N,) int64 class of each row.
        positions: (N,) position in the fit split of the image of each row.
        left_out: number of images that failed and have no row.
        zeros: number of rows that are all zero; their cosine with every vector is 0.
    """

    features: np.ndarray
    labels: np.ndarray
    positions: np.ndarray
    left_out: int
    zeros: int = 0


IN_BANK = "queries with exactly the features of an image in the bank (the same image in both?)"


@dataclass(frozen=True)
class Explanation:
    """The neighbours that determine the predicted label of an image.

    Attributes:
        predicted: label by the vote of the 20 nearest images.
        positions: (20,) positions of these images in the fit split, the nearest first; fewer in a smaller bank.
        labels: (20,) their labels.
        similarity: (20,) their cosines with the image.
    """

    predicted: int
    positions: np.ndarray
    labels: np.ndarray
    similarity: np.ndarray


class Knn:
    """Adapter of the `knn` family. An output is a unit vector (D,) float32, or zeros where the model gives zeros."""

    scored_at_once: int | None = 1024  # every call of the search reads the whole memory-mapped bank

    def __init__(self, task: TaskSpec, *, reads_boxes: bool = False) -> None:
        """Make the adapter. reads_boxes: whether the model's embedding attends within `Batch.boxes`."""
        protocol = cast(KnnProtocol, task.protocol)
        self.task = task
        self.temperature = protocol.temperature
        self.k = max(MAIN_K, *ks(task.metrics))  # the predicted label needs MAIN_K even if no metric does
        self.reads_boxes = reads_boxes
        self.within = protocol.grants == "attention"
        self.bank: Bank | None = None
        self.search: Search | None = None
        self.known: set[int] | None = None  # hashes of the rows of the bank, once they are asked for
        self.classes = np.zeros(0, np.int64)

    def check(self, prediction: object, size: int, name: str) -> Prediction:
        """Require an embedding (B, D), tokens (B, D, h, w) or slots (B, K, D).

        Raises UsageError naming model and field.
        """
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
        """The usable fields of a prediction; the first one that is present is used.

        Slots precede tokens: in most slot models the tokens come from a frozen encoder and would only measure that.
        """
        if not self.within:
            return ("embedding", "slots", "tokens")
        return ("embedding", "tokens") if self.reads_boxes else ("tokens",)

    def _field(self, prediction: Prediction) -> str | None:
        """The field that is used; None when no usable field is present."""
        return next((name for name in self.any_of if getattr(prediction, name) is not None), None)

    def finite(self, prediction: Prediction) -> np.ndarray:
        """(B,) bool: the images whose used field is finite."""
        return finite_rows(getattr(prediction, cast(str, self._field(prediction))))

    def source(self, prediction: Prediction) -> str:
        """The model's `embedding_source`, or the pooling: `slots:mean`, `tokens:mean`, `tokens:mean-in-box`."""
        field = self._field(prediction)
        if field == "embedding":
            return prediction.embedding_source
        return f"{field}:mean-in-box" if self.within else f"{field}:mean"

    def pooled(self, prediction: Prediction, boxes: Sequence[Tensor] | None, side: int | None) -> Tensor:
        """One vector for each image, (B, D), not normalised; float64 for a float64 model and float32 otherwise.

        Args:
            prediction: a prediction that `check` returned.
            boxes: one (N, 4) tensor for each image, xyxy in pixels of the square image that the model saw; (0, 4)
                stands for the whole image.
            side: side of that image in pixels.

        Raises:
            UsageError: the task pools within boxes and none are given.
        """
        field = self._field(prediction)
        if field == "embedding":
            return _full(cast(Tensor, prediction.embedding))
        if field == "slots":
            slots = _full(cast(Tensor, prediction.slots))
            filled = (slots != 0).any(2).sum(1, keepdim=True)  # slots of zeros are empty and not part of the mean
            return slots.sum(1) / filled.clamp_min(1)
        tokens = _full(cast(Tensor, prediction.tokens))
        if not self.within:
            return tokens.mean((2, 3))
        if boxes is None or side is None:
            raise UsageError(f"task {self.task.name}: no boxes were granted, and protocol.boxes is attention")
        cells = [touched(image_boxes.cpu(), (tokens.shape[2], tokens.shape[3]), side) for image_boxes in boxes]
        images = zip(tokens, cells, strict=True)
        return torch.stack([features[:, inside.to(features.device)].mean(1) for features, inside in images])

    def outputs(
        self, prediction: Prediction, shapes: Sequence[tuple[int, int]], side: int | None = None
    ) -> list[np.ndarray]:
        """A unit vector (D,) float32 for each image, normalised in float64; a zero vector stays zero.

        Raises UsageError when the features are finite but so large that their mean overflows.
        """
        del shapes
        pooled = self.pooled(prediction, prediction.granted, side)
        wide = pooled.detach().cpu().numpy().astype(np.float64)
        usable = np.isfinite(wide).all(1)
        if (self.finite(prediction) & ~usable).any():
            raise UsageError(f"task {self.task.name}: {self.source(prediction)} overflows; scale what the model gives")
        wide[~usable] = 0  # the runner leaves these images out
        # Scaling by a power of two is exact and keeps the squares in the norm from overflowing or underflowing.
        _, exponent = np.frexp(np.abs(wide).max(1, keepdims=True, initial=0))
        wide = np.ldexp(wide, -exponent)
        length = np.linalg.norm(wide, axis=1, keepdims=True)
        return list((wide / np.where(length > 0, length, 1)).astype(np.float32))

    def columns(self, task: TaskSpec) -> dict[str, str]:
        """Columns of the true label, the predicted label (by 20 neighbours), and each metric (0 or 1)."""
        return dict.fromkeys(("label", "predicted", *task.metrics), "float64")

    def score(self, truth: Sequence[Truth], outputs: Sequence[np.ndarray], task: TaskSpec) -> list[dict[str, Any]]:
        """A row for each image. Here n_objects is the number of annotated objects of the image's own class."""
        target = np.array([self._label(image) for image in truth], dtype=np.int64)
        labels, similarity, _ = self._neighbours(outputs, self.k)
        predicted, hits = knn_hits(task.metrics, similarity, labels, target, self.classes, self.temperature)
        rows = []
        for position, image in enumerate(truth):
            row: dict[str, Any] = {
                "n_objects": sum(instance.category == image.label for instance in image.instances),
                "label": float(target[position]),
                "predicted": float(predicted[position]),
            }
            rows.append(row | {name: float(hits[name][position]) for name in task.metrics})
        return rows

    def _label(self, truth: Truth) -> int:
        """The class of an image. Raises UsageError when the data have none."""
        if truth.label is None:
            raise UsageError(
                f"task {self.task.name}: Truth.label is missing; k-NN needs data with a class for each image"
            )
        return truth.label

    def _neighbours(self, outputs: Sequence[np.ndarray], k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Labels, cosines and bank rows of the k nearest neighbours, (Q, k) each, the nearest first.

        Raises UsageError without a bank, or for features of another length than the bank's.
        """
        if self.bank is None or self.search is None:
            raise UsageError(f"task {self.task.name}: the bank is missing; call with_head(plan) first")
        length = self.bank.features.shape[1]
        wrong = next((len(output) for output in outputs if len(output) != length), None)
        if wrong is not None:
            text = f"the model gives features of {wrong} numbers, and gave {length} for the bank"
            raise UsageError(f"task {self.task.name}: {text}")
        similarity, rows = self.search.nearest(np.stack(outputs), k)
        return self.bank.labels[rows], similarity, rows

    def with_bank(self, bank: Bank, declared: Sequence[int] = (), device: str = "cpu") -> Knn:
        """A copy of this adapter that compares images with a bank.

        Args:
            bank: the bank.
            declared: classes of the data set, which count as classes even when the bank has no image of them.
            device: device of the search.
        """
        adapter = Knn(self.task, reads_boxes=self.reads_boxes)
        adapter.bank, adapter.search = bank, Search(bank.features, device)
        adapter.classes = np.union1d(bank.labels, np.array(declared, dtype=np.int64))
        return adapter

    def remarks(self, outputs: Sequence[np.ndarray]) -> dict[str, int]:
        """How many images have exactly the features of one in the bank, zero vectors aside."""
        if self.bank is None:
            return {}
        if self.known is None:
            self.known = {xxhash.xxh3_64_intdigest(row.tobytes()) for row in self.bank.features}
        equal = sum(bool(one.any()) and xxhash.xxh3_64_intdigest(one.tobytes()) in self.known for one in outputs)
        return {IN_BANK: equal} if equal else {}

    def picture(self, output: np.ndarray, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
        """Raise UsageError: a feature vector is not a map. Draw the neighbours instead (`explain`)."""
        del output, truth
        raise UsageError(f"task {self.task.name}: k-NN predicts no masks to draw")

    def explain(self, output: np.ndarray) -> Explanation:
        """The 20 nearest images and the label that they vote for. Raises UsageError without a bank."""
        labels, similarity, rows = self._neighbours([output], MAIN_K)
        # The true label is unknown here. It only affects the hits, which are not used.
        predicted, _ = knn_hits((), similarity, labels, labels[:, 0], self.classes, self.temperature)
        positions = cast(Bank, self.bank).positions[rows[0]]
        return Explanation(int(predicted[0]), positions, labels[0], similarity[0])

    def write(self, folder: Path, sample_id: str, seed: int, output: np.ndarray) -> None:
        """Write the neighbours (`explain`) to `<folder>/seed-<n>/<id>.json`. The true label is in the result's rows."""
        path = prediction_path(folder, sample_id, seed, ".json")
        explanation = self.explain(output)
        lists = {name: getattr(explanation, name).tolist() for name in ("positions", "labels", "similarity")}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"predicted": explanation.predicted, **lists}), encoding="utf-8")


def _full(values: Tensor) -> Tensor:
    """The values in float64 if they are, else in float32: means of half-precision values would be inexact."""
    return values if values.dtype == torch.float64 else values.float()


def touched(boxes: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """The cells of a grid that any of the boxes touches.

    Args:
        boxes: (N, 4) xyxy in pixels. A box without area touches the cell in which it lies.
        grid: numbers of rows and columns (h, w) of the grid.
        side: side in pixels of the square image that the grid covers.

    Returns:
        (h, w) bool; all True when there is no box or all boxes lie outside the image.
    """
    cells = torch.zeros(grid, dtype=torch.bool)
    for left, top, right, bottom in boxes.tolist():
        cells[_span(top, bottom, grid[0], side), _span(left, right, grid[1], side)] = True
    return cells if bool(cells.any()) else torch.ones(grid, dtype=torch.bool)


def _span(low: float, high: float, count: int, side: int) -> slice:
    """The cells from coordinate `low` to `high` along one axis: at least one, but none outside the image."""
    # A box that ends exactly at 0 only touches the edge from outside, unless it is the single point 0.
    if high < 0 or low < high == 0 or low >= side:
        return slice(0, 0)
    first = max(0, math.floor(low * count / side))
    return slice(first, max(first + 1, math.ceil(high * count / side)))


def _adapter(task: TaskSpec, model: LoadedModel | None) -> Knn:
    return Knn(task, reads_boxes=bool(model is not None and getattr(model.model, "reads_boxes", False)))


def _remarks(
    adapter: Adapter, outputs: Sequence[np.ndarray], shapes: Sequence[tuple[int, int]], side: int | None
) -> dict[str, int]:
    del shapes, side
    return cast(Knn, adapter).remarks(outputs)


def _any_of(adapter: Adapter) -> tuple[str, ...]:
    return cast(Knn, adapter).any_of


KNN = Family("knn", KnnProtocol, _adapter, picture="neighbours", view="neighbours", any_of=_any_of, remarks=_remarks)
