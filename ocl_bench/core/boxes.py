"""Boxes: coordinates that cannot be corners in pixels of the image, and non-maximum suppression."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

SWAPPED = "boxes with swapped corners (x, y, width, height instead of x0, y0, x1, y1?)"
OUTSIDE = "boxes outside of their image"
FAR = "boxes that end far outside of their image (corners instead of width and height, or another scale?)"
FIRST_PIXEL = "boxes within the first pixel of their image (0..1 instead of pixels?)"

_SLACK = 0.1
"""Share of the side of an image by which boxes that are not clipped may end outside."""


def odd_boxes(boxes: np.ndarray, shape: tuple[int, int], pixel: tuple[float, float] = (1.0, 1.0)) -> dict[str, int]:
    """How many boxes are odd, by kind; empty when none is. A box without an area is not odd: it is used as padding.

    Args:
        boxes: (N, 4) x0, y0, x1, y1 in pixels of the image.
        shape: (H, W) of the image.
        pixel: height and width of a pixel of the image in which the boxes were given, if that was another size.
    """
    x0, y0, x1, y1 = boxes.T
    swapped = (x1 < x0) | (y1 < y0)
    area = (x1 > x0) & (y1 > y0)
    outside = area & ((x1 <= 0) | (y1 <= 0) | (x0 >= shape[1]) | (y0 >= shape[0]))
    far = area & ~outside & ((x1 > shape[1] * (1 + _SLACK)) | (y1 > shape[0] * (1 + _SLACK)))
    first = area & ~outside & (x1 <= pixel[1]) & (y1 <= pixel[0])
    kinds = ((SWAPPED, swapped), (OUTSIDE, outside), (FAR, far), (FIRST_PIXEL, first))
    return {kind: int(found.sum()) for kind, found in kinds if found.any()}


def survivors(scores: np.ndarray, rivals: Callable[[int], np.ndarray]) -> np.ndarray:
    """Greedy non-maximum suppression: the best of all stays, then the best of those that it does not remove, and so on.

    Args:
        scores: (N,) of what may be removed; not NaN.
        rivals: position -> (N,) bool, what this one removes when it stays. It may include itself.

    Returns:
        (M,) int64 positions of those that stay, in descending order of score; ties keep their order.
    """
    alive = np.ones(len(scores), bool)
    kept = []
    for position in np.argsort(-scores, kind="stable"):
        if alive[position]:
            kept.append(position)
            alive &= ~rivals(position)
    return np.array(kept, np.int64)


def overlapping(boxes: np.ndarray, limit: float) -> Callable[[int], np.ndarray]:
    """The `rivals` of boxes: those with an IoU above `limit`. Boxes without an area overlap nothing.

    Args:
        boxes: (N, 4) x0, y0, x1, y1 with x0 <= x1 and y0 <= y1; the IoU is computed in their type.
        limit: an IoU.
    """
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)

    def rivals(position: int) -> np.ndarray:
        low = np.maximum(boxes[position, :2], boxes[:, :2])
        high = np.minimum(boxes[position, 2:], boxes[:, 2:])
        shared = (high - low).clip(0).prod(1)
        union = area[position] + area - shared
        ratio = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
        return np.asarray(ratio > limit)

    return rivals
