"""Which patches of a view are hidden from the student, as in iBOT (arXiv:2111.07832) and BEiT (arXiv:2106.08254)."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from .crops import sample_generators

ATTEMPTS = 10
"""Blocks that are tried before the next one is given up."""

ASPECT = 0.3
"""Smallest height of a block as a share of its width; the largest is its inverse."""


class PatchMaskOptions(BaseModel):
    """How much is hidden.

    ratio, variation: one pair of them is drawn for each view, then the share of hidden patches in ratio +- variation;
    the defaults are iBOT's: nothing in half of the views, 0.1 to 0.5 in the others. shape: `block` hides rectangles,
    whose sum may fall short of the share; `random` hides single patches.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    ratio: tuple[float, ...] = Field(default=(0.0, 0.3), min_length=1)
    variation: tuple[float, ...] = Field(default=(0.0, 0.2), min_length=1)
    shape: Literal["block", "random"] = "block"


def draw_patch_masks(
    seed: int, step: int, samples: np.ndarray, views: int, grid: int, options: PatchMaskOptions
) -> Tensor:
    """(N, views, grid * grid) bool, True = hidden; a pure function of (seed, step, sample)."""
    drawn = [
        [_draw(rng, grid, options).reshape(-1) for _ in range(views)]
        for rng in sample_generators(seed, "patch-masks", step, samples)
    ]
    return torch.from_numpy(np.array(drawn))


def _draw(rng: np.random.Generator, grid: int, options: PatchMaskOptions) -> np.ndarray:
    choice = int(rng.integers(len(options.ratio)))
    middle, reach = options.ratio[choice], options.variation[min(choice, len(options.variation) - 1)]
    wanted = (middle + reach * (2 * rng.random() - 1)) * grid * grid
    if options.shape == "random":
        mask = np.zeros(grid * grid, dtype=bool)
        mask[rng.permutation(grid * grid)[: max(0, int(wanted))]] = True
        return mask.reshape(grid, grid)
    return block_mask(rng, grid, wanted)


def block_mask(rng: np.random.Generator, grid: int, wanted: float) -> np.ndarray:
    """(grid, grid) bool with at most `wanted` patches hidden in rectangles.

    A rectangle has at least (grid // 3)^2 patches before rounding, so a small `wanted` may hide nothing.
    """
    mask = np.zeros((grid, grid), dtype=bool)
    least = (grid // 3) ** 2
    while mask.sum() < wanted:
        room = wanted - mask.sum()
        for _ in range(ATTEMPTS):
            area = least + (room - least) * rng.random()
            aspect = math.exp(math.log(ASPECT) * (1 - 2 * rng.random()))
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if not (0 < height < grid and 0 < width < grid):
                continue
            top, left = int(rng.integers(grid - height + 1)), int(rng.integers(grid - width + 1))
            block = mask[top : top + height, left : left + width]
            if 0 < height * width - block.sum() <= room:
                block[:] = True
                break
        else:
            return mask
    return mask
