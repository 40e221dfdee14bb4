"""Decoders: from slots back to the tokens of the encoder.

Both return the reconstruction (B, P, D) and soft masks (B, K, P) that sum to 1 over the slots of a token.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .vit import resample_positions


class _DecoderLayer(nn.Module):
    """Pre-norm transformer decoder layer without biases; returns its cross-attention when asked."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm_self: nn.Module = nn.LayerNorm(dim, bias=False)
        self.self_attention = nn.MultiheadAttention(dim, heads, bias=False, batch_first=True)
        self.norm_cross = nn.LayerNorm(dim, bias=False)
        self.cross_attention = nn.MultiheadAttention(dim, heads, bias=False, batch_first=True)
        self.norm_mlp = nn.LayerNorm(dim, bias=False)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim, bias=False), nn.GELU(), nn.Linear(4 * dim, dim, bias=False))

    def forward(
        self, tokens: Tensor, memory: Tensor, ignored: Tensor | None, bias: Tensor | None, need_attention: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Tokens (B, P, D), memory (B, K, D), ignored (B, K), bias (B * heads, P, K) that is added to the logits of the
        cross-attention -> tokens and, on request, attention (B, P, K).
        """
        normed = self.norm_self(tokens)
        tokens = tokens + self.self_attention(normed, normed, normed, need_weights=False)[0]
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
    """The decoder of DIAS (arXiv:2507.23755, there "generalised random auto-regressive").

    A random subset of the encoder's tokens is visible, the rest is replaced by a mask token, and a transformer fills
    them in with the help of the slots: what it cannot see, the slots must tell it. There is no causal mask. The soft
    masks are the cross-attention of the last layer, averaged over heads.

    dim: D of the tokens, also the width of the transformer, whose residual stream is the reconstruction.
    tokens: P, the length of the position table.
    """

    def __init__(self, dim: int, slot_dim: int, tokens: int, layers: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(torch.randn(1, 1, dim) * dim**-0.5)
        self.positions = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, tokens, dim)))
        self.embed_tokens = nn.Sequential(nn.Linear(dim, dim, bias=False), nn.LayerNorm(dim))
        self.embed_slots = nn.Sequential(nn.Linear(slot_dim, dim, bias=False), nn.LayerNorm(dim))
        self.norm_in = nn.LayerNorm(dim, bias=False)
        self.heads = heads
        # As in the official code, all layers start from the same random weights.
        layer = _DecoderLayer(dim, heads)
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(layers))
        # The residual stream starts from the *normalised* query, so the first layer needs no norm of its own.
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

        slots: (B, K, C). target: (B, P, D), the encoder's tokens. visible: (B, P) bool, None = all are visible, as in
        evaluation. slot_mask: (B, K) bool, True = valid; the other slots get a mask of exactly 0. prior: (B, K, P)
        positive weights whose logarithm is added to the cross-attention logits (not in the paper).
        Returns the reconstruction (B, P, D) and the soft masks (B, K, P).
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
            ignored = None  # the bias says it already
        attention = None
        for index, layer in enumerate(self.layers):
            tokens, attention = layer(tokens, memory, ignored, bias, need_attention=index == len(self.layers) - 1)
        assert attention is not None
        return tokens, attention.transpose(1, 2)


class BroadcastDecoder(nn.Module):
    """The MLP decoder of DINOSAUR (Seitzer et al. 2023, arXiv:2209.14860).

    Every slot is copied to every position, an MLP turns it into a token and a logit, and the tokens are averaged with
    the softmax of the logits over the slots. Those weights are the soft masks.

    layers: number of hidden layers. hidden: their width. position_std: of the position table at the start.
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
        """Reconstruct the tokens from the slots alone (`target` and `visible` are ignored).

        slots: (B, K, C). slot_mask: (B, K) bool. prior: (B, K, P) positive weights whose logarithm is added to the
        mask logits. grid: (height, width) of the tokens, for which the (square) position table is resampled as timm
        does; None is that of the table. Returns the reconstruction (B, P, D) and the soft masks (B, K, P).
        """
        del target, visible
        positions: Tensor = self.positions
        if grid is not None:
            positions = resample_positions(positions.squeeze(1), grid, prefix=0).unsqueeze(1)
        decoded = self.mlp(slots.unsqueeze(2) + positions)
        tokens, logits = decoded[..., :-1], decoded[..., -1]
        if prior is not None:
            logits = logits + log_prior(prior, slot_mask)
        elif slot_mask is not None:
            logits = logits.masked_fill(~slot_mask.unsqueeze(-1), float("-inf"))
        masks = logits.softmax(dim=1)
        return torch.einsum("bkp,bkpd->bpd", masks, tokens), masks


def log_prior(prior: Tensor, slot_mask: Tensor | None) -> Tensor:
    """Logarithm of the aggregation's attention (B, K, P), -inf at slots that are not valid; `slot_mask` is (B, K)."""
    logits = prior.clamp_min(1e-6).log()
    return logits if slot_mask is None else logits.masked_fill(~slot_mask.unsqueeze(-1), float("-inf"))


def random_visible(batch: int, tokens: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw the visible tokens of a training step of `RandomMaskDecoder`: (B, P) bool on the CPU.

    Per sample the number of visible tokens is, with probability 1/2 each, uniform in {0, ..., P - 2} or the constant
    int(P / 10) - 1 (24 for the 256 tokens of the paper). Which tokens are visible is uniform.
    """
    uniform = torch.randint(0, max(tokens - 1, 1), (batch,), generator=generator)
    constant = max(int(tokens * 0.1) - 1, 0)
    use_uniform = torch.rand(batch, generator=generator) < 0.5
    count = torch.where(use_uniform, uniform, constant)
    rank = torch.rand(batch, tokens, generator=generator).argsort(dim=1).argsort(dim=1)
    return rank < count.unsqueeze(1)
