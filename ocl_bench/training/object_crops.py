"""The augmentation of ODIS (arXiv:2506.05409): both global crops of an image show the same object.

The code of ODIS is not published; this follows the paper. For each image and step, one box is drawn among the boxes of
*all* its objects, distractors included. Each of the two global crops is drawn again, up to `TRIES` times, until it
shows this object; local crops ignore it. If no crop shows the object, the last crop is used and the object counts as
absent from that view. Images without a usable box get plain crops.

The paper does not say when a crop shows an object. Here it must contain at least one patch of the view or the whole
object, and at least the share `inside` of the box (1 means strict containment). All random choices come from a row of
uniform numbers that depends on (seed, step, sample) alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from .crops import LOOKS, Looks, central_crops, draw_attempts, first_good, looks_from_uniform
from .crops import TRIES as PLAIN_TRIES

TRIES = 20
"""Largest number of crops that are tried for one global view."""

_DRAWN = 4 * TRIES
"""Attempts that are drawn for one global view. Only the first `TRIES` that fit into the image count."""

_GLOBALS = 2
_GLOBAL = 4 * _DRAWN + 1
_LOCAL = 4 * PLAIN_TRIES + 1
"""Uniform numbers of the geometry of one local view: four for each attempt, and one for the flip."""


class CropOptions(BaseModel):
    """How views are cropped.

    Attributes:
        size: Side of the global views in pixels.
        scale: Smallest and largest share of the image's area in a global view.
        locals: Number of local views L.
        local_size: Side of the local views in pixels.
        local_scale: Smallest and largest share of the image's area in a local view.
        object_aware: Draw global crops again until they show the object.
        inside: Smallest share of the object's box in a view that shows it.
        zoom: Smallest and largest side of a global view that shows an object, in sides of the object. Such a view is a
            square around the whole object, which `scale`, `object_aware` and `inside` do not change. None draws crops
            of the image until one shows the object, as in the paper.
        local_blur: Probability of a blurred local view. Local views are never solarised.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    size: int = Field(default=224, ge=8)
    scale: tuple[float, float] = (0.25, 1.0)
    locals: int = Field(default=10, ge=0)
    local_size: int = Field(default=96, ge=8)
    local_scale: tuple[float, float] = (0.05, 0.25)
    object_aware: bool = True
    inside: float = Field(default=0.0, ge=0, le=1)
    zoom: tuple[float, float] | None = None
    local_blur: float = Field(default=0.5, ge=0, le=1)

    @property
    def columns(self) -> int:
        """Number of uniform numbers of one sample: target, geometry of global and local views, looks of all views."""
        return 1 + _GLOBALS * _GLOBAL + self.locals * _LOCAL + (_GLOBALS + self.locals) * LOOKS


