"""The table behind every overlap metric: how many pixels truth label g and predicted label p share.

Counting takes one pass over the pixels. The two label maps are fused into one code per pixel, in the smallest unsigned
type that holds it. The codes are counted with `bincount`: image by image on a CPU (the codes of one image stay in the
cache), in one call on a GPU. One-hot masks are never built.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from ..core.errors import UsageError
from ..core.types import OVERLAP
from .ignored import IgnoreIndex, with_void

if TYPE_CHECKING:  # boards know metrics by their names, and need no torch
    from torch import Tensor

LabelMaps: TypeAlias = "np.ndarray | Tensor"
VoidRule = Literal["drop", "count"]
OverlapRule = Literal["drop", "error"]

MAX_TRUTH_LABEL = 4095
"""Truth labels are row numbers, so sparse ids beyond this are refused rather than allocated."""

MAX_PREDICTED_COLUMNS = 512
"""Predicted ids beyond this are renumbered image by image: their order means nothing to a metric."""

MAX_CELLS = 2**27
"""Largest table (1 GiB of int64) that one call may allocate."""

_SPECIAL = 2
"""Rows in front of label 0 while counting: OVERLAP (-2), then VOID (-1)."""


@dataclass(frozen=True)
class Contingency:
    """Pixel counts of a batch of B images with G truth labels and P predicted labels.

    Attributes:
        table: (B, G, P) int64, pixels with truth label g and predicted label p; void and overlap pixels are in no cell.
        predicted: (B, P) int64, area of each predicted segment as it enters the unions. Equal to `table.sum(1)` with
            void="drop"; with void="count" the void pixels under the segment are added.
        n_overlap: (B,) int64, pixels dropped because two or more objects claim them.
    """

    table: np.ndarray
    predicted: np.ndarray
    n_overlap: np.ndarray

    def __len__(self) -> int:
        return len(self.table)

    @property
    def truth(self) -> np.ndarray:
        """(B, G) int64, area of each truth segment without void and overlap pixels."""
        return self.table.sum(2)

    def objects(self, background: int | None) -> np.ndarray:
        """(B, G) bool, True for truth labels that are in the image and are not `background`."""
        present = self.truth > 0
        if background is not None and 0 <= background < present.shape[1]:
            present[:, background] = False
        return present


def exact_sum(terms: np.ndarray) -> np.ndarray:
    """(B,) correctly rounded sums of (B, N) float64 terms.

    The padding of a batch and the order of the slots cannot change the last bit of such a sum.

    Example:
        >>> exact_sum(np.array([[1e16, 1.0, -1e16]])), sum([1e16, 1.0, -1e16])
        (array([1.]), 0.0)
    """
    return np.array([math.fsum(row) for row in terms.tolist()], np.float64)


def contingency(
    truth: LabelMaps,
    prediction: LabelMaps,
    *,
    void: VoidRule = "drop",
    overlap: OverlapRule = "drop",
    ignore_index: IgnoreIndex = "auto",
) -> Contingency:
    """Count the pixels that each truth label and each predicted label share.

    CUDA tensors are counted on their device; the result is always NumPy.

    Args:
        truth: (B, H, W) integer label maps, NumPy or torch, any integer type. 0, 1, ... are labels; VOID (-1) and
            OVERLAP (-2) of `ocl_bench.core.types` are special. Further trailing dimensions are flattened: (B, T, H, W)
            clips are scored with ids shared over time.
        prediction: integer label maps of the same shape. Every id >= 0 is one segment. Ids are column numbers unless
            the largest reaches `MAX_PREDICTED_COLUMNS`; then they are renumbered image by image.
        void: "drop" removes void pixels from both sides; "count" leaves them in the predicted areas, and thus in the
            unions (DIAS, and SPOT on VOC).
        overlap: "drop" removes overlap pixels from both sides; "error" refuses them.
        ignore_index: truth label that also means VOID, see `ocl_bench.metrics.ignored`: by default 255, except in a map
            with larger labels. It is the same everywhere in `ocl_bench.metrics`, in cards and in `score`.

    Returns:
        The table of the batch, with as many rows and columns as the largest labels of the batch need.

    Raises:
        UsageError: for soft masks, other shapes, labels out of range, and overlaps that are not allowed.

    Example:
        >>> truth, slots = np.array([[[0, 1, 1], [0, 2, 2]]]), np.array([[[0, 1, 1], [1, 2, 2]]])
        >>> contingency(truth, slots).table.tolist()
        [[[1, 1, 0], [0, 2, 0], [0, 0, 2]]]
    """
    check_rule("void", void, ("drop", "count"))
    check_rule("overlap", overlap, ("drop", "error"))
    truth, prediction = _flat_maps(truth, prediction)
    batch, pixels = truth.shape
    if batch == 0 or pixels == 0:
        return _empty(batch)
    truth = with_void(truth, ignore_index)
    low, high = _range(truth)
    if low < OVERLAP or high > MAX_TRUTH_LABEL:
        raise UsageError(
            f"truth: label {low if low < OVERLAP else high} is outside {OVERLAP}..{MAX_TRUTH_LABEL}; "
            "renumber the objects from 1, with -1 for void and -2 for overlap"
        )
    prediction, columns = _prediction_columns(prediction)
    special = _SPECIAL if low < 0 else 0
    rows = max(high, 0) + 1 + special  # images of nothing but void (high -1) keep one empty row
    if batch * rows * columns > MAX_CELLS:
        raise UsageError(
            f"truth and prediction: a table of {batch} x {rows} x {columns} cells is too large; score fewer images at "
            "a time or renumber the labels from 0"
        )
    counts = _count(truth, prediction, rows, columns, special)
    return _split(counts, special, void, overlap)


def check_rule(name: str, value: str, allowed: Sequence[str]) -> None:
    """Raise UsageError for a rule that is not allowed. name: of the field or argument."""
    if value not in allowed:
        raise UsageError(f"{name}: '{value}' is not a rule; use one of {', '.join(allowed)}")


def check_frames(truth: LabelMaps, prediction: LabelMaps) -> None:
    """Raise UsageError unless both are (T, H, W) maps of the same frames."""
    if truth.ndim != 3 or tuple(truth.shape) != tuple(prediction.shape):
        raise UsageError(
            f"truth and prediction: shapes {tuple(truth.shape)} and {tuple(prediction.shape)} are not those of the "
            "same frames; pass (T, H, W) label maps for both"
        )


def _flat_maps(truth: LabelMaps, prediction: LabelMaps) -> tuple[Any, Any]:
    """Both maps as (B, pixels), as tensors on one CUDA device if either is there, else as arrays."""
    for name, maps in (("truth", truth), ("prediction", prediction)):
        _check_labels(name, maps)
    if tuple(truth.shape) != tuple(prediction.shape):
        raise UsageError(
            f"prediction: shape {tuple(prediction.shape)} differs from the truth's {tuple(truth.shape)}; both must be "
            "(B, H, W) label maps (take the argmax over the slots first)"
        )
    shape = (truth.shape[0], int(np.prod(truth.shape[1:])))
    device = next((m.device for m in (truth, prediction) if not isinstance(m, np.ndarray) and m.is_cuda), None)
    if device is not None:
        import torch

        first, second = (torch.as_tensor(maps, device=device).long() for maps in (truth, prediction))
        return first.reshape(shape), second.reshape(shape)
    return as_array(truth).reshape(shape), as_array(prediction).reshape(shape)


def as_array(maps: LabelMaps) -> np.ndarray:
    """The maps as a NumPy array; tensors are copied from their device."""
    return maps if isinstance(maps, np.ndarray) else maps.numpy(force=True)


def _check_labels(name: str, maps: LabelMaps) -> None:
    """Raise UsageError unless the maps are arrays or tensors of integers with two or more dimensions."""
    if isinstance(maps, np.ndarray):
        integer = maps.dtype.kind in "iu"
    elif (torch := sys.modules.get("torch")) is not None and isinstance(maps, torch.Tensor):
        integer = not (maps.is_floating_point() or maps.is_complex() or maps.dtype == torch.bool)
    else:
        raise UsageError(f"{name}: got {type(maps).__name__}; pass a NumPy array or a torch tensor of labels")
    if not integer:
        raise UsageError(
            f"{name}: {maps.dtype} values are masks, not labels; take the argmax over the slots first, for instance "
            "`masks.argmax(1)`"
        )
    if maps.ndim < 2:
        raise UsageError(f"{name}: shape {tuple(maps.shape)} is not a batch of label maps; pass (B, H, W)")


def _range(maps: Any) -> tuple[int, int]:
    return int(maps.min()), int(maps.max())


def _prediction_columns(prediction: Any) -> tuple[Any, int]:
    """The prediction with ids 0..columns-1, renumbered per image where the ids are too large to be columns."""
    low, high = _range(prediction)
    if low < 0:
        raise UsageError(f"prediction: label {low} is negative; every pixel must belong to a slot (0, 1, ...)")
    if high < MAX_PREDICTED_COLUMNS:
        return prediction, high + 1
    if not isinstance(prediction, np.ndarray):  # only CUDA tensors arrive here; they stay on their device
        import torch

        renumbered = torch.stack([torch.unique(row, return_inverse=True)[1] for row in prediction])
        return renumbered, int(renumbered.max()) + 1
    compact = np.stack([np.unique(row, return_inverse=True)[1] for row in prediction])
    return compact, int(compact.max()) + 1


def _count(truth: Any, prediction: Any, rows: int, columns: int, special: int) -> np.ndarray:
    """(B, rows, columns) int64 counts; row `special + g` is truth label g."""
    batch, cells = len(truth), rows * columns
    if not isinstance(truth, np.ndarray):
        import torch

        offset = torch.arange(batch, device=truth.device, dtype=torch.int32)[:, None] * rows + special
        code = (truth.to(torch.int32) + offset) * columns + prediction.to(torch.int32)
        on_device = torch.bincount(code.reshape(-1), minlength=batch * cells)
        return on_device.cpu().numpy().reshape(batch, rows, columns)
    small = np.min_scalar_type(cells)  # the narrow codes of one image stay in the cache
    # Unsigned arithmetic wraps, so the special labels -1 and -2 land on their rows in any width that holds the codes.
    code = truth.astype(small)
    code += small.type(special)
    code *= small.type(columns)
    code += prediction.astype(small, copy=False)
    counts = np.empty((batch, cells), np.int64)
    for row, image in zip(counts, code, strict=True):
        row[:] = np.bincount(image, minlength=cells)
    return counts.reshape(batch, rows, columns)


def _split(counts: np.ndarray, special: int, void: VoidRule, overlap: OverlapRule) -> Contingency:
    """Take the rows of void and overlap out of (B, special + G, P) counts and apply the two rules."""
    batch, _, columns = counts.shape
    table = counts[:, special:]
    over, unlabelled = (counts[:, 0], counts[:, 1]) if special else np.zeros((2, batch, columns), np.int64)
    n_overlap = over.sum(1)
    if overlap == "error" and n_overlap.any():
        first = int(np.flatnonzero(n_overlap)[0])
        raise UsageError(
            f"truth: image {first} of the batch has {n_overlap[first]} overlap pixels; use `overlap: drop` or a "
            "truth without overlaps"
        )
    predicted = table.sum(1)
    if void == "count":  # the void pixels enlarge the unions, but they are in no intersection
        predicted = predicted + unlabelled
    return Contingency(table, predicted, n_overlap)


def _empty(batch: int) -> Contingency:
    """The table of images without pixels: one row and one column of zeros, where no metric is valid."""
    return Contingency(np.zeros((batch, 1, 1), np.int64), np.zeros((batch, 1), np.int64), np.zeros(batch, np.int64))
