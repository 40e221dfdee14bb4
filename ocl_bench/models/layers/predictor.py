"""The predictor of SlotContrast (arXiv:2412.14295): from the slots of a frame to the queries of the next one."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class _SharpAttention(nn.Module):
    """Multi-head self-attention of (B, K, C) whose logits are *multiplied* by the root of the head's width.

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

    def forward(self, slots: Tensor) -> Tensor:
        batch, count, dim = slots.shape
        heads = self.qkv(slots).view(batch, count, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = heads.unbind(0)
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
        self.attention = _SharpAttention(dim, heads)
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.ReLU(), nn.Linear(4 * dim, dim))

    def forward(self, slots: Tensor) -> Tensor:
        """Slots (B, K, C) of a frame -> slots (B, K, C) to begin the next frame with."""
        slots = slots + self.attention(self.norm_attention(slots))
        return slots + self.mlp(self.norm_mlp(slots))