@dataclass(frozen=True)
class ObjectCrops:
    """Two global and L local crops of each of N images.

    Attributes:
        crops: (N, 2 + L, 4) int64 top, left, height, width in pixels of the image.
        flips: (N, 2 + L) bool, which crops are mirrored after cropping.
        boxes: (N, 2, 4) float32 xyxy, the visible part of the target in pixels of each (mirrored) global view; NaN
            where the view does not show the target.
        present: (N, 2 + L) bool, which views show the target. For a local view, one pixel of it is enough.
        target: (N,) int64 number of the target among the image's boxes, -1 without one.
        tries: (N, 2) number of crops that were drawn for each global view.
        unusable: (N,) int64 number of boxes that were left out.
        inverted: (N,) int64 number of boxes whose corners were swapped.
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
    """Put the corners of boxes in order and clip the boxes to their images.

    A box is unusable if one of its numbers is not finite, if it has no area, or if it lies outside the image.

    Args:
        boxes: (N, M, 4) xyxy pixels; rows of NaN are absent.
        sizes: (N, 2) height and width of the images.

    Returns:
        Boxes (N, M, 4) float64, NaN where absent or unusable; the number of unusable boxes (N,); and the number of
        usable boxes whose corners were swapped (N,).
    """
    present, finite = ~np.isnan(boxes).all(2), np.isfinite(boxes).all(2)
    known = np.where(finite[..., None], boxes, 0).astype(np.float64)  # `usable` excludes the zeros again
    limits = np.stack([sizes[:, 1], sizes[:, 0]], axis=1)[:, None].astype(np.float64)
    low = np.clip(np.minimum(known[..., :2], known[..., 2:]), 0, limits)
    high = np.clip(np.maximum(known[..., :2], known[..., 2:]), 0, limits)
    usable = finite & (high > low).all(2)
    inverted = usable & (known[..., :2] > known[..., 2:]).any(2)
    cleaned = np.where(usable[..., None], np.concatenate([low, high], axis=2), np.nan)
    return cleaned, (present & ~usable).sum(1), inverted.sum(1)


def draw_object_crops(
    uniform: np.ndarray, sizes: np.ndarray, boxes: np.ndarray, options: CropOptions, patch: int
) -> ObjectCrops:
    """Draw the crops of N images.

    Args:
        uniform: (N, options.columns) rows of `draw_uniform`.
        sizes: (N, 2) height and width in pixels, at least 1.
        boxes: (N, M, 4) xyxy pixels of all objects; rows of NaN are absent.
        options: How to crop.
        patch: Side of a patch in pixels of the view.
    """
    usable, unusable, inverted = clean_boxes(boxes, sizes)
    target = _draw_targets(uniform[:, 0], usable)
    rows = np.arange(len(sizes))
    none = target < 0
    chosen = np.zeros((len(sizes), 4))  # images without a target get an empty box; `none` masks what follows from it
    if usable.shape[1]:
        chosen = np.where(none[:, None], 0.0, usable[rows, target])
    crops, tries = [], []
    for view in range(_GLOBALS):
        numbers = uniform[:, 1 + view * _GLOBAL :][:, : 4 * _DRAWN].reshape(-1, _DRAWN, 4)
        crop, count = _global_crops(numbers, sizes, chosen, none, options, patch)
        if options.zoom is not None:
            around = squares_around(numbers[:, 0], sizes, chosen, options.zoom)
            crop, count = np.where(none[:, None], crop, around), np.where(none, count, 1)
        crops.append(crop)
        tries.append(count)
    start = 1 + _GLOBALS * _GLOBAL
    for view in range(options.locals):
        numbers = uniform[:, start + view * _LOCAL :][:, : 4 * PLAIN_TRIES].reshape(-1, PLAIN_TRIES, 4)
        drawn, _, fits = draw_attempts(numbers, sizes, *options.local_scale)
        crops.append(first_good(drawn, fits, central_crops(sizes)))
    placed = np.stack(crops, axis=1)
    # The last number of each view's geometry decides about its flip.
    ends = [*range(_GLOBAL, start, _GLOBAL), *(start + _LOCAL * (k + 1) - 1 for k in range(options.locals))]
    flips = uniform[:, ends] < 0.5
    visible = _visible_part(placed, chosen[:, None])
    touched = (visible[..., 2] > visible[..., 0]) & (visible[..., 3] > visible[..., 1])
    shown = _shows(placed[:, :_GLOBALS], chosen[:, None], options, patch)
    present = np.concatenate([shown, touched[:, _GLOBALS:]], axis=1) & ~none[:, None]
    in_view = _boxes_in_view(visible[:, :_GLOBALS], placed[:, :_GLOBALS], flips[:, :_GLOBALS], options.size)
    in_view = np.where(present[:, :_GLOBALS, None], in_view, np.nan).astype(np.float32)
    parts = (placed, flips, in_view, present, target, np.stack(tries, axis=1), unusable, inverted)
    return ObjectCrops(*(torch.from_numpy(np.ascontiguousarray(part)) for part in parts))


def draw_object_looks(uniform: np.ndarray, options: CropOptions, looks: Looks) -> Tensor:
    """Parameters of the looks of all views (N, 2 + L, 11), from the same rows; see `crops.draw_looks`."""
    views = []
    for view in range(_GLOBALS + options.locals):
        start = 1 + _GLOBALS * _GLOBAL + options.locals * _LOCAL + view * LOOKS
        is_global = view < _GLOBALS
        blur = looks.blur[view] if is_global else options.local_blur
        solarise = looks.solarise[view] if is_global else 0.0
        views.append(looks_from_uniform(uniform[:, start : start + LOOKS], looks, blur, solarise))
    return torch.stack(views, dim=1)


def squares_around(uniform: np.ndarray, sizes: np.ndarray, target: np.ndarray, zoom: tuple[float, float]) -> np.ndarray:
    """Squares inside the images, each around an object: (N, 4) top, left, height, width.

    The side is that of the object (its longer one) times a uniform factor, and at most the shorter side of the image.
    The place is uniform among those that show the whole object, or, where it is longer than the square, nothing else.

    Args:
        uniform: (N, 4) numbers in [0, 1): side, unused, top, left.
        sizes: (N, 2) height and width of the images.
        target: (N, 4) box of the object, inside the image.
        zoom: Smallest and largest factor.
    """
    x1, y1, x2, y2 = target.T
    factor = zoom[0] + (zoom[1] - zoom[0]) * uniform[:, 0]
    side = np.clip(np.rint(factor * np.maximum(x2 - x1, y2 - y1)), 1, sizes.min(1))
    corners = []
    for low, high, share, length in ((y1, y2, uniform[:, 2], sizes[:, 0]), (x1, x2, uniform[:, 3], sizes[:, 1])):
        corner = np.minimum(low, high - side) + share * np.abs(high - low - side)
        corners.append(np.clip(np.rint(corner), 0, length - side))
    return np.stack([*corners, side, side], axis=1).astype(np.int64)


def _draw_targets(uniform: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Draw one usable box of each image, all with the same probability: (N,) position, -1 if there is none."""
    usable = ~np.isnan(boxes).any(2)
    number = np.floor(uniform * usable.sum(1)).astype(np.int64)
    at_number = usable & (usable.cumsum(1) - 1 == number[:, None])
    return np.where(usable.any(1), at_number.argmax(1) if boxes.shape[1] else -1, -1)


