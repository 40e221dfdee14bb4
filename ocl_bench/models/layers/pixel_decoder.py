"""SAVi's decoder (Kipf et al., ICLR 2022, arXiv:2111.12594): each slot is decoded to a picture and a mask of its own.

The details are those of pairlab/SlotFormer (commit 10a6d9b), whose checkpoints hold this decoder.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PixelDecoder(nn.Module):
    """Broadcasts a slot over a coarse grid with positions, then enlarges it by transposed convolutions.

    Args:
        slot_dim: C of the slots.
        grid: side of the coarse grid.
        side: side of the picture, grid times a power of two.
        widths: output channels of each convolution. Convolutions double the side until it is that of the picture.
    """

    def __init__(self, slot_dim: int, *, grid: int = 8, side: int = 64, widths: Sequence[int] = (64,) * 4) -> None:
        super().__init__()
        rows = torch.linspace(0, 1, grid)
        row, column = torch.meshgrid(rows, rows, indexing="ij")
        self.grid: Tensor
        self.register_buffer("grid", torch.stack([row, column, 1 - row, 1 - column], dim=-1)[None])
        self.positions = nn.Linear(4, slot_dim)
        layers, at, inputs = [], grid, slot_dim
        for width in widths:
            stride = 2 if at < side else 1
            layers.append(nn.ConvTranspose2d(inputs, width, 5, stride, padding=2, output_padding=stride - 1))
            at, inputs = at * stride, width
        self.layers = nn.ModuleList(layers)
        self.last = nn.Conv2d(inputs, 4, 1)

    def forward(self, slots: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Decode slots (B, K, C).

        Returns:
            The picture (B, 3, S, S) in [-1, 1], the picture of each slot (B, K, 3, S, S), and the masks (B, K, S, S),
            which sum to 1 over the slots.
        """
        at = slots.flatten(0, 1)[:, None, None] + self.positions(self.grid)
        features = at.permute(0, 3, 1, 2)
        for layer in self.layers:
            features = F.relu(layer(features))
        each = self.last(features).unflatten(0, slots.shape[:2])
        pictures, masks = each[:, :, :3], each[:, :, 3].softmax(dim=1)
        return (pictures * masks[:, :, None]).sum(dim=1), pictures, masks
