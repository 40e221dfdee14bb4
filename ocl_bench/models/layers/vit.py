"""The vision transformer (arXiv:2010.11929), with registers (arXiv:2309.16588) and LayerScale (arXiv:2103.17239).

One implementation serves every model: DINO and iBOT use the plain one, DINOv2 adds LayerScale and registers, and ODIS
(arXiv:2506.05409) adds object tokens whose attention can be restricted to the patches of a box. Parameters have the
names of timm and DINO (`cls_token`, `blocks.0.attn.qkv.weight`, ...), so their weights load as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import UsageError

DINO_OFFSET = 0.1
"""Patches that DINO, iBOT and DINOv2 (without registers) add to a grid when they resample a position table to it.

See `interpolate_pos_encoding` in DINO's `vision_transformer.py`; it guards against a rounding error in the size.
"""

WHOLE_MASKS = ("cpu",)
"""Devices on which attention takes a mask of all rows.

There it costs +1 to 5 % of a step, and computing the object tokens' rows apart costs +4 to 14 % (measured, float32).
A mask that hides nothing gives the same bits as no mask.
"""


def resample_positions(
    table: Tensor, grid: Sequence[int], prefix: int = 1, antialias: bool = True, offset: float | None = None
) -> Tensor:
    """Resample a position table to another grid, bicubic.

    Args:
        table: (1, prefix + n * n, D).
        grid: new (height, width).
        prefix: number of entries at the start that are kept (class token, objects).
        antialias: of timm's rule.
        offset: None gives timm's rule: by target size, in float32. A number gives DINO's rule: by scale,
            (side + offset) / n, in the table's dtype (at least float32), without antialias. DINO's number is 0.1.

    Returns:
        (1, prefix + height * width, D); a table that has the grid already is returned unchanged.
    """
    # The two rules differ visibly: on a random table by 0.007 on average, at a standard deviation of 0.011. A model
    # needs the rule of its training code.
    height, width = grid
    head, body = table[:, :prefix], table[:, prefix:]
    side = int(body.shape[1] ** 0.5)
    if (side, side) == (height, width):
        return table
    square = body.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    if offset is None:
        square = F.interpolate(square.float(), size=(height, width), mode="bicubic", antialias=antialias)
    else:
        wide = square.to(torch.promote_types(square.dtype, torch.float32))
        scale = ((height + offset) / side, (width + offset) / side)
        square = F.interpolate(wide, scale_factor=scale, mode="bicubic")
    return torch.cat([head, square.flatten(2).transpose(1, 2).to(table.dtype)], dim=1)


class _PatchEmbedding(nn.Module):
    """Image (B, 3, H, W) -> patches (B, D, H / patch, W / patch).

    Patches do not overlap, unless `convolutional`: then they are 3 x 3 convolutions of stride 2, which see
    2 * patch - 1 pixels (arXiv:2106.14881).
    """

    def __init__(self, patch: int, dim: int, convolutional: bool = False) -> None:
        super().__init__()
        self.proj = _stem(patch, dim) if convolutional else nn.Conv2d(3, dim, patch, stride=patch)

    def forward(self, image: Tensor) -> Tensor:
        return self.proj(image)


def _stem(patch: int, dim: int) -> nn.Sequential:
    """Build one convolution of stride 2 for each factor 2 of the patch, with widths doubling up to `dim`."""
    halvings = patch.bit_length() - 1
    if patch != 2**halvings or not halvings or dim % 2**halvings:
        raise UsageError(f"option stem: patch {patch} must be a power of 2 that divides dim {dim}; or use stem: linear")
    layers: list[nn.Module] = []
    inputs = 3
    for width in (dim >> shift for shift in reversed(range(halvings))):
        # Group norm, where the paper has batch norm: a teacher that is a moving average then needs no statistics.
        layers += [nn.Conv2d(inputs, width, 3, stride=2, padding=1), nn.GroupNorm(1, width), nn.GELU()]
        inputs = width
    return nn.Sequential(*layers[:-2])  # no norm and no GELU after the last convolution


class _Attention(nn.Module):
    """Multi-head self-attention of (B, N, D)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, visible: Tensor | None = None, first: int = 0) -> Tensor:
        """Apply attention in which O tokens may be restricted.

        visible: (B, O, N) bool, the tokens to which the O tokens from position `first` on attend; all other tokens
        attend to everything. With O = N it is the mask of all rows.
        """
        batch, length, dim = x.shape
        query, key, value = self._project(x)
        if visible is None or visible.shape[1] == length:
            mask = None if visible is None else visible.unsqueeze(1)
            x = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        else:
            # The few restricted rows are computed a second time, with their mask. A mask of all rows would rule out
            # the fastest kernels of a GPU.
            count = visible.shape[1]
            restricted = query[:, :, first : first + count]
            restricted = F.scaled_dot_product_attention(restricted, key, value, attn_mask=visible.unsqueeze(1))
            x = F.scaled_dot_product_attention(query, key, value)
            before, rows, after = x.split([first, count, length - first - count], dim=2)
            # A token that sees everything keeps its first result, so a mask that hides nothing changes no bit.
            x = torch.cat([before, torch.where(visible.all(2)[:, None, :, None], rows, restricted), after], dim=2)
        return self.proj(x.transpose(1, 2).reshape(batch, length, dim))

    def weights(self, x: Tensor, visible: Tensor | None = None, first: int = 0) -> Tensor:
        """Return the attention (B, heads, N, N) that `forward` applies; rows are queries and sum to 1."""
        query, key, _ = self._project(x)
        logits = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
        if visible is not None:
            rows = slice(first, first + visible.shape[1])
            logits[:, :, rows] = logits[:, :, rows].masked_fill(~visible.unsqueeze(1), -torch.inf)
        return logits.softmax(3)

    def _project(self, x: Tensor) -> Tensor:
        """Compute queries, keys and values, (3, B, heads, N, D / heads)."""
        batch, length, dim = x.shape
        return self.qkv(x).view(batch, length, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)


