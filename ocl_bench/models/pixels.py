"""Floors with dense features that are not learnt: raw colour, and an untrained encoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.types import Batch, Prediction
from .encoder import STRIDE, Encoder
from .floors import positive


class Pixels:
    """Tokens (B, 8, h, w): mean and standard deviation of red, green and blue in each cell, and the cell's place.

    cell: side of a cell in pixels. Pixels at the right and lower border that do not fill a cell are left out.
    """

    def __init__(self, cell: int) -> None:
        self.cell = cell

    def encode(self, batch: Batch) -> Tensor:
        """Encode a batch into tokens (B, 8, h, w)."""
        image = batch.image
        mean = F.avg_pool2d(image, self.cell)
        # Rounding can make the variance of a flat cell negative.
        spread = (F.avg_pool2d(image * image, self.cell) - mean * mean).clamp_min(0).sqrt()
        height, width = mean.shape[-2:]
        row = torch.linspace(-0.5, 0.5, height, device=image.device)[:, None].expand(height, width)
        column = torch.linspace(-0.5, 0.5, width, device=image.device).expand(height, width)
        place = torch.stack([row, column]).expand(len(image), 2, height, width)
        return torch.cat([mean, spread, place], dim=1)

    def predict(self, batch: Batch) -> Prediction:
        """Predict tokens only."""
        return Prediction(tokens=self.encode(batch))


def build_pixels(cell: int = STRIDE) -> Pixels:
    """Build the floor `pixels`; UsageError if `cell` is not a positive integer."""
    return Pixels(positive("cell", cell))


def build_random_features(seed: int = 0, width: int = 64, dim: int = 64) -> Encoder:
    """Build the floor `random-features`: the bundled encoder's network with random weights, a function of the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Encoder(width, positive("dim", dim), (1, 1)).eval()
