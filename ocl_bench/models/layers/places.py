"""Where the tokens of a grid are, as numbers for a linear layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

PLACE = 14
"""Numbers that say where a token is, see `places`."""


def places(grid: Sequence[int]) -> Tensor:
    """Where the tokens of a grid (h, w) are: (h * w, PLACE) float32 in row-major order, all numbers in [-1, 1].

    y and x of the centre of a token, and sine and cosine of both at half, one and two periods a frame. The waves let
    a slot prefer a region and not only a direction.
    """
    y, x = (2 * (torch.arange(side) + 0.5) / side - 1 for side in grid)
    centres = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1).flatten(0, 1)
    angles = torch.cat([centres * (torch.pi / 2 * periods) for periods in (1, 2, 4)], dim=1)
    return torch.cat([centres, angles.sin(), angles.cos()], dim=1)