class _Mlp(nn.Module):
    """Two linear layers with GELU between, under timm's names."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class _LayerScale(nn.Module):
    """A learnt factor for each channel (arXiv:2103.17239)."""

    def __init__(self, dim: int, start: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), start))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """Pre-norm transformer block: x + ls1(attention(norm1 x)), then x + ls2(mlp(norm2 x)).

    drop_path: probability with which, in training, a sample skips the attention and, independently, the MLP.
    """

    def __init__(
        self, dim: int, heads: int, mlp_ratio: float, layer_scale: float | None, eps: float, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = _Attention(dim, heads)
        self.ls1 = nn.Identity() if layer_scale is None else _LayerScale(dim, layer_scale)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = _Mlp(dim, int(dim * mlp_ratio))
        self.ls2 = nn.Identity() if layer_scale is None else _LayerScale(dim, layer_scale)

    def forward(self, x: Tensor, visible: Tensor | None = None, first: int = 0) -> Tensor:
        """Tokens (B, N, D) -> (B, N, D); for `visible` and `first` see `_Attention.forward`."""
        x = x + self._dropped(self.ls1(self.attn(self.norm1(x), visible, first)))
        return x + self._dropped(self.ls2(self.mlp(self.norm2(x))))

    def _dropped(self, x: Tensor) -> Tensor:
        """Apply stochastic depth (arXiv:1603.09382): whole samples become 0, the others are scaled up."""
        if not self.training or self.drop_path == 0:
            return x
        keep = 1 - self.drop_path
        return x * (torch.rand(len(x), 1, 1, device=x.device) < keep).to(x.dtype) / keep


class VisionTransformer(nn.Module):
    """Image (B, 3, H, W) -> tokens (B, prefix + P, D): class token, objects, registers, patches in row-major order.

    Args:
        grid: side of the position table in patches.
        patch: side of a patch in pixels.
        dim: D.
        depth, heads, mlp_ratio: blocks, attention heads, width of the MLP as a multiple of D.
        objects: object tokens besides the class token, each with a position. Without them, object masks restrict the
            class token.
        object_sees_class: whether object tokens attend to the class token.
        registers: register tokens; they have no position.
        layer_scale: initial gamma; None = no LayerScale.
        class_position: whether the table has an entry for the class token (DINO, DINOv2 as published) or not (timm's
            register models).
        final_norm: LayerNorm after the last block. DIAS and SlotContrast want the raw residual stream.
        mask_token: have the vector `masked_embed` that replaces hidden patches.
        drop_path: stochastic depth of the last block; it rises linearly from 0 in the first one.
        position_offset: see `resample_positions`.
        stem: `linear`, as published, or `convolutional`, with which small models need far fewer training steps.
        eps: of the layer norms; 1e-6 in DINO, iBOT and DINOv2, whatever Hugging Face's configurations say.
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
        objects: int = 0,
        object_sees_class: bool = True,
        registers: int = 0,
        layer_scale: float | None = None,
        class_position: bool = True,
        final_norm: bool = True,
        mask_token: bool = False,
        drop_path: float = 0.0,
        position_offset: float | None = None,
        stem: Literal["linear", "convolutional"] = "linear",
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        if objects and not class_position:
            raise UsageError("options objects and class_position: object tokens need positions; set it to true")
        if stem not in ("linear", "convolutional"):
            raise UsageError(f"option stem: {stem!r} is unknown; use linear or convolutional")
        self.patch, self.dim, self.objects = patch, dim, objects
        self.object_sees_class = object_sees_class
        self.class_position, self.position_offset = class_position, position_offset
        self.prefix = 1 + objects + registers
        self.patch_embed = _PatchEmbedding(patch, dim, stem == "convolutional")
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.obj_token = nn.Parameter(torch.zeros(1, objects, dim)) if objects else None
        self.reg_token = nn.Parameter(torch.zeros(1, registers, dim)) if registers else None
        self.pos_embed = nn.Parameter(torch.zeros(1, int(class_position) + objects + grid * grid, dim))
        self.masked_embed = nn.Parameter(torch.zeros(1, dim)) if mask_token else None
        rates = [drop_path * index / max(1, depth - 1) for index in range(depth)]
        self.blocks = nn.ModuleList(Block(dim, heads, mlp_ratio, layer_scale, eps, rate) for rate in rates)
        self.norm = nn.LayerNorm(dim, eps=eps) if final_norm else nn.Identity()
        for parameter in (self.cls_token, self.obj_token, self.reg_token, self.pos_embed):
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=0.02)
        self.blocks.apply(initialise_linear)

    @property
    def first_object(self) -> int:
        """Position of the first token that an object mask restricts; without `objects` it is the class token."""
        return 1 if self.objects else 0

    def embed(self, image: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Embed an image (B, 3, H, W), sides multiples of the patch, into tokens (B, N, D) before the first block.

        The position table is resampled if the image has another grid. hidden: (B, P) bool, patches that `masked_embed`
        replaces.
        """
        patches = self.patch_embed(image)
        grid = patches.shape[-2:]
        patches = patches.flatten(2).transpose(1, 2)
        if hidden is not None:
            if self.masked_embed is None:
                raise UsageError("option mask_token: hidden patches need it; set it to true")
            # Before positions are added, as in iBOT: a hidden patch still knows its place.
            patches = torch.where(hidden.unsqueeze(2), self.masked_embed.to(patches.dtype), patches)
        prefix: Tensor = (
            self.cls_token if self.obj_token is None else torch.cat([self.cls_token, self.obj_token], dim=1)
        )
        placed = prefix.shape[1] if self.class_position else 0
        positions = resample_positions(self.pos_embed, grid, prefix=placed, offset=self.position_offset)
        if placed:
            prefix, positions = prefix + positions[:, :placed], positions[:, placed:]
        if self.reg_token is not None:
            prefix = torch.cat([prefix, self.reg_token], dim=1)
        return torch.cat([prefix.expand(len(image), -1, -1), patches + positions], dim=1)

    def forward(self, image: Tensor, object_mask: Tensor | None = None, hidden: Tensor | None = None) -> Tensor:
        """Image (B, 3, H, W) -> tokens (B, N, D).

        Args:
            image: normalised, sides multiples of the patch.
            object_mask: (B, O, P) bool, the patches to which each object token attends, in every block (ODIS). The
                token also attends to itself and, with `object_sees_class`, to the class token, but to no other token.
                Without `objects`, O is 1 and the mask restricts the class token. None = no restriction.
            hidden: (B, P) bool, see `embed`.
        """
        x, (visible, first) = self.embed(image, hidden), self._visible(object_mask)
        for block in self.blocks:
            x = block(x, visible, first)
        return self.norm(x)

    def last_blocks(self, image: Tensor, object_mask: Tensor | None = None, count: int = 1) -> list[Tensor]:
        """Return the tokens (B, N, D) after each of the last `count` blocks, each after the final norm, in order.

        The last of them are those of `forward`, to the bit. DINO and DINOv2 call this `get_intermediate_layers`.
        """
        x, (visible, first) = self.embed(image), self._visible(object_mask)
        outputs = []
        for block in self.blocks:
            x = block(x, visible, first)
            outputs.append(x)
        return [self.norm(output) for output in outputs[-count:]]

    def _visible(self, object_mask: Tensor | None) -> tuple[Tensor | None, int]:
        """Extend a mask of patches (B, O, P) to one of all tokens (B, O, N), and return the object tokens' position.

        On the devices of `WHOLE_MASKS` it is the mask of all rows, (B, N, N), and the position is 0.
        """
        if object_mask is None:
            return None, 0
        count = max(1, self.objects)
        # A token always sees itself, so no row is empty: a softmax over nothing would be NaN.
        own = torch.eye(count, dtype=torch.bool, device=object_mask.device)
        prefix = F.pad(own, (self.first_object, self.prefix - self.first_object - count))
        prefix[:, 0] |= bool(self.objects) and self.object_sees_class
        visible = torch.cat([prefix.expand(len(object_mask), -1, -1), object_mask], dim=2)
        if object_mask.device.type not in WHOLE_MASKS:
            return visible, self.first_object
        batch, _, length = visible.shape
        whole = torch.ones(batch, length, length, dtype=torch.bool, device=object_mask.device)
        whole[:, self.first_object : self.first_object + count] = visible
        return whole, 0

    def last_attention(self, image: Tensor, object_mask: Tensor | None = None) -> Tensor:
        """Return the attention of the last block, (B, heads, N, N); rows are queries and sum to 1."""
        x, (visible, first) = self.embed(image), self._visible(object_mask)
        for block in self.blocks[:-1]:
            x = block(x, visible, first)
        last = cast(Block, self.blocks[-1])
        return last.attn.weights(last.norm1(x), visible, first)

    def last_keys(self, image: Tensor) -> Tensor:
        """Return the keys of the last block's attention, all heads side by side, of the patches (B, D, h, w)."""
        x = self.embed(image)
        for block in self.blocks[:-1]:
            x = block(x)
        last = cast(Block, self.blocks[-1])
        return self.to_grid(last.attn.qkv(last.norm1(x)).chunk(3, dim=-1)[1], image)

    def patch_grid(self, image: Tensor) -> Tensor:
        """Image (B, 3, H, W) -> patch tokens (B, D, H / patch, W / patch); all other tokens are dropped."""
        return self.to_grid(self(image), image)

    def to_grid(self, tokens: Tensor, image: Tensor) -> Tensor:
        """Arrange the patches among tokens (B, N, D) of an image (B, 3, H, W) as (B, D, H / patch, W / patch)."""
        patches = tokens[:, self.prefix :].transpose(1, 2)
        return patches.reshape(*patches.shape[:2], image.shape[-2] // self.patch, image.shape[-1] // self.patch)


def initialise_linear(module: nn.Module) -> None:
    """Initialise a linear layer as DINO does: weights trunc_normal(0.02), biases 0. For `Module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def dinov2_small_registers(grid: int = 16) -> VisionTransformer:
    """Build DINOv2 ViT-S/14 with 4 registers as timm stores it, without the final norm.

    It has 21,629,184 parameters at grid 16.
    """
    # timm adds the class token's position into `cls_token` when it converts the weights; hence no class position.
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
