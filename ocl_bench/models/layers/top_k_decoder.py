"""The MLP decoder of FT-DINOSAUR, which decodes at each token only the slots that attend to it most."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .decoders import BroadcastDecoder


class TopKDecoder(BroadcastDecoder):
    """`BroadcastDecoder` with top-k decoding (FT-DINOSAUR, arXiv:2408.09162).

    Of the K slots only the `top_k` with the largest slot attention at a token are decoded there, and the softmax of the
    logits runs over those alone. The masks of all other slots are exactly 0 at that token.

    Source: `PatchDecoder` in `ftdinosaur_inference/modules/decoding.py` (commit 4e6c7c7).

    Args:
        dim, slot_dim, tokens, layers, hidden: see `BroadcastDecoder`.
        top_k: slots that are decoded at each token; all where there are no more.
    """

    def __init__(
        self, dim: int, slot_dim: int, tokens: int, layers: int = 3, hidden: int = 2048, *, top_k: int = 3
    ) -> None:
        super().__init__(dim, slot_dim, tokens, layers, hidden)
        self.top_k = top_k

    def forward(
        self,
        slots: Tensor,
        target: Tensor | None = None,
        visible: Tensor | None = None,
        slot_mask: Tensor | None = None,
        prior: Tensor | None = None,
        grid: Sequence[int] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Reconstruct the tokens from the slots; `prior` (B, K, P) is the attention that chooses them.

        It only chooses, so no gradient flows to it. Without it, or with at most `top_k` slots, all are decoded. The
        other arguments and what is returned are those of `BroadcastDecoder`; a slot that `slot_mask` excludes has no
        attention, so it is chosen last.
        """
        count = slots.shape[1]
        if prior is None or count <= self.top_k:
            return super().forward(slots, target, visible, slot_mask, None, grid)
        chosen = prior.topk(self.top_k, dim=1).indices.transpose(1, 2)  # (B, P, k)
        batch = torch.arange(len(slots), device=slots.device).view(-1, 1, 1)
        decoded = self.mlp(slots[batch, chosen] + self.placed(grid).transpose(1, 2))  # (B, P, k, D + 1)
        tokens, logits = decoded[..., :-1], decoded[..., -1]
        if slot_mask is not None:
            logits = logits.masked_fill(~slot_mask[batch, chosen], float("-inf"))
        weights = logits.softmax(dim=2)
        masks = weights.new_zeros(len(slots), chosen.shape[1], count).scatter(2, chosen, weights)
        return torch.einsum("bpk,bpkd->bpd", weights, tokens), masks.transpose(1, 2)
