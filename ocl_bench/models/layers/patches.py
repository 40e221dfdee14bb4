"""Boxes become patches: which cells of a vision transformer's grid an object covers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class BoxPatches:
    """Patches of boxes, and what was unusual about the boxes; leading axes are those of the boxes.

    patches: (..., P) bool, row-major. inverted: (...) bool, corners in the wrong order, which were swapped. thin: (...)
    bool, narrower or lower than a patch. outside: (...) bool, boxes that touch no pixel of the image: no patches.
    """

    patches: Tensor
    inverted: Tensor
    thin: Tensor
    outside: Tensor


def patches_of_boxes(boxes: Tensor, size: tuple[int, int], patch: int, margin: int = 0) -> BoxPatches:
    """The patches that boxes touch, and `margin` more on each side, clipped at the image.

    boxes: (..., 4) xyxy in pixels of an image of `size` (height, width), both multiples of `patch`. A patch counts if
    any part of it is within the box: rows floor(y0 / patch) to ceil(y1 / patch) - 1. A box without area covers the
    patch that it lies in. A box with a number that is not finite is absent: no patches, and counted nowhere.
    """
    known = boxes.isfinite().all(-1)
    boxes = torch.where(known[..., None], boxes, 0.0)
    low, high = torch.minimum(boxes[..., :2], boxes[..., 2:]), torch.maximum(boxes[..., :2], boxes[..., 2:])
    limit = boxes.new_tensor([size[1], size[0]])
    outside = ((high < 0) | (low >= limit) | ((high == 0) & (low < 0))).any(-1)
    usable = known & ~outside
    first = (low.clamp(min=0) / patch).floor()
    last = torch.maximum((torch.minimum(high, limit) / patch).ceil() - 1, first)
    columns, rows = (
        _between(first[..., axis] - margin, last[..., axis] + margin, size[1 - axis] // patch) for axis in (0, 1)
    )
    patches = (rows[..., :, None] & columns[..., None, :]).flatten(-2) & usable[..., None]
    return BoxPatches(
        patches,
        inverted=known & (boxes[..., :2] > boxes[..., 2:]).any(-1),
        thin=usable & (high - low < patch).any(-1),
        outside=known & outside,
    )


def _between(first: Tensor, last: Tensor, count: int) -> Tensor:
    """(...) -> (..., count) bool: the positions from first to last, both included."""
    position = torch.arange(count, device=first.device)
    return (position >= first[..., None]) & (position <= last[..., None])
