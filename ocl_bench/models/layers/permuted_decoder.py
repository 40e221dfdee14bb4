"""The decoder of SPOT (arXiv:2312.00648): autoregressive, in nine orders of the tokens."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from .decoders import DecoderLayer


class PermutedDecoder(nn.Module):
    """Predict each token from the slots and the tokens before it, in one order or in several.

    An order has a first token of its own, learnt. The self-attention is causal in that order. The soft masks are the
    cross-attention of the last layer, averaged over heads; masks and reconstructions of several orders are averaged. As
    in DIAS, the residual stream starts from the *normalised* input, so the first layer has no norm of its own.

    Source: `SPOT.forward_decoder` in the official `spot.py` and `transformer.py` (gkakogeorgiou/spot, commit 13c5926).

    Args:
        dim: D of the tokens and width of the transformer.
        slot_dim: C.
        side: of the square grid of P tokens.
        layers, heads: of the transformer.
    """

    def __init__(self, dim: int, slot_dim: int, side: int, layers: int = 4, heads: int = 6) -> None:
        super().__init__()
        self.orders: Tensor
        self.register_buffer("orders", torch.from_numpy(orders(side)), persistent=False)
        self.first = nn.Parameter(0.02 * torch.randn(len(self.orders), 1, 1, dim))
        self.embed_tokens = nn.Sequential(nn.Linear(dim, dim, bias=False), nn.LayerNorm(dim))
        self.embed_slots = nn.Sequential(nn.Linear(slot_dim, dim, bias=False), nn.LayerNorm(dim))
        self.norm_in, self.norm_out = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.layers = nn.ModuleList(DecoderLayer(dim, heads, bias=True, activation=nn.ReLU) for _ in range(layers))
        self.layers[0].norm_self = nn.Identity()

    def forward(self, slots: Tensor, target: Tensor, permutations: str = "all") -> tuple[Tensor, Tensor]:
        """Reconstruct the tokens.

        Args:
            slots: (B, K, C).
            target: (B, P, D), the tokens to reconstruct; each is predicted from those before it.
            permutations: "all" orders, or the "standard" one, row by row.

        Returns:
            The reconstruction (B, P, D) and the soft masks (B, K, P).
        """
        memory = self.embed_slots(slots)
        count = len(self.orders) if permutations == "all" else 1
        results = [self._in_order(number, memory, target) for number in range(count)]
        reconstruction, masks = (torch.stack(parts).mean(0) for parts in zip(*results, strict=True))
        return reconstruction, masks

    def _in_order(self, number: int, memory: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruct the tokens in one order; both results are back in the order of `target`."""
        order = self.orders[number]
        start = self.first[number].expand(len(target), -1, -1)
        tokens = self.norm_in(self.embed_tokens(torch.cat([start, target[:, order[:-1]]], dim=1)))
        later = torch.ones(len(order), len(order), dtype=torch.bool, device=target.device).triu(1)
        attention = None
        for index, layer in enumerate(self.layers):
            last = index == len(self.layers) - 1
            tokens, attention = layer(tokens, memory, None, None, need_attention=last, hidden=later)
        assert attention is not None
        back = order.argsort()
        return self.norm_out(tokens)[:, back], attention[:, back].transpose(1, 2)


def orders(side: int) -> np.ndarray:
    """The nine orders (9, P) int64 of the tokens of a square grid, as numbers of tokens row by row.

    Rows or columns from each of the four corners, the first one row by row, and a spiral from the centre to the upper
    right corner.
    """
    grid = np.arange(side * side).reshape(side, side)
    columns, mirrored, turned, flipped = grid.T, grid[:, ::-1], grid[::-1, ::-1], grid[::-1]
    found = [grid, columns, mirrored.T, mirrored, turned.T, turned, flipped.T, flipped]
    return np.stack([order.reshape(-1) for order in [*found, _spiral(grid)]])


def _spiral(grid: np.ndarray) -> np.ndarray:
    """The numbers of a grid along a spiral from its centre that ends at its upper right corner."""
    inwards: list[int] = []
    while grid.size:
        inwards += grid[:, -1].tolist()  # down the last column, which is then turned away
        grid = np.rot90(grid[:, :-1])
    return np.array(inwards[::-1])
