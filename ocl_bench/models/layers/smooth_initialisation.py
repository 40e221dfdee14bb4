"""The initial slots of SmoothSA (Zhao et al., ICML 2026): a sample that has seen the image before slot attention does.

    s     = mean + noise exp(log_std)                               the sample that all slots share, as in DIAS
    warm  = decoder layer(s, memory = Linear(projected tokens))     cross-attention, self-attention, MLP
    query = warm                                                    in evaluation
    query = stop-gradient(warm) + query_noise exp(log_std_query)    in training
    loss += 100 mean (warm - stop-gradient(final slots))^2          "preheating": warm learns where slots end

Source: `NormalSharedPreheated` in the official code (Genera1Z/SmoothSA, commit b26d2b7).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...core.errors import UsageError
from .decoders import DecoderLayer
from .initialisation import SharedGaussian

PREHEAT_WEIGHT = 100.0
"""Weight of the preheating in the loss (the official configurations)."""

DETACHED_SHARE = 0.1
"""Share of the training, at its start, in which no gradient of the initialiser reaches the tokens' projection."""


class SmoothGaussian(SharedGaussian):
    """See the module.

    Args:
        slot_dim: C, a multiple of `heads`.
        input_dim: D of the projected tokens.
        heads: of the decoder layer.

    Attributes:
        detached: (), bool; whether the tokens get no gradient from here. The training sets it; it is in the state dict,
            as officially, and changes no value.
    """

    def __init__(self, slot_dim: int, input_dim: int, heads: int = 4) -> None:
        super().__init__(slot_dim)
        if slot_dim % heads:
            raise UsageError(
                f"option slot_dim: {slot_dim} must be a multiple of the {heads} heads of smooth initial slots"
            )
        self.log_std_query = nn.Parameter(torch.empty(1, 1, slot_dim))
        nn.init.xavier_uniform_(self.log_std_query)
        self.detached: Tensor
        self.register_buffer("detached", torch.tensor(True))
        self.memory = nn.Linear(input_dim, slot_dim)
        self.layer = _CrossFirstLayer(slot_dim, heads)

    def warm(self, noise: Tensor, inputs: Tensor) -> Tensor:
        """Noise (B, K, C) and projected tokens (B, P, D) -> slots (B, K, C) that have seen the tokens."""
        memory = self.memory(inputs.detach() if bool(self.detached) else inputs)
        tokens: Tensor = self.layer(self(noise), memory, None, None, need_attention=False)[0]
        return tokens

    def query(self, warm: Tensor, query_noise: Tensor | None = None) -> Tensor:
        """Slots (B, K, C) of `warm` -> those with which slot attention starts.

        Raises:
            UsageError: a training step has no noise (B, K, C).
        """
        if not self.training:
            return warm
        if query_noise is None:
            raise UsageError("smooth initial slots: a training step needs query_noise (B, K, C)")
        return warm.detach() + query_noise * self.log_std_query.exp()


class _CrossFirstLayer(DecoderLayer):
    """A decoder layer whose cross-attention comes first, and reads the slots as they are."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__(dim, heads)
        self.norm_cross = nn.Identity()

    def forward(
        self,
        tokens: Tensor,
        memory: Tensor,
        ignored: Tensor | None,
        bias: Tensor | None,
        need_attention: bool,
        hidden: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        change, attention = self.cross_attention(
            self.norm_cross(tokens), memory, memory, ignored, need_attention, attn_mask=bias
        )
        tokens = tokens + change
        normed = self.norm_self(tokens)
        tokens = tokens + self.self_attention(normed, normed, normed, attn_mask=hidden, need_weights=False)[0]
        return tokens + self.mlp(self.norm_mlp(tokens)), attention
