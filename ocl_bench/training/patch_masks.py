"""Draws the patches that are hidden from the student, as in iBOT (arXiv:2111.07832) and BEiT (arXiv:2106.08254)."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from .crops import sample_generators

ATTEMPTS = 10
"""Blocks that are tried before the mask is accepted as it is."""

ASPECT = 0.3
"""Smallest ratio of height to width of a block; the largest is its inverse."""


class PatchMaskOptions(BaseModel):
    """How many patches are hidden. The defaults are iBOT's: none in half of the views, 10 to 50 % in the others.

    Attributes:
        ratio: Middle of the share of hidden patches. One entry is drawn for each view.
        variation: The share is uniform in ratio +- variation, with the entry that belongs to the drawn ratio.
        shape: `block` hides rectangles, which may cover less than the drawn share. `random` hides single patches.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    ratio: tuple[float, ...] = Field(default=(0.0, 0.3), min_length=1)
    variation: tuple[float, ...] = Field(default=(0.0, 0.2), min_length=1)
    shape: Literal["block", "random"] = "block"


def draw_patch_masks(
    seed: int, step: int, samples: np.ndarray, views: int, grid: int, options: PatchMaskOptions
) -> Tensor:
    """Draw which patches are hidden: (N, views, grid * grid) bool, True for hidden.

    Args:
        seed: Seed of the training.
        step: Number of the step.
        samples: (N,) numbers of the samples.
        views: Number of views of each sample.
        grid: Patches along one side of a view.
        options: How many patches to hide.
    """
    masks = [
        [_draw(rng, grid, options).reshape(-1) for _ in range(views)]
        for rng in sample_generators(seed, "patch-masks", step, samples)
    ]
    return torch.from_numpy(np.array(masks))


def _draw(rng: np.random.Generator, grid: int, options: PatchMaskOptions) -> np.ndarray:
    """The hidden patches of one view: (grid, grid) bool."""
    choice = int(rng.integers(len(options.ratio)))
    middle, reach = options.ratio[choice], options.variation[min(choice, len(options.variation) - 1)]
    wanted = (middle + reach * (2 * rng.random() - 1)) * grid * grid
    if options.shape == "random":
        mask = np.zeros(grid * grid, dtype=bool)
        mask[rng.permutation(grid * grid)[: max(0, int(wanted))]] = True
        return mask.reshape(grid, grid)
    return block_mask(rng, grid, wanted)


def block_mask(rng: np.random.Generator, grid: int, wanted: float) -> np.ndarray:
    """Hide at most `wanted` patches in rectangles: (grid, grid) bool.

    A rectangle has at least (grid // 3)^2 patches before rounding. A small `wanted` may therefore hide nothing.
    """
    mask = np.zeros((grid, grid), dtype=bool)
    least = (grid // 3) ** 2
    while mask.sum() < wanted:
        room = wanted - mask.sum()
        for _ in range(ATTEMPTS):
            area = least + (room - least) * rng.random()  # room < least interpolates downwards, as in iBOT
            aspect = math.exp(math.log(ASPECT) * (1 - 2 * rng.random()))
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if not (0 < height < grid and 0 < width < grid):
                continue
            top, left = int(rng.integers(grid - height + 1)), int(rng.integers(grid - width + 1))
            block = mask[top : top + height, left : left + width]
            # Accept a rectangle only if it hides new patches, and not more than are still wanted.
            if 0 < height * width - block.sum() <= room:
                block[:] = True
                break
        else:
            return mask
    return mask
