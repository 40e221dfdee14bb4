"""Slot attention (Locatello et al. 2020, arXiv:2006.15055, Algorithm 1).

Slots compete for tokens: the softmax runs over the *slots*, so every token distributes one unit of attention among
them. Each slot then takes the weighted mean of its tokens, and a GRU updates the slot with that mean.

The numerical details are those of DIAS (arXiv:2507.23755; `object_centric_bench/model/ocl.py`). Those of SlotContrast
(arXiv:2412.14295; `slotcontrast/modules/groupers.py`) are options.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class SlotAttention(nn.Module):
    """Iterative competitive attention with one set of weights for all iterations and any number of slots.

    Args:
        input_dim: D of the tokens.
        slot_dim: C of the slots.
        iterations: default number of rounds.
        activation: of the MLP: GELU in DIAS, ReLU in SlotContrast and in the original paper.
        normalised_state: whether the GRU's hidden state is the *normalised* slot (SlotContrast) or the slot itself
            (DIAS, the original paper).
        attention_floor: added to every token's attention (SlotContrast: 1e-8), so a slot that wins nothing takes the
            mean of all tokens. None adds `epsilon` to the slot's sum instead, so it takes nearly nothing.
        epsilon: 1e-5 in DIAS and SmoothSA, 1e-8 in FT-DINOSAUR.
        bilevel: whether the gradient runs through the last round only, and from there straight to the initial slots
            (Jia et al. 2023, arXiv:2210.08990; SmoothSA, SPOT). It changes no value.
        mlp: whether the update ends with the residual MLP; VideoSAUR has none.
    """

    def __init__(
        self,
        input_dim: int,
        slot_dim: int,
        iterations: int = 3,
        *,
        activation: Callable[[], nn.Module] = nn.GELU,
        normalised_state: bool = False,
        attention_floor: float | None = None,
        epsilon: float = 1e-5,
        bilevel: bool = False,
        mlp: bool = True,
    ) -> None:
        super().__init__()
        self.iterations, self.normalised_state = iterations, normalised_state
        self.attention_floor, self.epsilon, self.bilevel = attention_floor, epsilon, bilevel
        self.scale = slot_dim**-0.5
        self.norm_inputs = nn.LayerNorm(input_dim)
        self.to_keys = nn.Linear(input_dim, slot_dim, bias=False)
        self.to_values = nn.Linear(input_dim, slot_dim, bias=False)
        self.norm_queries = nn.LayerNorm(slot_dim)
        self.to_queries = nn.Linear(slot_dim, slot_dim, bias=False)
        self.gru = nn.GRUCell(slot_dim, slot_dim)
        self.mlp: nn.Module | None = None
        if mlp:
            self.norm_update = nn.LayerNorm(slot_dim)
            self.mlp = nn.Sequential(nn.Linear(slot_dim, 4 * slot_dim), activation(), nn.Linear(4 * slot_dim, slot_dim))

    def forward(
        self,
        inputs: Tensor,
        slots: Tensor,
        slot_mask: Tensor | None = None,
        num_iter: int | None = None,
        keyed: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Refine the slots.

        Args:
            inputs: (B, P, D) tokens.
            slots: (B, K, C) initial slots.
            slot_mask: (B, K) bool, True = takes part.
            num_iter: number of rounds; None = `iterations`.
            keyed: result of `keys_and_values` for the inputs, where they are aggregated more than once.

        Returns:
            The slots (B, K, C) and the attention map (B, K, P) of *every* round; each map sums to 1 over the slots.
        """
        keys, values = self.keys_and_values(inputs) if keyed is None else keyed
        maps, initial = [], slots
        rounds = self.iterations if num_iter is None else num_iter
        # The gradient runs through all rounds, unless `bilevel`; neither DIAS nor SlotContrast truncates it.
        for number in range(rounds):
            if self.bilevel and number == rounds - 1:
                slots = slots.detach() + (initial - initial.detach())
            normed = self.norm_queries(slots)
            queries = self.to_queries(normed) * self.scale
            logits = queries @ keys.transpose(1, 2)
            if slot_mask is not None:
                logits = logits.masked_fill(~slot_mask.unsqueeze(-1), float("-inf"))
            attention = logits.softmax(dim=1)
            maps.append(attention)  # before the small constant of `_shares`, as both official codes return it
            slots = self._update(normed if self.normalised_state else slots, self._shares(attention) @ values)
        return slots, maps

    def keys_and_values(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values, each (B, P, C), of tokens (B, P, D)."""
        tokens = self.norm_inputs(inputs)
        return self.to_keys(tokens), self.to_values(tokens)

    def _shares(self, attention: Tensor) -> Tensor:
        """Normalise attention (B, K, P) over the tokens; a small constant guards slots that won nothing."""
        if self.attention_floor is None:
            return attention / (attention.sum(dim=2, keepdim=True) + self.epsilon)
        raised = attention + self.attention_floor
        return raised / raised.sum(dim=2, keepdim=True)

    def _update(self, slots: Tensor, won: Tensor) -> Tensor:
        """Update slots (B, K, C) with the means that they won (B, K, C): a GRU, then a residual MLP."""
        state = self.gru(won.flatten(0, 1), slots.flatten(0, 1).to(won.dtype)).view_as(slots)
        return state if self.mlp is None else state + self.mlp(self.norm_update(state))
