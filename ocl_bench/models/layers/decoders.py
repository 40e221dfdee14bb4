"""Decoders reconstruct the encoder's tokens from slots.

Both return the reconstruction (B, P, D) and soft masks (B, K, P), which sum to 1 over the slots of a token.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .vit import resample_positions


class DecoderLayer(nn.Module):
    """Pre-norm transformer decoder layer; returns its cross-attention on request.

    Same as torch's `TransformerDecoderLayer(norm_first=True, bias=False)`, which the official code uses. That layer
    hides its attention, so the official code fetches it with hooks.

    Args:
        dim: D.
        heads: of both attentions.
        bias: whether norms and MLP have biases; the attentions have none.
        activation: of the MLP, GELU in DIAS.
    """

    def __init__(
        self, dim: int, heads: int, *, bias: bool = False, activation: Callable[[], nn.Module] = nn.GELU
    ) -> None:
        super().__init__()
        self.norm_self: nn.Module = nn.LayerNorm(dim, bias=bias)
        self.self_attention = nn.MultiheadAttention(dim, heads, bias=False, batch_first=True)
        self.norm_cross: nn.Module = nn.LayerNorm(dim, bias=bias)
        self.cross_attention = nn.MultiheadAttention(dim, heads, bias=False, batch_first=True)
        self.norm_mlp = nn.LayerNorm(dim, bias=bias)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim, bias=bias), activation(), nn.Linear(4 * dim, dim, bias=bias))

    def forward(
        self,
        tokens: Tensor,
        memory: Tensor,
        ignored: Tensor | None,
        bias: Tensor | None,
        need_attention: bool,
        hidden: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Apply self-attention, cross-attention and MLP.

        Args:
            tokens: (B, P, D).
            memory: (B, K, D), embedded slots.
            ignored: (B, K) bool, slots that get no attention.
            bias: (B * heads, P, K), added to the logits of the cross-attention.
            need_attention: whether to return the cross-attention.
            hidden: (P, P) bool, True where a token must not see another one in the self-attention.

        Returns:
            Tokens (B, P, D) and the attention (B, P, K), averaged over heads, or None.
        """
        normed = self.norm_self(tokens)
        tokens = tokens + self.self_attention(normed, normed, normed, attn_mask=hidden, need_weights=False)[0]
        change, attention = self.cross_attention(
            self.norm_cross(tokens),
            memory,
            memory,
            key_padding_mask=ignored,
            attn_mask=bias,
            need_weights=need_attention,
        )
        tokens = tokens + change
        return tokens + self.mlp(self.norm_mlp(tokens)), attention


