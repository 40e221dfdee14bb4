"""What is odd about boxes: coordinates that cannot be corners in pixels of the image."""

from __future__ import annotations

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
