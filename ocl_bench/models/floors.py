"""Floors that ignore the image and ceilings that use the truth.

A model's number means little without them: on rendered scenes, rectangles that ignore the image reach FG-ARI 0.55. The
floors that use pixels or another model's tokens are in `clustering.py` and `pixels.py`.
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

_SIDE, _BITS = 64, 24
_CODES = -(-(_SIDE**2) // _BITS)
"""Numbers that hold the mask of a slot, see `_state_slots`."""


class SingleSlot:
    """Every pixel in one slot; ARI and FG-ARI are 0 wherever the truth has two or more segments."""

    def predict(self, batch: Batch) -> Prediction:
        """Predict label maps (B, H, W) int64 of zeros."""
        height, width = batch.image.shape[-2:]
        return _labels(torch.zeros(len(batch), height, width, dtype=torch.int64))


class Grid:
    """Equal rectangles, `rows` x `columns`, numbered row by row."""

    def __init__(self, rows: int, columns: int) -> None:
        self.rows = rows
        self.columns = columns

    def predict(self, batch: Batch) -> Prediction:
        """Predict label maps (B, H, W) int64 with labels 0 .. rows * columns - 1."""
        height, width = batch.image.shape[-2:]
        row = torch.arange(height) * self.rows // height
        column = torch.arange(width) * self.columns // width
        labels = row[:, None] * self.columns + column
        return _labels(labels.expand(len(batch), height, width).contiguous())


class Random:
    """One of `slots` equally likely labels for each pixel independently, drawn from the batch's noise."""

    def __init__(self, slots: int) -> None:
        # Comparing the normal noise with its own quantiles gives uniform labels without rounding.
        self.quantiles = torch.special.ndtri(torch.arange(1, slots, dtype=torch.float64) / slots).float()

    def predict(self, batch: Batch) -> Prediction:
        """Predict label maps (B, H, W) int64 with labels 0 .. slots - 1."""
        height, width = batch.image.shape[-2:]
        return _labels(torch.bucketize(batch.noise(height, width, stream="random"), self.quantiles))


class Oracle:
    """The truth itself. Pixels that are void or claimed twice get slots of their own."""

    needs_truth = True
    needs_future = True

    def predict(self, batch: Batch, truth: Sequence[Truth]) -> Prediction:
        """Predict label maps (B, H, W) int64, slots that encode category and box, and class maps if the truth has them.

        Images of different sizes are enlarged to the largest one by nearest neighbour (pixel centres). Shrinking by the
        same rule gives back every map exactly.
        """
        _check(batch, truth)
        maps = [_without_negatives(image.labels) for image in truth]
        classes = [image.classes for image in truth if image.classes is not None]
        return Prediction(
            masks=_stack(maps),
            mask_source="truth",
            slots=_state_slots(truth, maps) if _located(truth) else _object_slots(truth, _labels_of(maps)),
            # The class of a void pixel does not matter: no score counts it.
            classes=_stack([np.maximum(image, 0) for image in classes]) if len(classes) == len(truth) else None,
            embedding=_label_vectors(truth),
            embedding_source="truth",
        )

    def predict_slots(self, slots: Tensor, steps: int, *, future: Tensor) -> Tensor:
        """The slots (B, steps, K, D) of the future frames: the simulator knows them."""
        del slots, steps
        return future

    def decode_slots(self, slots: Tensor) -> Tensor:
        """The masks (B, K, 64, 64) that `_state_slots` has packed into slots; zeros for slots of another kind."""
        if slots.shape[2] != 2 + _CODES:
            return slots.new_zeros(*slots.shape[:2], _SIDE, _SIDE)
        codes = slots[:, :, 2:].long()[..., None] >> torch.arange(_BITS, device=slots.device)
        return (codes & 1).flatten(2)[:, :, : _SIDE**2].unflatten(2, (_SIDE, _SIDE)).float()


class PatchOracle:
    """The truth on a token grid: each slot's mask is its share of each of `grid` x `grid` cells.

    It is the ceiling of models that decide per token and upsample soft masks. Void pixels and those claimed twice
    belong to no slot.
    """

    needs_truth = True
    reads_video = True

    def __init__(self, grid: int) -> None:
        self.grid = grid

    def predict(self, batch: Batch, truth: Sequence[Truth]) -> Prediction:
        """Predict soft masks (B, G, grid, grid) float32; G is the largest number of labels in an image of the batch.

        With class maps, `classes` (B, C, grid, grid) are their shares. For a video, `truth` is that of its frames,
        masks are (1, T, G, grid, grid), and slot k is label k in all frames.
        """
        if batch.video is not None:
            numbers = np.arange(1 + max(int(frame.labels.max(initial=0)) for frame in truth))
            frames = torch.stack([self._shares(frame.labels, numbers) for frame in truth])
            return Prediction(masks=frames[None].to(batch.image.device), mask_source="truth")
        _check(batch, truth)
        labels = [self._shares(image.labels, np.unique(image.labels[image.labels >= 0])) for image in truth]
        classes = None
        if all(image.classes is not None for image in truth):
            maps = [cast(np.ndarray, image.classes) for image in truth]
            classes = _pad([self._shares(image, np.arange(image.max(initial=0) + 1)) for image in maps])
        return Prediction(masks=_pad(labels).to(batch.image.device), mask_source="truth", classes=classes)

    def _shares(self, labels: np.ndarray, present: np.ndarray) -> Tensor:
        """Return the share (len(present), grid, grid) of each of the labels `present` in each cell."""
        one_hot = torch.from_numpy(labels == present[:, None, None]).float()
        return F.adaptive_avg_pool2d(one_hot, self.grid)


def build_single_slot() -> SingleSlot:
    """Build the floor `single-slot`."""
    return SingleSlot()


