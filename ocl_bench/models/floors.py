"""Floors that look at nothing and ceilings that look at the truth.

A number of a model means little without them: on rendered scenes blind blocks reach FG-ARI 0.55. The floors that
look at pixels or at another model's tokens are in `clustering.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.errors import UsageError
from ..core.types import Batch, Prediction, Truth


class SingleSlot:
    """Every pixel in one slot; ARI and FG-ARI are 0 wherever the truth has two segments."""

    def predict(self, batch: Batch) -> Prediction:
        """Label maps (B, H, W) int64 of zeros."""
        height, width = batch.image.shape[-2:]
        return _labels(torch.zeros(len(batch), height, width, dtype=torch.int64))


class Grid:
    """Equal rectangles, `rows` x `columns`, numbered row by row."""

    def __init__(self, rows: int, columns: int) -> None:
        self.rows = rows
        self.columns = columns

    def predict(self, batch: Batch) -> Prediction:
        """Label maps (B, H, W) int64 with labels 0 .. rows * columns - 1."""
        height, width = batch.image.shape[-2:]
        row = torch.arange(height) * self.rows // height
        column = torch.arange(width) * self.columns // width
        one = row[:, None] * self.columns + column
        return _labels(one.expand(len(batch), height, width).contiguous())


class Random:
    """One of `slots` labels per pixel, independent and equally likely, drawn from the batch's noise."""

    def __init__(self, slots: int) -> None:
        # Comparing the normal noise with its own quantiles gives exactly uniform labels without any rounding.
        self.quantiles = torch.special.ndtri(torch.arange(1, slots, dtype=torch.float64) / slots).float()

    def predict(self, batch: Batch) -> Prediction:
        """Label maps (B, H, W) int64 with labels 0 .. slots - 1."""
        height, width = batch.image.shape[-2:]
        return _labels(torch.bucketize(batch.noise(height, width, stream="random"), self.quantiles))


class Oracle:
    """The truth itself. Pixels that are void or claimed twice get slots of their own, which hold nothing else."""

    needs_truth = True

    def predict(self, batch: Batch, truth: Sequence[Truth]) -> Prediction:
        """Label maps (B, H, W) int64, slots that name the category of their object, and class maps where there are any.

        Where the images differ in size, all are enlarged to the largest one by nearest neighbour (pixel centres),
        which the same rule undoes exactly.
        """
        _check(batch, truth)
        maps = [_without_negatives(one.labels) for one in truth]
        classes = [one.classes for one in truth if one.classes is not None]
        return Prediction(
            masks=_stack(maps),
            mask_source="truth",
            slots=_object_slots(truth, 1 + max(int(m.max(initial=0)) for m in maps)),
            # What a void pixel is called does not matter: it is in neither side of a score.
            classes=_stack([np.maximum(one, 0) for one in classes]) if len(classes) == len(truth) else None,
            embedding=_label_vectors(truth),
            embedding_source="truth",
        )


class PatchOracle:
    """The truth seen through a token grid: each slot's mask is its share of each of `grid` x `grid` cells.

    This is the best that a model can do that decides per token and upsamples softly. Void and doubly claimed pixels
    belong to no slot.
    """

    needs_truth = True
    reads_video = True

    def __init__(self, grid: int) -> None:
        self.grid = grid

    def predict(self, batch: Batch, truth: Sequence[Truth]) -> Prediction:
        """Soft masks (B, G, grid, grid) float32; G is the largest number of labels in one image of the batch.

        Images with fewer labels are filled up with empty slots, so their other masks do not depend on the batch.
        Where there are class maps, `classes` (B, C, grid, grid) are their shares. For the frames of one video, truth
        being theirs, masks are (1, T, G, grid, grid), and slot k is label k in all of them.
        """
        if batch.video is not None:
            numbers = np.arange(1 + max(int(one.labels.max(initial=0)) for one in truth))
            frames = torch.stack([self._shares(one.labels, numbers) for one in truth])
            return Prediction(masks=frames[None].to(batch.image.device), mask_source="truth")
        _check(batch, truth)
        labels = [self._shares(one.labels, np.unique(one.labels[one.labels >= 0])) for one in truth]
        classes = None
        if all(one.classes is not None for one in truth):
            maps = [cast(np.ndarray, one.classes) for one in truth]
            classes = _pad([self._shares(one, np.arange(one.max(initial=0) + 1)) for one in maps])
        return Prediction(masks=_pad(labels).to(batch.image.device), mask_source="truth", classes=classes)

    def _shares(self, labels: np.ndarray, present: np.ndarray) -> Tensor:
        one_hot = torch.from_numpy(labels == present[:, None, None]).float()
        return F.adaptive_avg_pool2d(one_hot, self.grid)