def _global_crops(
    uniform: np.ndarray, sizes: np.ndarray, target: np.ndarray, none: np.ndarray, options: CropOptions, patch: int
) -> tuple[np.ndarray, np.ndarray]:
    """Global crops of one view and the number of crops that were drawn.

    Args:
        uniform: (N, _DRAWN, 4) uniform numbers.
        sizes: (N, 2) height and width of the images.
        target: (N, 4) box of the target.
        none: (N,) bool, which images have no target.
        options: How to crop.
        patch: Side of a patch in pixels of the view.

    Returns:
        The first crop (N, 4) that shows the target, or the last of `TRIES` crops; and how many were drawn (N,).
    """
    drawn, _, fits = draw_attempts(uniform, sizes, *options.scale)
    # An attempt that does not fit into the image is not a crop and does not count as a try.
    counted = fits & (fits.cumsum(1) <= TRIES)
    last = np.where(counted, np.arange(_DRAWN), -1).max(1)
    fallback = np.take_along_axis(drawn, np.maximum(last, 0)[:, None, None], axis=1)[:, 0]
    fallback = np.where((last >= 0)[:, None], fallback, central_crops(sizes))
    good = counted
    if options.object_aware:
        good = counted & (_shows(drawn, target[:, None], options, patch) | none[:, None])
    tries = np.where(good.any(1), np.cumsum(counted, axis=1)[np.arange(len(good)), good.argmax(1)], counted.sum(1))
    return first_good(drawn, good, fallback), tries


def _shows(crops: np.ndarray, target: np.ndarray, options: CropOptions, patch: int) -> np.ndarray:
    """Whether crops (N, T, 4) show the target (N, 1, 4), see the module: (N, T) bool."""
    visible = _visible_part(crops, target)
    area = np.clip(visible[..., 2] - visible[..., 0], 0, None) * np.clip(visible[..., 3] - visible[..., 1], 0, None)
    whole = (target[..., 2] - target[..., 0]) * (target[..., 3] - target[..., 1])
    # The area is compared in pixels of the view. Attempts that do not fit may have no area.
    zoom = options.size**2 / np.maximum(crops[..., 2] * crops[..., 3], 1)
    exact = 1 - 1e-9  # corners are fractions of pixels: a whole object may miss its own area by rounding
    enough = (area * zoom >= patch**2) | (area >= exact * whole)
    shown: np.ndarray = (area > 0) & enough & (area >= exact * options.inside * whole)
    return shown


def _visible_part(crops: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Part of the target inside crops, xyxy pixels of the image. It is empty where x2 <= x1 or y2 <= y1."""
    top, left, height, width = np.moveaxis(crops, -1, 0)
    x1, y1 = np.maximum(target[..., 0], left), np.maximum(target[..., 1], top)
    x2, y2 = np.minimum(target[..., 2], left + width), np.minimum(target[..., 3], top + height)
    return np.stack(np.broadcast_arrays(x1, y1, x2, y2), axis=-1)


def _boxes_in_view(boxes: np.ndarray, crops: np.ndarray, flips: np.ndarray, size: int) -> np.ndarray:
    """Convert boxes in pixels of the image to xyxy pixels of the (mirrored) view."""
    top, left, height, width = np.moveaxis(crops.astype(np.float64), -1, 0)
    x1, x2 = (boxes[..., 0] - left) * size / width, (boxes[..., 2] - left) * size / width
    y1, y2 = (boxes[..., 1] - top) * size / height, (boxes[..., 3] - top) * size / height
    return np.stack([np.where(flips, size - x2, x1), y1, np.where(flips, size - x1, x2), y2], axis=-1)
