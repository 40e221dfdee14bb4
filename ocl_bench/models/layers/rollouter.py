"""SlotFormer's rollouter (Wu et al., ICLR 2023, arXiv:2210.05861): the slots of past frames -> those of the next ones.

The details are those of the official code (pairlab/SlotFormer, commit 10a6d9b): one transformer encoder over all slots
of all past frames, without mask and without a final norm. The next slots are predicted directly, not as a change.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def countdown_encoding(frames: int, dim: int) -> Tensor:
    """Time encoding (1, frames, dim) float64: sines, then cosines; the newest frame has position 0, the first the last.

    dim is even.
    """
    position = torch.arange(frames - 1, -1, -1, dtype=torch.float64)
    angle = position[:, None] / 10000 ** (torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    return torch.cat([angle.sin(), angle.cos()], dim=1)[None]


def transformer(dim: int, layers: int, heads: int, hidden: int) -> nn.TransformerEncoder:
    """The encoder of SlotFormer and of Aloe: pre-norm, ReLU, dropout 0.1 in training, no final norm."""
    layer = nn.TransformerEncoderLayer(dim, heads, hidden, norm_first=True, batch_first=True)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


class SlotRollouter(nn.Module):
    """Predicts slots step by step, and takes its own predictions as the past of later steps.

    Slots have no encoding of their own, so another order of the slots gives the same slots in that order.

    Args:
        slot_dim: C of the slots.
        history: number of past frames that are seen.
        dim: width of the transformer, even and a multiple of `heads`.
        layers: of the transformer.
        heads: of its attention.
        hidden: width of its feed-forward layers.
    """

    def __init__(self, slot_dim: int, *, history: int, dim: int, layers: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.history = history
        # A parameter without gradient, because the official file stores it.
        encoding = countdown_encoding(history, dim).float()
        self.time_encoding = nn.Parameter(encoding, requires_grad=False)
        self.project_in = nn.Linear(slot_dim, dim)
        self.transformer = transformer(dim, layers, heads, hidden)
        self.project_out = nn.Linear(dim, slot_dim)

    def forward(self, slots: Tensor, steps: int) -> Tensor:
        """Slots (B, T, K, C) of T >= `history` frames, of which the last ones are used -> the next (B, steps, K, C)."""
        past = slots[:, -self.history :]
        predicted = []
        for _ in range(steps):
            tokens = self.project_in(past) + self.time_encoding[:, :, None]
            mixed = self.transformer(tokens.flatten(1, 2))
            following = self.project_out(mixed[:, -past.shape[2] :])
            predicted.append(following)
            past = torch.cat([past[:, 1:], following[:, None]], dim=1)
        return torch.stack(predicted, dim=1)