def build_single_slot() -> SingleSlot:
    """The floor `single-slot`."""
    return SingleSlot()


def build_grid(rows: int = 3, columns: int = 3) -> Grid:
    """The floor `grid`. Raises UsageError when a side is not a positive integer."""
    return Grid(positive("rows", rows), positive("columns", columns))


def build_random(slots: int = 11) -> Random:
    """The floor `random`. Raises UsageError when `slots` is not a positive integer."""
    return Random(positive("slots", slots))


def build_oracle() -> Oracle:
    """The ceiling `oracle`."""
    return Oracle()


def build_patch_oracle(grid: int = 16) -> PatchOracle:
    """The ceiling `patch-oracle`. Raises UsageError when `grid` is not a positive integer."""
    return PatchOracle(positive("grid", grid))


def positive(name: str, value: int) -> int:
    """Return `value` if it is an integer >= 1, else raise UsageError naming the option."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"option '{name}': {value!r} is not an integer >= 1; pass for example {name}=3")
    return value


def _labels(labels: Tensor) -> Prediction:
    return Prediction(masks=labels, mask_source="none")


def _check(batch: Batch, truth: Sequence[Truth]) -> None:
    if len(truth) != len(batch):
        raise UsageError(f"truth: {len(truth)} label maps for a batch of {len(batch)}; pass one (H, W) map per image")
    for sample_id, labels in zip(batch.ids, (one.labels for one in truth), strict=True):
        if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
            raise UsageError(
                f"truth of sample {sample_id}: {labels.dtype} of shape {labels.shape}; pass an integer (H, W) map"
            )


def _object_slots(truth: Sequence[Truth], count: int) -> Tensor:
    """Slots (B, count, 260) float32: slot l is the category (one-hot by id modulo 256) and box of label l.

    The box is left, top, right, bottom as shares of the image.
    """
    slots = torch.zeros(len(truth), count, 256 + 4)
    for image, one in zip(slots, truth, strict=True):
        height, width = one.labels.shape
        for label, category in enumerate(one.categories, start=1):
            rows, columns = np.nonzero(one.labels == label)
            if len(rows):
                image[label, category % 256] = 1
                box = (columns.min() / width, rows.min() / height, (columns.max() + 1) / width)
                image[label, 256:] = torch.tensor([*box, (rows.max() + 1) / height])
    return slots


def _label_vectors(truth: Sequence[Truth]) -> Tensor | None:
    """Unit vectors (B, 2048) float32, equal where the class of the image is (modulo 2048); None without classes."""
    labels = [one.label for one in truth if one.label is not None]
    return F.one_hot(torch.tensor(labels) % 2048, 2048).float() if len(labels) == len(truth) else None


def _pad(shares: Sequence[Tensor]) -> Tensor:
    """Shares (K, g, g) of several images as one tensor; images with fewer segments get empty ones."""
    padded = torch.zeros(len(shares), max(1, *(len(s) for s in shares)), *shares[0].shape[1:])
    for image, share in zip(padded, shares, strict=True):
        image[: len(share)] = share
    return padded


def _stack(maps: Sequence[np.ndarray]) -> Tensor:
    """Maps as one (B, H, W) int64 tensor at the size of the largest."""
    height, width = (max(m.shape[axis] for m in maps) for axis in (0, 1))
    return torch.stack([_enlarge(m.astype(np.int64), height, width) for m in maps])


def _without_negatives(labels: np.ndarray) -> np.ndarray:
    labels = labels.astype(np.int64)
    return np.where(labels < 0, max(int(labels.max()), -1) - labels, labels)


def _enlarge(labels: np.ndarray, height: int, width: int) -> Tensor:
    rows = ((2 * np.arange(height) + 1) * labels.shape[0]) // (2 * height)
    columns = ((2 * np.arange(width) + 1) * labels.shape[1]) // (2 * width)
    return torch.from_numpy(labels[np.ix_(rows, columns)])
