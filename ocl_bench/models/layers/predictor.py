"""The predictor of SlotContrast (arXiv:2412.14295): from the slots of a frame to the queries of the next one."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class SharpAttention(nn.Module):
    """Multi-head attention whose logits are *multiplied* by the root of the head's width.

    The textbook divides by that root. The official code (`slotcontrast/modules/networks.py`) divides the queries by
    1 / root(width), and all released weights were trained so. The textbook's scale gives other slots.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** 0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out_proj = nn.Linear(dim, dim)
        for matrix in self.qkv.weight.detach().chunk(3):  # as three square matrices: their fans set the width
            nn.init.xavier_uniform_(matrix)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, slots: Tensor, memory: Tensor | None = None) -> Tensor:
        """Slots (B, K, C) attend to a memory (B, M, C) with the matrices of keys and values, or to themselves."""
        batch, count, dim = slots.shape
        if memory is None:
            heads = self.qkv(slots).view(batch, count, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
            query, key, value = heads.unbind(0)
        else:
            weights = zip(self.qkv.weight.chunk(3), self.qkv.bias.chunk(3), strict=True)
            sources = (slots, memory, memory)
            query, key, value = (
                F.linear(source, *weight).unflatten(2, (self.heads, -1)).transpose(1, 2)
                for source, weight in zip(sources, weights, strict=True)
            )
        mixed = F.scaled_dot_product_attention(query, key, value, scale=self.scale)
        return self.out_proj(mixed.transpose(1, 2).reshape(batch, count, dim))


class SlotPredictor(nn.Module):
    """One pre-norm transformer block over the slots, without positions and without a final norm.

    Args:
        dim: C, a multiple of `heads`. The feed-forward layer has width 4 C and ReLU.
        heads: attention heads.
    """

    def __init__(self, dim: int, heads: int = 4) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(dim)
        self.attention = SharpAttention(dim, heads)
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.ReLU(), nn.Linear(4 * dim, dim))

    def forward(self, slots: Tensor, memory: Tensor | None = None) -> Tensor:
        """Slots (B, K, C) of a frame -> slots (B, K, C) to begin the next frame with.

        memory: (B, M, C), to which the slots attend instead of to each other (VideoSAUR's decoder).
        """
        slots = slots + self.attention(self.norm_attention(slots), memory)
        return slots + self.mlp(self.norm_mlp(slots))
