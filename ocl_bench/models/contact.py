"""SlotFormer's readout for Physion (pairlab/SlotFormer, commit 10a6d9b): do two objects touch in a video of slots?"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ContactReadout(nn.Module):
    """Two linear layers without a non-linearity; the maximum over pairs of slots between them, over frames at the end.

    The two slots of a pair are not exchangeable: the one with the smaller index stands first.

    Args:
        slot_dim: C of the slots.
        slots: K, slots of a frame.
        hidden: width of the description of a pair; official: 192, as wide as a slot of STEVE.
    """

    def __init__(self, slot_dim: int = 192, slots: int = 6, hidden: int = 192) -> None:
        super().__init__()
        self.comb_idx: Tensor  # pair after pair; the official file stores it under this name
        self.register_buffer("comb_idx", torch.combinations(torch.arange(slots)).flatten())
        self.linear1 = nn.Linear(2 * slot_dim, hidden)
        self.linear2 = nn.Linear(hidden, 1)

    def forward(self, slots: Tensor) -> Tensor:
        """Slots (B, T, K, C) -> logits (B,) of a contact in any of the T frames."""
        pairs = slots[:, :, self.comb_idx].unflatten(2, (-1, 2)).flatten(3)
        return self.linear2(self.linear1(pairs).amax(dim=2))[..., 0].amax(dim=1)
