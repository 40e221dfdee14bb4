"""Inverse augmentation: what two views of an image show of the same place, on one grid (arXiv:2205.15288).

SlotCon cuts the intersection of its two crops out of each map with RoI-align and undoes the flip. As the box is never
larger than the map, RoI-align takes one bilinear sample per cell: two small interpolation matrices do the same, and
unlike `grid_sample` and RoI-align their backward pass is deterministic on a GPU.
"""

from __future__ import annotations

import torch
from torch import Tensor


def align(maps: Tensor, boxes: Tensor, flips: Tensor) -> Tensor:
    """Resample maps (B, C, H, W) within boxes to the same size, and undo the flips.

    boxes: (B, 4), x0 y0 x1 y1 as shares of the map's sides, in the coordinates of the (flipped) view.
    flips: (B,) bool, whether the view was flipped left to right. A box without area gives zeros without gradient, as
    RoI-align does; the whole map without a flip is returned exactly. Computed in the maps' type, also under autocast.
    """
    height, width = maps.shape[-2:]
    with torch.autocast(maps.device.type, enabled=False):
        x0, y0, x1, y1 = boxes.to(maps).unbind(1)
        columns = interpolation(x0, x1, width)
        columns = torch.where(flips[:, None, None], columns.flip(1), columns)
        rows = interpolation(y0, y1, height) * ((x1 > x0) & (y1 > y0))[:, None, None]
        return torch.einsum("bpi,bcij,bqj->bcpq", rows, maps, columns)


def interpolation(start: Tensor, end: Tensor, size: int) -> Tensor:
    """Bilinear weights (B, size, size) that resample `size` cells within [start, end] to `size` samples.

    start, end: (B,) as shares of the axis. Row q of a matrix is centred at the middle of the q-th of `size` equal parts
    of the interval, in cells whose centres are at 0 .. size - 1; beyond these the border is repeated.
    """
    cells = torch.arange(size, device=start.device, dtype=start.dtype)
    centres = start[:, None] * size + (cells + 0.5) * (end - start)[:, None] - 0.5
    distance = (centres.clamp(0, size - 1)[:, :, None] - cells).abs()
    return (1 - distance).clamp(min=0)