class RandomMaskDecoder(nn.Module):
    """The decoder of DIAS (arXiv:2507.23755), there called "generalised random auto-regressive".

    A random subset of the encoder's tokens is visible, a mask token replaces the others, and a transformer fills them
    in from the visible tokens and the slots. The soft masks are the cross-attention of the last layer, averaged over
    heads.

    Source: `ARRandTransformerDecoder` in the official `object_centric_bench/model/dias.py`. Despite the name it has no
    causal mask. It also shuffles the tokens together with their positions, which changes nothing without a causal
    mask, so the shuffling is left out here.

    Args:
        dim: D of the tokens and width of the transformer; its residual stream is the reconstruction.
        slot_dim: C.
        tokens: P, length of the position table.
        layers, heads: of the transformer.
    """

    def __init__(self, dim: int, slot_dim: int, tokens: int, layers: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(torch.randn(1, 1, dim) * dim**-0.5)
        self.positions = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, tokens, dim)))
        self.embed_tokens = nn.Sequential(nn.Linear(dim, dim, bias=False), nn.LayerNorm(dim))
        self.embed_slots = nn.Sequential(nn.Linear(slot_dim, dim, bias=False), nn.LayerNorm(dim))
        self.norm_in = nn.LayerNorm(dim, bias=False)
        self.heads = heads
        # All layers start from the same random weights: torch's `TransformerDecoder`, used officially, copies one.
        layer = DecoderLayer(dim, heads)
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(layers))
        # The residual stream starts from the *normalised* query (official `norm0`), so the first layer has no norm.
        self.layers[0].norm_self = nn.Identity()

    def forward(
        self,
        slots: Tensor,
        target: Tensor,
        visible: Tensor | None = None,
        slot_mask: Tensor | None = None,
        prior: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Reconstruct the tokens from the slots and the visible tokens.

        Args:
            slots: (B, K, C).
            target: (B, P, D), the encoder's tokens.
            visible: (B, P) bool; None = all. In evaluation all are visible, as officially: the reconstruction is then
                trivial and only the masks are used.
            slot_mask: (B, K) bool, True = valid; the masks of the other slots are exactly 0.
            prior: (B, K, P) positive weights; their logarithm is added to the cross-attention logits (not in the
                paper).

        Returns:
            The reconstruction (B, P, D) and the soft masks (B, K, P).
        """
        tokens = self.embed_tokens(target)
        if visible is not None:
            tokens = torch.where(visible.unsqueeze(-1), tokens, self.mask_token.to(tokens.dtype))
        tokens = self.norm_in(tokens + self.positions)
        memory = self.embed_slots(slots)
        ignored = None if slot_mask is None else ~slot_mask
        bias = None
        if prior is not None:
            bias = log_prior(prior, slot_mask).transpose(1, 2).repeat_interleave(self.heads, dim=0)
            ignored = None  # the bias holds -inf for these slots
        attention = None
        for index, layer in enumerate(self.layers):
            tokens, attention = layer(tokens, memory, ignored, bias, need_attention=index == len(self.layers) - 1)
        assert attention is not None
        return tokens, attention.transpose(1, 2)


class BroadcastDecoder(nn.Module):
    """The MLP decoder of DINOSAUR (Seitzer et al. 2023, arXiv:2209.14860), also that of SlotContrast.

    Every slot is copied to every position, and an MLP maps each copy to a token and a logit. The softmax of the logits
    over the slots gives the soft masks, and the reconstruction is the mean of the tokens weighted by them.

    Args:
        dim: D of the tokens.
        slot_dim: C.
        tokens: P, length of the position table.
        layers, hidden: number and width of the hidden layers.
        position_std: standard deviation of the position table at initialisation.
    """

    def __init__(
        self, dim: int, slot_dim: int, tokens: int, layers: int = 3, hidden: int = 256, position_std: float = 0.02
    ) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(1, 1, tokens, slot_dim) * position_std)
        widths = [slot_dim] + [hidden] * layers
        blocks = [part for a, b in itertools.pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
        self.mlp = nn.Sequential(*blocks, nn.Linear(hidden, dim + 1))

    def forward(
        self,
        slots: Tensor,
        target: Tensor | None = None,
        visible: Tensor | None = None,
        slot_mask: Tensor | None = None,
        prior: Tensor | None = None,
        grid: Sequence[int] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Reconstruct the tokens from the slots alone.

        Args:
            slots: (B, K, C).
            target, visible: ignored; the transformer decoder needs them.
            slot_mask: (B, K) bool, True = valid; the masks of the other slots are exactly 0.
            prior: (B, K, P) positive weights; their logarithm is added to the mask logits (not in the papers).
            grid: (height, width) of the tokens, to which the square position table is resampled as timm does; None =
                the table's own.

        Returns:
            The reconstruction (B, P, D) and the soft masks (B, K, P).
        """
        del target, visible
        if self.training:
            return self._mixed(slots, slot_mask, prior, grid)
        decoded = self.mlp(slots.unsqueeze(2) + self.placed(grid))
        tokens, logits = decoded[..., :-1], decoded[..., -1]
        masks = _soft_masks(logits, slot_mask, prior)
        return torch.einsum("bkp,bkpd->bpd", masks, tokens), masks

    def _mixed(
        self, slots: Tensor, slot_mask: Tensor | None, prior: Tensor | None, grid: Sequence[int] | None
    ) -> tuple[Tensor, Tensor]:
        """The same with about K times fewer operations in the first and last layer, equal up to rounding.

        Both layers are linear. The first one sees a sum, so slots and positions go through it apart. The mean over the
        slots commutes with the last one, so the hidden vectors are averaged instead of the tokens. Evaluation keeps
        the plain order, because committed results have its rounding.
        """
        first, last = cast(nn.Linear, self.mlp[0]), cast(nn.Linear, self.mlp[-1])
        hidden = first(slots).unsqueeze(2) + F.linear(self.placed(grid), first.weight)
        hidden = cast(nn.Sequential, self.mlp[1:-1])(hidden)
        masks = _soft_masks(hidden @ last.weight[-1] + last.bias[-1], slot_mask, prior)
        averaged = torch.einsum("bkp,bkph->bph", masks, hidden)
        return F.linear(averaged, last.weight[:-1], last.bias[:-1]), masks

    def placed(self, grid: Sequence[int] | None) -> Tensor:
        """Return the positions (1, 1, P, C) of a grid (height, width), or the table's own for None."""
        if grid is None:
            return self.positions
        return resample_positions(self.positions.squeeze(1), grid, prefix=0).unsqueeze(1)


def _soft_masks(logits: Tensor, slot_mask: Tensor | None, prior: Tensor | None) -> Tensor:
    """Softmax of mask logits (B, K, P) over the slots."""
    if prior is not None:
        logits = logits + log_prior(prior, slot_mask)
    elif slot_mask is not None:
        logits = logits.masked_fill(~slot_mask.unsqueeze(-1), float("-inf"))
    return logits.softmax(dim=1)


def log_prior(prior: Tensor, slot_mask: Tensor | None) -> Tensor:
    """Return the logarithm of attention (B, K, P), -inf at slots that `slot_mask` (B, K) excludes."""
    # Clamped, because attention may underflow to 0 and -inf would keep the decoder from ever revising it.
    logits = prior.clamp_min(1e-6).log()
    return logits if slot_mask is None else logits.masked_fill(~slot_mask.unsqueeze(-1), float("-inf"))


def random_visible(batch: int, tokens: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw the visible tokens of a training step of `RandomMaskDecoder`, (B, P) bool on the CPU.

    For each sample, the number of visible tokens is with probability 1/2 uniform in {0, ..., P - 2}, and otherwise
    the constant int(P / 10) - 1. Which tokens are visible is uniform.
    """
    # The official code hard-codes the constant for its 256 tokens, as 24; the share is kept for other grids.
    uniform = torch.randint(0, max(tokens - 1, 1), (batch,), generator=generator)
    constant = max(int(tokens * 0.1) - 1, 0)
    use_uniform = torch.rand(batch, generator=generator) < 0.5
    count = torch.where(use_uniform, uniform, constant)
    # Ranks of random numbers are a random permutation of each row.
    rank = torch.rand(batch, tokens, generator=generator).argsort(dim=1).argsort(dim=1)
    return rank < count.unsqueeze(1)
