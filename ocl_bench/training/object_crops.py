"""Crops that show one object in both global views: the augmentation of ODIS (arXiv:2506.05409), whose code is not out.

For each image and step one box is drawn among the boxes of *all* its objects, distractors included. Each of the two
global crops is drawn again, up to `TRIES` times, until it shows that object; local crops are plain. Where no crop shows
it, the last one is kept and the object counts as absent from that view. Images without a usable box get plain crops.

What "shows" means is not published: here, one patch of the view or the whole object, and at least the share `inside` of
its box (1 = strict containment). Everything random is a row of uniform numbers of (seed, step, sample) alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from .crops import LOOKS, Looks, attempts, central, choose, looks_of
from .crops import TRIES as PLAIN_TRIES

TRIES = 20
"""Crops of one global view that are tried until one shows the object."""

_DRAWN = 4 * TRIES
"""Attempts of which the first `TRIES` that fit into the image count."""

_GLOBALS = 2
_GLOBAL = 4 * _DRAWN + 1
_LOCAL = 4 * PLAIN_TRIES + 1


class CropOptions(BaseModel):
    """How views are cropped.

    size, local_size: sides of the views in pixels. scale, local_scale: smallest and largest shares of the image's
    area. locals: number of local views. object_aware: redraw the global crops until they show the object. inside:
    least share of the object's box in a view that shows it. local_blur: probability of a blurred local view; it is
    never solarised.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    size: int = Field(default=224, ge=8)
    scale: tuple[float, float] = (0.25, 1.0)
    locals: int = Field(default=10, ge=0)
    local_size: int = Field(default=96, ge=8)
    local_scale: tuple[float, float] = (0.05, 0.25)
    object_aware: bool = True
    inside: float = Field(default=0.0, ge=0, le=1)
    local_blur: float = Field(default=0.5, ge=0, le=1)

    @property
    def columns(self) -> int:
        """Uniform numbers of one sample: the target, geometry of global and local views, looks of all."""
        return 1 + _GLOBALS * _GLOBAL + self.locals * _LOCAL + (_GLOBALS + self.locals) * LOOKS


@dataclass(frozen=True)
class ObjectCrops:
    """Two global and L local crops of each of N images.

    crops: (N, 2 + L, 4) int64 top, left, height, width in pixels of the image. flips: (N, 2 + L) bool, mirrored
    afterwards. boxes: (N, 2, 4) float32 xyxy pixels of the part of the target that each global view shows, as mirrored;
    NaN where it shows none. present: (N, 2 + L) bool, which views show the target; local views by any pixel.
    target: (N,) int64 number of the target among the image's boxes, -1 without one. tries: (N, 2) redraws and the
    first draw together. unusable, inverted: (N,) int64 boxes that were left out, and whose corners were swapped.
    """

    crops: Tensor
    flips: Tensor
    boxes: Tensor
    present: Tensor
    target: Tensor
    tries: Tensor
    unusable: Tensor
    inverted: Tensor


