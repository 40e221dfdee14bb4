"""Inverse augmentation (SlotCon, arXiv:2205.15288, Sec. 3.1): maps of two views on one grid.

After it, a cell shows the same place of the image in both maps.
The official code (`invaug` in `models/slotcon.py`) cuts the intersection of the two crops out of each map with
RoI-align and undoes the flip. A box is never larger than the map, so RoI-align takes exactly one bilinear sample per
cell. Two small interpolation matrices give the same values (to 3e-6), and unlike RoI-align and `grid_sample` their
backward pass is deterministic on a GPU.
"""

from __future__ import annotations

import torch
from torch import Tensor


def align(maps: Tensor, boxes: Tensor, flips: Tensor) -> Tensor:
    """Resample maps within boxes to the maps' own size, and undo flips.

    Args:
        maps: (B, C, H, W).
        boxes: (B, 4), x0 y0 x1 y1 as shares of the map's sides, in the coordinates of the (flipped) view.
        flips: (B,) bool, whether the view was flipped left to right.

    Returns:
        (B, C, H, W) in the maps' dtype, also under autocast. The whole map without a flip is returned exactly.
    """
    height, width = maps.shape[-2:]
    with torch.autocast(maps.device.type, enabled=False):
        x0, y0, x1, y1 = boxes.to(maps).unbind(1)
        columns = interpolation(x0, x1, width)
        columns = torch.where(flips[:, None, None], columns.flip(1), columns)
        # Crops that do not overlap have a box without area. RoI-align then takes no sample and returns zeros.
        rows = interpolation(y0, y1, height) * ((x1 > x0) & (y1 > y0))[:, None, None]
        return torch.einsum("bpi,bcij,bqj->bcpq", rows, maps, columns)


def interpolation(start: Tensor, end: Tensor, size: int) -> Tensor:
    """Return bilinear weights (B, size, size) that resample `size` cells within [start, end] to `size` samples.

    Args:
        start, end: (B,), ends of the interval as shares of the axis.
        size: number of cells and of samples.
    """
    # Sample q lies in the middle of the q-th of `size` equal parts. Cell centres are at 0 .. size - 1 (RoI-align's
    # `aligned=True`), and beyond the outer ones the border is repeated.
    cells = torch.arange(size, device=start.device, dtype=start.dtype)
    centres = start[:, None] * size + (cells + 0.5) * (end - start)[:, None] - 0.5
    distance = (centres.clamp(0, size - 1)[:, :, None] - cells).abs()
    return (1 - distance).clamp(min=0)
