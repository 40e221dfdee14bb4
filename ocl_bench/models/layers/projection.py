"""The projection head of DINO (arXiv:2104.14294) and iBOT (arXiv:2111.07832): tokens -> logits of K prototypes.

Source: `DINOHead` in DINO's `vision_transformer.py`, `iBOTHead` in iBOT's `models/head.py`. Parameters have the
official names; `last_layer_obj` and `last_layer_patch` exist only where the last layer is not shared.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .vit import initialise_linear

TokenKind = Literal["image", "object", "patch"]
"""What a token stands for: the whole image ([CLS]), an object ([OBJ]), or its patch."""


class Prototypes(nn.Module):
    """A weight-normalised linear layer (..., D) -> (..., K) without bias.

    Row k has the length `weight_g[k]` and the direction of `weight_v[k]`. With `fixed_gain` the lengths stay 1.
    """

    def __init__(self, dim: int, count: int, *, fixed_gain: bool) -> None:
        super().__init__()
        # Written out instead of torch's `weight_norm`, whose parameter names changed between versions.
        self.weight_g = nn.Parameter(torch.ones(count, 1), requires_grad=not fixed_gain)
        self.weight_v = nn.Parameter(nn.Linear(dim, count, bias=False).weight.detach())

    def forward(self, x: Tensor, frozen: bool = False) -> Tensor:
        """x (..., D) -> (..., K); with `frozen` the rows get no gradient."""
        weight = self.weight_v * (self.weight_g / self.weight_v.norm(dim=1, keepdim=True))
        return F.linear(x, weight.detach() if frozen else weight)


class RowNorm(nn.BatchNorm1d):
    """Batch norm of rows (N, D). A batch of fewer than two rows has no variance: it is normed by the running values."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalised rows."""
        if self.training and len(input) < 2:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


class ProjectionHead(nn.Module):
    """Linear layers with GELU between, normalisation to unit length, then prototypes.

    DINO and iBOT have three linear layers without batch norm. With `batch_norm` there are two, each with one:
    Linear, batch norm, GELU, Linear, batch norm. That spreads the vectors over the sphere from the first step on, where
    small networks would otherwise map all tokens to nearly the same vector.

    Args:
        dim: width of the tokens.
        out_dim: K.
        hidden, bottleneck: widths inside the trunk and of its output.
        shared: one last layer for all kinds of tokens.
        objects, patches: without `shared`, whether objects and patches have last layers of their own.
        patch_out_dim: K of the patches' own last layer; None = `out_dim`.
        norm_last_layer: prototypes keep the length 1. iBOT's help text advises it for ViT-B, not for ViT-S.
        batch_norm: see above. It is in neither paper.
    """

    def __init__(
        self,
        dim: int,
        out_dim: int,
        *,
        hidden: int = 2048,
        bottleneck: int = 256,
        shared: bool = True,
        objects: bool = False,
        patches: bool = True,
        patch_out_dim: int | None = None,
        norm_last_layer: bool = False,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        trunk: tuple[nn.Module, ...]
        if batch_norm:
            norms = RowNorm(hidden), RowNorm(bottleneck)
            trunk = (nn.Linear(dim, hidden), norms[0], nn.GELU(), nn.Linear(hidden, bottleneck), norms[1])
        else:
            between = nn.Linear(hidden, hidden)
            trunk = (nn.Linear(dim, hidden), nn.GELU(), between, nn.GELU(), nn.Linear(hidden, bottleneck))
        self.batch_norm = batch_norm
        self.mlp = nn.Sequential(*trunk)
        self.mlp.apply(initialise_linear)

        def prototypes(count: int) -> Prototypes:
            return Prototypes(bottleneck, count, fixed_gain=norm_last_layer)

        self.last_layer = prototypes(out_dim)
        self.last_layer_obj = prototypes(out_dim) if objects and not shared else None
        self.last_layer_patch = prototypes(patch_out_dim or out_dim) if patches and not shared else None

    def project(self, tokens: Tensor) -> Tensor:
        """Tokens (..., D) -> unit vectors (..., bottleneck), in float32 or more, also under autocast."""
        # Batch norm takes rows. Only there, so that the values of the plain head stay those of the official one.
        x = self.mlp(tokens.flatten(0, -2)).unflatten(0, tokens.shape[:-1]) if self.batch_norm else self.mlp(tokens)
        return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1)

    def logits(self, unit: Tensor, kind: TokenKind, *, frozen: bool = False) -> Tensor:
        """Unit vectors (..., bottleneck) -> logits (..., K), linear, in the same dtype.

        With `frozen` the prototypes are not trained: DINO's `cancel_gradients_last_layer`, for the first epoch or so.
        """
        separate = {"image": None, "object": self.last_layer_obj, "patch": self.last_layer_patch}[kind]
        layer = separate if separate is not None else self.last_layer
        # In half precision, logits divided by a temperature of 0.04 would be too coarse.
        with torch.autocast(unit.device.type, enabled=False):
            return cast(Tensor, layer(unit, frozen))

    def forward(self, tokens: Tensor, kind: TokenKind = "image", *, frozen: bool = False) -> Tensor:
        """Tokens (..., D) of one kind -> logits (..., K)."""
        return self.logits(self.project(tokens), kind, frozen=frozen)