def build_grid(rows: int = 3, columns: int = 3) -> Grid:
    """Build the floor `grid`; UsageError if a side is not a positive integer."""
    return Grid(positive("rows", rows), positive("columns", columns))


def build_random(slots: int = 11) -> Random:
    """Build the floor `random`; UsageError if `slots` is not a positive integer."""
    return Random(positive("slots", slots))


def build_oracle() -> Oracle:
    """Build the ceiling `oracle`."""
    return Oracle()


def build_patch_oracle(grid: int = 16) -> PatchOracle:
    """Build the ceiling `patch-oracle`; UsageError if `grid` is not a positive integer."""
    return PatchOracle(positive("grid", grid))


def positive(name: str, value: int) -> int:
    """Return `value` if it is an integer >= 1; otherwise raise UsageError naming the option."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"option '{name}': {value!r} is not an integer >= 1; pass for example {name}=3")
    return value


def _labels(labels: Tensor) -> Prediction:
    return Prediction(masks=labels, mask_source="none")


def _check(batch: Batch, truth: Sequence[Truth]) -> None:
    """Raise UsageError unless there is one integer label map (H, W) for each image."""
    if len(truth) != len(batch):
        raise UsageError(f"truth: {len(truth)} label maps for a batch of {len(batch)}; pass one (H, W) map per image")
    for sample_id, labels in zip(batch.ids, (image.labels for image in truth), strict=True):
        if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
            raise UsageError(
                f"truth of sample {sample_id}: {labels.dtype} of shape {labels.shape}; pass an integer (H, W) map"
            )


def _object_slots(truth: Sequence[Truth], count: int) -> Tensor:
    """Encode objects as slots (B, count, 260) float32.

    Slot l is the category of label l, one-hot by id modulo 256, followed by its box: left, top, right and bottom as
    shares of the image.
    """
    slots = torch.zeros(len(truth), count, 256 + 4)
    for image_slots, image in zip(slots, truth, strict=True):
        height, width = image.labels.shape
        for label, category in enumerate(image.categories, start=1):
            rows, columns = np.nonzero(image.labels == label)
            if len(rows):  # an object may be hidden or cropped away
                image_slots[label, category % 256] = 1
                box = (columns.min() / width, rows.min() / height, (columns.max() + 1) / width)
                image_slots[label, 256:] = torch.tensor([*box, (rows.max() + 1) / height])
    return slots


def _located(truth: Sequence[Truth]) -> bool:
    """Whether it is known where all objects are."""
    return all(image.locations is not None for image in truth)


def _labels_of(maps: Sequence[np.ndarray]) -> int:
    """Number of labels of label maps, 0 and absent ones included."""
    return 1 + max(int(labels.max(initial=0)) for labels in maps)


def _state_slots(truth: Sequence[Truth], maps: Sequence[np.ndarray]) -> Tensor:
    """Encode the state of objects as slots (B, K, 2 + 171) float32: where they lie, and their mask.

    The mask is that at 64 x 64, with 24 pixels as the bits of each number, which float32 holds exactly. The place of
    an object out of view is 0.
    """
    places_of = [torch.from_numpy(np.nan_to_num(cast(np.ndarray, image.locations))) for image in truth]
    count = max(_labels_of(maps), *(1 + len(places) for places in places_of))  # an object may be hidden in all images
    slots = torch.zeros(len(truth), count, 2 + _CODES)
    for image_slots, places, labels in zip(slots, places_of, maps, strict=True):
        image_slots[1 : 1 + len(places), :2] = places.float()
        masks = _enlarge(labels, _SIDE, _SIDE)[None] == torch.arange(len(image_slots))[:, None, None]
        bits = F.pad(masks.flatten(1).long(), (0, _CODES * _BITS - _SIDE**2)).unflatten(1, (_CODES, _BITS))
        image_slots[:, 2:] = (bits << torch.arange(_BITS)).sum(2).float()
    return slots


def _label_vectors(truth: Sequence[Truth]) -> Tensor | None:
    """Encode the class of each image as a one-hot vector (B, 2048) float32 by id modulo 2048; None without classes."""
    labels = [image.label for image in truth if image.label is not None]
    return F.one_hot(torch.tensor(labels) % 2048, 2048).float() if len(labels) == len(truth) else None


def _pad(shares: Sequence[Tensor]) -> Tensor:
    """Stack shares (K, g, g) of several images; images with fewer segments are filled up with empty ones."""
    padded = torch.zeros(len(shares), max(1, *(len(share) for share in shares)), *shares[0].shape[1:])
    for image, share in zip(padded, shares, strict=True):
        image[: len(share)] = share
    return padded


def _stack(maps: Sequence[np.ndarray]) -> Tensor:
    """Stack maps of different sizes as one (B, H, W) int64 tensor of the largest height and width."""
    height, width = (max(image.shape[axis] for image in maps) for axis in (0, 1))
    return torch.stack([_enlarge(image.astype(np.int64), height, width) for image in maps])


def _without_negatives(labels: np.ndarray) -> np.ndarray:
    """Renumber negative labels (void, claimed twice) by new labels after the largest one."""
    labels = labels.astype(np.int64)
    return np.where(labels < 0, max(int(labels.max()), -1) - labels, labels)


def _enlarge(labels: np.ndarray, height: int, width: int) -> Tensor:
    """Enlarge a label map by nearest neighbour."""
    # Integer arithmetic on pixel centres: (row + 1/2) x old / new without the rounding of a float.
    rows = ((2 * np.arange(height) + 1) * labels.shape[0]) // (2 * height)
    columns = ((2 * np.arange(width) + 1) * labels.shape[1]) // (2 * width)
    return torch.from_numpy(labels[np.ix_(rows, columns)])
