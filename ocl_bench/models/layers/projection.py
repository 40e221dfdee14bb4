"""The projection head of DINO (arXiv:2104.14294) and iBOT (arXiv:2111.07832): tokens -> logits of K prototypes.

Parameters have the official names; `last_layer_obj` and `last_layer_patch` exist only where they are not shared.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .vit import initialise_linear

Kind = Literal["image", "object", "patch"]
"""What a token stands for: the whole image ([CLS]), an object ([OBJ]), or its patch."""


class Prototypes(nn.Module):
    """A linear layer (..., D) -> (..., K) without bias; row k is `weight_g[k]` long and points along `weight_v[k]`.

    fixed_gain: the lengths stay 1.
    """

    def __init__(self, dim: int, count: int, *, fixed_gain: bool) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(count, 1), requires_grad=not fixed_gain)
        self.weight_v = nn.Parameter(nn.Linear(dim, count, bias=False).weight.detach())

    def forward(self, x: Tensor, frozen: bool = False) -> Tensor:
        """x (..., D) -> (..., K). frozen: the rows get no gradient."""
        weight = self.weight_v * (self.weight_g / self.weight_v.norm(dim=1, keepdim=True))
        return F.linear(x, weight.detach() if frozen else weight)


class ProjectionHead(nn.Module):
    """A trunk of three linear layers with GELU between, unit length, then prototypes.

    dim: of the tokens. out_dim: K. hidden, bottleneck: widths of the trunk and of what it gives. shared: one last layer
    for all kinds of tokens; otherwise `objects` and `patches` say which kinds get their own, and patch_out_dim gives
    that of the patches another K. norm_last_layer: prototypes keep the length 1.
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
    ) -> None:
        super().__init__()
        trunk = (nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck))
        self.mlp = nn.Sequential(*trunk)
        self.mlp.apply(initialise_linear)

        def prototypes(count: int) -> Prototypes:
            return Prototypes(bottleneck, count, fixed_gain=norm_last_layer)

        self.last_layer = prototypes(out_dim)
        self.last_layer_obj = prototypes(out_dim) if objects and not shared else None
        self.last_layer_patch = prototypes(patch_out_dim or out_dim) if patches and not shared else None

    def project(self, tokens: Tensor) -> Tensor:
        """Tokens (..., D) -> unit vectors (..., bottleneck), in float32 or more, also under autocast."""
        x = self.mlp(tokens)
        return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1)

    def logits(self, unit: Tensor, kind: Kind, *, frozen: bool = False) -> Tensor:
        """Unit vectors (..., bottleneck) -> (..., K), linear and in their type. frozen: the prototypes do not learn."""
        own = {"image": None, "object": self.last_layer_obj, "patch": self.last_layer_patch}[kind]
        layer = own if own is not None else self.last_layer
        with torch.autocast(unit.device.type, enabled=False):
            return cast(Tensor, layer(unit, frozen))

    def forward(self, tokens: Tensor, kind: Kind = "image", *, frozen: bool = False) -> Tensor:
        """Tokens (..., D) of one kind -> logits (..., K)."""
        return self.logits(self.project(tokens), kind, frozen=frozen)
