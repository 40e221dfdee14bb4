"""Conversion of boxes to the patches of a vision transformer that they cover."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class BoxPatches:
    """The patches of boxes, and which boxes were unusual; the leading axes are those of the boxes.

    Attributes:
        patches: (..., P) bool, row-major.
        inverted: (...) bool, boxes whose corners were in the wrong order; they were swapped.
        thin: (...) bool, boxes narrower or lower than a patch.
        outside: (...) bool, boxes that touch no pixel of the image; they have no patches.
    """

    patches: Tensor
    inverted: Tensor
    thin: Tensor
    outside: Tensor


def patches_of_boxes(boxes: Tensor, size: tuple[int, int], patch: int, margin: int = 0) -> BoxPatches:
    """Find the patches that boxes touch.

    A patch counts if any part of it is within the box: rows floor(y0 / patch) to ceil(y1 / patch) - 1. ODIS
    (arXiv:2506.05409) has no public code; this is the rule of a public follow-up for a single box
    (KarahanS/Cross-Time-Self-Distillation).

    Args:
        boxes: (..., 4) xyxy in pixels. A box with a number that is not finite is absent: it has no patches and is
            counted nowhere. A box without area covers the patch that it lies in.
        size: (height, width) of the image in pixels, multiples of `patch`.
        patch: side of a patch in pixels.
        margin: patches that are added on each side, clipped at the image.
    """
    known = boxes.isfinite().all(-1)
    boxes = torch.where(known[..., None], boxes, 0.0)  # NaN has no floor
    low, high = torch.minimum(boxes[..., :2], boxes[..., 2:]), torch.maximum(boxes[..., :2], boxes[..., 2:])
    limit = boxes.new_tensor([size[1], size[0]])
    # A box that ends at 0 touches no pixel, unless it starts there as well: then it is a point on the first pixel.
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
    """Mark the positions from first to last, both included: (...) -> (..., count) bool."""
    position = torch.arange(count, device=first.device)
    return (position >= first[..., None]) & (position <= last[..., None])