def clean_boxes(boxes: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes with their corners in order, clipped at their images: (N, M, 4) float64, NaN where they cannot be used.

    boxes: (N, M, 4) xyxy pixels, rows of NaN are absent. sizes: (N, 2) height and width. Not usable is a box with a
    number that is not finite, without area, or outside of the image. Also returns how many of each image's boxes are
    not usable, and how many of the others were inverted, (N,) each.
    """
    given, finite = ~np.isnan(boxes).all(2), np.isfinite(boxes).all(2)
    known = np.where(finite[..., None], boxes, 0).astype(np.float64)
    limits = np.stack([sizes[:, 1], sizes[:, 0]], axis=1)[:, None].astype(np.float64)
    low = np.clip(np.minimum(known[..., :2], known[..., 2:]), 0, limits)
    high = np.clip(np.maximum(known[..., :2], known[..., 2:]), 0, limits)
    usable = finite & (high > low).all(2)
    inverted = usable & (known[..., :2] > known[..., 2:]).any(2)
    cleaned = np.where(usable[..., None], np.concatenate([low, high], axis=2), np.nan)
    return cleaned, (given & ~usable).sum(1), inverted.sum(1)


def draw_object_crops(
    uniform: np.ndarray, sizes: np.ndarray, boxes: np.ndarray, options: CropOptions, patch: int
) -> ObjectCrops:
    """Crops of N images from `draw_uniform`'s rows (N, options.columns).

    sizes: (N, 2) height and width in pixels, 1 or more. boxes: (N, M, 4) xyxy pixels of all objects, NaN rows absent.
    patch: side of a patch in pixels of the view.
    """
    usable, unusable, inverted = clean_boxes(boxes, sizes)
    target = _draw_targets(uniform[:, 0], usable)
    rows = np.arange(len(sizes))
    none = target < 0
    chosen = np.zeros((len(sizes), 4))
    if usable.shape[1]:
        chosen = np.where(none[:, None], 0.0, usable[rows, target])
    crops, tries = [], []
    for view in range(_GLOBALS):
        own = uniform[:, 1 + view * _GLOBAL :][:, : 4 * _DRAWN].reshape(-1, _DRAWN, 4)
        crop, count = _global_crops(own, sizes, chosen, none, options, patch)
        crops.append(crop)
        tries.append(count)
    start = 1 + _GLOBALS * _GLOBAL
    for view in range(options.locals):
        own = uniform[:, start + view * _LOCAL :][:, : 4 * PLAIN_TRIES].reshape(-1, PLAIN_TRIES, 4)
        drawn, _, fits = attempts(own, sizes, *options.local_scale)
        crops.append(choose(drawn, fits, central(sizes)))
    placed = np.stack(crops, axis=1)
    ends = [*range(_GLOBAL, start, _GLOBAL), *(start + _LOCAL * (k + 1) - 1 for k in range(options.locals))]
    flips = uniform[:, ends] < 0.5
    inner = _inner(placed, chosen[:, None])
    touched = (inner[..., 2] > inner[..., 0]) & (inner[..., 3] > inner[..., 1])
    shown = _shows(placed[:, :_GLOBALS], chosen[:, None], options, patch)
    present = np.concatenate([shown, touched[:, _GLOBALS:]], axis=1) & ~none[:, None]
    located = _located(inner[:, :_GLOBALS], placed[:, :_GLOBALS], flips[:, :_GLOBALS], options.size)
    located = np.where(present[:, :_GLOBALS, None], located, np.nan).astype(np.float32)
    parts = (placed, flips, located, present, target, np.stack(tries, axis=1), unusable, inverted)
    return ObjectCrops(*(torch.from_numpy(np.ascontiguousarray(part)) for part in parts))


def draw_object_looks(uniform: np.ndarray, options: CropOptions, looks: Looks) -> Tensor:
    """Looks of all views, (N, 2 + L, 11), from the same rows; see `crops.draw_looks`."""
    views = []
    for view in range(_GLOBALS + options.locals):
        start = 1 + _GLOBALS * _GLOBAL + options.locals * _LOCAL + view * LOOKS
        is_global = view < _GLOBALS
        blur = looks.blur[view] if is_global else options.local_blur
        solarise = looks.solarise[view] if is_global else 0.0
        views.append(looks_of(uniform[:, start : start + LOOKS], looks, blur, solarise))
    return torch.stack(views, dim=1)


def _draw_targets(uniform: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """One usable box of each image, all equally likely: (N,) position, -1 where there is none."""
    usable = ~np.isnan(boxes).any(2)
    number = np.floor(uniform * usable.sum(1)).astype(np.int64)
    place = usable & (usable.cumsum(1) - 1 == number[:, None])
    return np.where(usable.any(1), place.argmax(1) if boxes.shape[1] else -1, -1)


def _global_crops(
    uniform: np.ndarray, sizes: np.ndarray, target: np.ndarray, none: np.ndarray, options: CropOptions, patch: int
) -> tuple[np.ndarray, np.ndarray]:
    """The first of `TRIES` crops (N, 4) that shows the target, else the last; and how many were drawn (N,)."""
    drawn, _, fits = attempts(uniform, sizes, *options.scale)
    counted = fits & (fits.cumsum(1) <= TRIES)
    last = np.where(counted, np.arange(_DRAWN), -1).max(1)
    kept = np.take_along_axis(drawn, np.maximum(last, 0)[:, None, None], axis=1)[:, 0]
    kept = np.where((last >= 0)[:, None], kept, central(sizes))
    good = counted
    if options.object_aware:
        good = counted & (_shows(drawn, target[:, None], options, patch) | none[:, None])
    tries = np.where(good.any(1), np.cumsum(counted, axis=1)[np.arange(len(good)), good.argmax(1)], counted.sum(1))
    return choose(drawn, good, kept), tries


def _shows(crops: np.ndarray, target: np.ndarray, options: CropOptions, patch: int) -> np.ndarray:
    """Whether crops (N, T, 4) show the target (N, 1, 4): (N, T) bool. Areas are compared in pixels of the view."""
    inner = _inner(crops, target)
    area = np.clip(inner[..., 2] - inner[..., 0], 0, None) * np.clip(inner[..., 3] - inner[..., 1], 0, None)
    whole = (target[..., 2] - target[..., 0]) * (target[..., 3] - target[..., 1])
    zoom = options.size**2 / np.maximum(crops[..., 2] * crops[..., 3], 1)  # attempts may have no area
    exact = 1 - 1e-9  # sums of fractions of a pixel
    enough = (area * zoom >= patch**2) | (area >= exact * whole)
    shown: np.ndarray = (area > 0) & enough & (area >= exact * options.inside * whole)
    return shown


def _inner(crops: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The target inside of crops, xyxy pixels of the image; empty where x2 <= x1 or y2 <= y1."""
    top, left, height, width = np.moveaxis(crops, -1, 0)
    x1, y1 = np.maximum(target[..., 0], left), np.maximum(target[..., 1], top)
    x2, y2 = np.minimum(target[..., 2], left + width), np.minimum(target[..., 3], top + height)
    return np.stack(np.broadcast_arrays(x1, y1, x2, y2), axis=-1)


def _located(inner: np.ndarray, crops: np.ndarray, flips: np.ndarray, size: int) -> np.ndarray:
    """Boxes in pixels of the image -> xyxy pixels of the view, mirrored where it is."""
    top, left, height, width = np.moveaxis(crops.astype(np.float64), -1, 0)
    x1, x2 = (inner[..., 0] - left) * size / width, (inner[..., 2] - left) * size / width
    y1, y2 = (inner[..., 1] - top) * size / height, (inner[..., 3] - top) * size / height
    return np.stack([np.where(flips, size - x2, x1), y1, np.where(flips, size - x1, x2), y2], axis=-1)
