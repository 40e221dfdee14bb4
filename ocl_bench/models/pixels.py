"""Floors whose features are not learnt: raw colour, a shrunk image, and an untrained encoder."""

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


class ShrunkImage:
    """Embedding (B, 3 side^2 + 1): the image shrunk to side x side pixels by averages.

    Cosines of these embeddings order images as distances of their pixels do. side: 1 gives the mean colour.
    """

    def __init__(self, side: int) -> None:
        self.side = side

    def predict(self, batch: Batch) -> Prediction:
        """Predict the embedding only."""
        # Colours are measured from grey and scaled into the unit ball, then lifted onto the sphere: the cosine of two
        # such vectors is nearly 1 - distance^2 / 2. Plain cosines of colours would ignore how light an image is.
        pixels = (F.adaptive_avg_pool2d(batch.image, self.side) - 0.5).flatten(1)
        pixels = pixels / (0.5 * pixels.shape[1] ** 0.5)
        height = (1 - pixels.square().sum(1, keepdim=True)).clamp_min(0).sqrt()
        return Prediction(
            embedding=torch.cat([pixels, height], dim=1), embedding_source=f"pixels:{self.side}x{self.side}"
        )


def build_shrunk_image(side: int = 4) -> ShrunkImage:
    """Build the floor `pixels-4x4`; UsageError if `side` is not a positive integer."""
    return ShrunkImage(positive("side", side))


def build_random_features(seed: int = 0, width: int = 64, dim: int = 64) -> Encoder:
    """Build the floor `random-features`: the bundled encoder's network with random weights, a function of the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Encoder(width, positive("dim", dim), (1, 1)).eval()
