"""The vision transformer (arXiv:2010.11929), with registers (arXiv:2309.16588) and LayerScale (arXiv:2103.17239).

One implementation for every model here: DINO, iBOT and ODIS are the plain one, DINOv2 adds LayerScale and registers.
Parameters have the names of timm and DINO (`cls_token`, `blocks.0.attn.qkv.weight`, ...), so their weights load as is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def resample_positions(table: Tensor, grid: Sequence[int], prefix: int = 1, antialias: bool = True) -> Tensor:
    """Resample a position table to another grid as timm does: bicubic, in float32, antialiased.

    table: (1, prefix + n * n, D); the first `prefix` entries (class token) are kept. grid: new (height, width).
    Returns (1, prefix + height * width, D). The same grid is returned unchanged.
    """
    height, width = grid
    head, body = table[:, :prefix], table[:, prefix:]
    side = int(body.shape[1] ** 0.5)
    if (side, side) == (height, width):
        return table
    square = body.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    square = F.interpolate(square, size=(height, width), mode="bicubic", antialias=antialias)
    return torch.cat([head, square.flatten(2).transpose(1, 2).to(table.dtype)], dim=1)


class _PatchEmbedding(nn.Module):
    """Non-overlapping patches: (B, 3, H, W) -> (B, D, H / patch, W / patch)."""

    def __init__(self, patch: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, stride=patch)

    def forward(self, image: Tensor) -> Tensor:
        return self.proj(image)


class _Attention(nn.Module):
    """Multi-head self-attention; the mask is True where a query may look."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        batch, length, dim = x.shape
        query, key, value = self.qkv(x).view(batch, length, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.proj(x.transpose(1, 2).reshape(batch, length, dim))


class _Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class _LayerScale(nn.Module):
    def __init__(self, dim: int, start: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), start))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """Pre-norm transformer block: x + ls1(attention(norm1 x)), then x + ls2(mlp(norm2 x))."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float, layer_scale: float | None, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = _Attention(dim, heads)
        self.ls1 = nn.Identity() if layer_scale is None else _LayerScale(dim, layer_scale)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = _Mlp(dim, int(dim * mlp_ratio))
        self.ls2 = nn.Identity() if layer_scale is None else _LayerScale(dim, layer_scale)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Tokens (B, N, D) -> (B, N, D). mask: bool, broadcastable to (B, heads, N, N), True = may look."""
        x = x + self.ls1(self.attn(self.norm1(x), mask))
        return x + self.ls2(self.mlp(self.norm2(x)))


class VisionTransformer(nn.Module):
    """Image (B, 3, H, W) -> tokens (B, 1 + registers + P, D): class token, registers, patches in row-major order.

    grid: side of the position table in patches. class_position: whether the table has an entry for the class token
    (DINO, DINOv2 as published) or not (timm's register models). layer_scale: initial gamma, None = none.
    final_norm: LayerNorm after the last block; without it the raw residual stream is returned, as DIAS wants it.
    """

    def __init__(
        self,
        *,
        grid: int,
        patch: int,
        dim: int,
        depth: int,
        heads: int,
        mlp_ratio: float = 4.0,
        registers: int = 0,
        layer_scale: float | None = None,
        class_position: bool = True,
        final_norm: bool = True,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.patch, self.dim = patch, dim
        self.class_position = class_position
        self.prefix = 1 + registers
        self.patch_embed = _PatchEmbedding(patch, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.reg_token = nn.Parameter(torch.zeros(1, registers, dim)) if registers else None
        self.pos_embed = nn.Parameter(torch.zeros(1, int(class_position) + grid * grid, dim))
        self.blocks = nn.ModuleList(Block(dim, heads, mlp_ratio, layer_scale, eps) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=eps) if final_norm else nn.Identity()
        for parameter in (self.cls_token, self.reg_token, self.pos_embed):
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=0.02)

    def embed(self, image: Tensor) -> Tensor:
        """Image (B, 3, H, W), sides multiples of the patch -> tokens (B, N, D) before the first block.

        The position table is resampled when the image has another grid. Registers have no position.
        """
        patches = self.patch_embed(image)
        grid = patches.shape[-2:]
        patches = patches.flatten(2).transpose(1, 2)
        positions = resample_positions(self.pos_embed, grid, prefix=int(self.class_position))
        cls_token: Tensor = self.cls_token
        if self.class_position:
            cls_token, positions = cls_token + positions[:, :1], positions[:, 1:]
        prefix = cls_token if self.reg_token is None else torch.cat([cls_token, self.reg_token], dim=1)
        return torch.cat([prefix.expand(len(image), -1, -1), patches + positions], dim=1)

    def forward(self, image: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Image (B, 3, H, W) -> tokens (B, N, D). attention_mask: bool, broadcastable to (B, heads, N, N)."""
        x = self.embed(image)
        for block in self.blocks:
            x = block(x, attention_mask)
        return self.norm(x)

    def patch_grid(self, image: Tensor) -> Tensor:
        """Image (B, 3, H, W) -> patch tokens (B, D, H / patch, W / patch), class token and registers dropped."""
        patches = self(image)[:, self.prefix :].transpose(1, 2)
        return patches.reshape(*patches.shape[:2], image.shape[-2] // self.patch, image.shape[-1] // self.patch)


def dinov2_small_registers(grid: int = 16) -> VisionTransformer:
    """DINOv2 ViT-S/14 with 4 registers as timm stores it, without the final norm: 21,629,184 parameters at grid 16."""
    return VisionTransformer(
        grid=grid,
        patch=14,
        dim=384,
        depth=12,
        heads=6,
        registers=4,
        layer_scale=1e-5,
        class_position=False,
        final_norm=False,
    )
