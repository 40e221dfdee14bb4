"""The SlotMixer decoder of VideoSAUR (arXiv:2306.04829, after OSRT, arXiv:2206.06922)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...core.errors import UsageError
from .predictor import SlotPredictor


class SlotMixerDecoder(nn.Module):
    """Each position asks which slots it needs, mixes these, and decodes the mixture once.

    A small transformer (the allocator) lets the positions read the slots; the softmax over the slots of the products of
    its output with the slots gives the masks. The mean of the *raw* slots weighted by them, plus the position again,
    goes through an MLP. So the cost does not grow with the number of slots, unlike in `decoders.BroadcastDecoder`.

    Source: `SlotMixerDecoder` in the official `videosaur/modules/decoders.py` (commit 5d09311).

    Args:
        outputs: channels of a token's reconstruction.
        slot_dim: C, a multiple of `heads`.
        tokens: P, length of the position table.
        blocks, heads: of the allocator. Its attention is as sharp as the predictor's, see `predictor.SharpAttention`.
        hidden, layers: width and number of the MLP's hidden layers, each followed by ReLU.
    """

    def __init__(
        self,
        outputs: int,
        slot_dim: int,
        tokens: int,
        *,
        blocks: int = 2,
        heads: int = 4,
        hidden: int = 1024,
        layers: int = 4,
    ) -> None:
        super().__init__()
        self.scale = slot_dim**-0.5
        self.positions = nn.Parameter(torch.randn(1, tokens, slot_dim) * slot_dim**-0.5)
        self.norm_memory = nn.LayerNorm(slot_dim)
        self.allocator = nn.ModuleList(SlotPredictor(slot_dim, heads) for _ in range(blocks))
        self.norm_queries, self.norm_keys = nn.LayerNorm(slot_dim), nn.LayerNorm(slot_dim)
        self.to_queries = nn.Linear(slot_dim, slot_dim, bias=False)
        self.to_keys = nn.Linear(slot_dim, slot_dim, bias=False)
        widths = [slot_dim] + [hidden] * layers
        self.mlp = nn.Sequential(
            *(part for a, b in itertools.pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU()))
        )
        self.output = nn.Linear(hidden, outputs)

    def forward(
        self, slots: Tensor, prior: Tensor | None = None, grid: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Reconstruct the tokens.

        Args:
            slots: (B, K, C).
            prior: not used; `decoders.BroadcastDecoder` has it.
            grid: None; the table of positions is of one size.

        Returns:
            The reconstruction (B, P, outputs) and masks (B, K, P), which sum to 1 over the slots.
        """
        del prior
        if grid is not None:
            raise UsageError(f"{grid[0]}x{grid[1]} tokens: this decoder has one size; give frames of the model's size")
        queries = self.positions.expand(len(slots), -1, -1)
        memory = self.norm_memory(slots)
        for block in self.allocator:
            queries = block(queries, memory)
        logits = self.to_queries(self.norm_queries(queries)) @ self.to_keys(self.norm_keys(slots)).transpose(1, 2)
        masks = (logits * self.scale).softmax(dim=2)  # (B, P, K)
        tokens = self.output(self.mlp(masks @ slots + self.positions))
        return tokens, masks.transpose(1, 2)
