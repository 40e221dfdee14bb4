"""SPOT: slots that learn from their decoder's masks, with an autoregressive decoder (Kakogeorgiou et al., CVPR 2024).

arXiv:2312.00648; official code gkakogeorgiou/spot, commit 13c5926.

    image -> encoder (its last blocks fine-tuned) -> projection -> slot attention -> decoder -> masks
          '-> second encoder (frozen) -> tokens: what the decoder reads and reconstructs

Slot attention has learnt initial slots, one for each slot, without noise. The decoder predicts each token from the
slots and the tokens before it, in nine orders (`layers.permuted_decoder`); by default masks are averaged over all of
them, as in the numbers of the paper. Masks may also come from slot attention. The training, in which the decoder's
masks of a teacher guide the student's slot attention, is not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..core.types import Batch, Prediction
from .checkpoints.sizes import check_sizes
from .checkpoints.slotcontrast import read_official
from .checkpoints.spot import SIZES, translate_official
from .dias import Decomposition
from .encoder import STRIDE, Encoder
from .layers.initialisation import LearntSlots, SharedGaussian
from .layers.normalisation import normalise
from .layers.permuted_decoder import PermutedDecoder
from .layers.slot_attention import SlotAttention
from .layers.vit import DINO_OFFSET, VisionTransformer
from .options import check_choice, check_range

BACKBONES: dict[str, dict[str, Any]] = {"dino_base_16": {"grid": 14, "patch": 16, "dim": 768, "heads": 12}}
"""Options of `VisionTransformer`, by the encoders of the released models."""


class SPOT(nn.Module):
    """SPOT around one or two encoders.

    Args:
        encoder: maps images (B, 3, H, W) in [0, 1] to tokens (B, D, h, w), the input of the slots; frozen here.
        second_encoder: gives the tokens of the decoder; None = the first one.
        feature_dim: D.
        side: of the square grid of P tokens.
        input_size: side in pixels of the images that give it.
        slots: K.
        slot_dim: C.
        initialisation: "embedding" (learnt slots) or "gaussian" (as in DIAS; SPOT's teacher).
        decoder_layers, decoder_heads: of the decoder.
        permutations: "all" orders of the decoder or the "standard" one.
        mask_source: whether `predict` returns the decoder's masks or the attention.
    """

    def __init__(
        self,
        encoder: nn.Module,
        second_encoder: nn.Module | None = None,
        *,
        feature_dim: int,
        side: int,
        input_size: int,
        slots: int = 7,
        slot_dim: int = 256,
        initialisation: Literal["embedding", "gaussian"] = "embedding",
        decoder_layers: int = 4,
        decoder_heads: int = 6,
        permutations: Literal["all", "standard"] = "all",
        mask_source: Literal["decoder", "attention"] = "decoder",
    ) -> None:
        super().__init__()
        self.input_size, self.slots, self.slot_dim = input_size, slots, slot_dim
        self.permutations, self.mask_source = permutations, mask_source
        self.encoder = encoder.requires_grad_(False)
        self.second_encoder = second_encoder.requires_grad_(False) if second_encoder is not None else None
        self.project = nn.Sequential(
            nn.LayerNorm(feature_dim),
            nn.Linear(feature_dim, feature_dim),
            nn.ReLU(),
            nn.Linear(feature_dim, feature_dim),
        )
        gaussian = initialisation == "gaussian"
        self.initialisation = SharedGaussian(slot_dim) if gaussian else LearntSlots(slots, slot_dim)
        self.aggregation = SlotAttention(
            feature_dim, slot_dim, 3, activation=nn.ReLU, attention_floor=1e-8, bilevel=not gaussian
        )
        self.decoder = PermutedDecoder(feature_dim, slot_dim, side, decoder_layers, decoder_heads)

    @torch.no_grad()
    def encode(self, batch: Batch) -> Tensor:
        """Encode images into tokens (B, D, h, w): the input of the slots."""
        return self.encoder(batch.image.to(self.initialisation.mean))

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        """Predict soft masks (B, K, h, w), slots (B, K, C) and tokens (B, D, h, w)."""
        tokens = self.encode(batch)
        if batch.asks_only_for("tokens", ("slots", "masks")):
            return Prediction(tokens=tokens)
        target = tokens if self.second_encoder is None else self.second_encoder(batch.image.to(tokens))
        noise = batch.noise(self.slots, self.slot_dim).to(tokens)
        features, read = (maps.flatten(2).transpose(1, 2) for maps in (tokens, target))
        if self.mask_source == "attention":  # the decoder would be for nothing
            slots, maps = self.aggregation(self.project(features), self.initialisation(noise))
            masks = maps[-1]
        else:
            result = self.decompose(features, noise, read)
            slots, masks = result.slots, result.masks
        masks = masks.unflatten(2, tokens.shape[-2:])
        return Prediction(masks=masks, mask_source=self.mask_source, slots=slots, tokens=tokens)

    def decompose(self, features: Tensor, noise: Tensor, target: Tensor | None = None) -> Decomposition:
        """Decompose tokens (B, P, D) into slots and decode them.

        Args:
            features: of the encoder.
            noise: (B, K, C) standard normal; learnt slots do not use it.
            target: (B, P, D) of the second encoder; None = `features`.
        """
        slots, attention = self.aggregation(self.project(features), self.initialisation(noise))
        reconstruction, masks = self.decoder(slots, features if target is None else target, self.permutations)
        return Decomposition(slots, None, attention, attention[-1], reconstruction, masks)

    def read_checkpoint(self, path: Path) -> dict[str, Tensor]:
        """Read the tensors of a file, or of its `model`; no code in it is run."""
        return read_official(path)

    def translate_checkpoint(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the tensors of an official checkpoint; a checkpoint with our names is returned unchanged.

        Raises:
            UsageError: it is of another model, or K, C or D differs from the model's.
        """
        if "initialisation.mean" not in state:
            state = translate_official(state)
        check_sizes(state, self.state_dict(), SIZES)
        return state


class UnnormedEncoder(nn.Module):
    """A vision transformer of DINO's hub: its final norm is in the file, and SPOT does not apply it."""

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.vit = vit

    def forward(self, image: Tensor) -> Tensor:
        """Image (B, 3, H, W) in [0, 1] -> raw output of the last block (B, D, h, w)."""
        image = normalise(image)
        tokens = self.vit.embed(image)
        for block in self.vit.blocks:
            tokens = block(tokens)
        return self.vit.to_grid(tokens, image)


def build(
    *,
    encoder: str = "dino_base_16",
    second_encoder: bool = True,
    input_size: int = 224,
    slots: int = 7,
    slot_dim: int = 256,
    dim: int = 64,
    width: int = 64,
    blocks: Sequence[int] = (1, 1),
    **options: Any,
) -> SPOT:
    """Build the model of the card `spot-paper`.

    Args:
        encoder: "dino_base_16" (ViT-B/16 of DINO) or "cnn" (`encoder.Encoder`, with `dim`, `width`, `blocks`).
        second_encoder: whether the decoder reads the tokens of an encoder of its own, as in the released files.
        input_size: side in pixels.
        slots, slot_dim, options: see `SPOT`.

    Raises:
        UsageError: an option is unknown or out of range.
    """
    check_choice("encoder", encoder, (*BACKBONES, "cnn"))
    check_choice("second_encoder", second_encoder, (True, False))
    check_choice("permutations", options.get("permutations", "all"), ("all", "standard"))
    check_choice("mask_source", options.get("mask_source", "decoder"), ("decoder", "attention"))
    check_choice("initialisation", options.get("initialisation", "embedding"), ("embedding", "gaussian"))
    counts = {"slots": slots, "slot_dim": slot_dim, "decoder_layers": options.get("decoder_layers", 4)}
    for name, count in (counts | {"decoder_heads": options.get("decoder_heads", 6)}).items():
        check_range(name, count, isinstance(count, int) and count >= 1, "a whole number from 1")
    patch, feature_dim = (STRIDE, dim) if encoder == "cnn" else (BACKBONES[encoder]["patch"], BACKBONES[encoder]["dim"])
    whole = isinstance(input_size, int) and input_size % patch == 0 and input_size >= 2 * patch
    check_range("input_size", input_size, whole, f"a multiple of {patch}, at least {2 * patch}")
    heads = options.get("decoder_heads", 6)
    check_range("decoder_heads", heads, feature_dim % heads == 0, f"a divisor of the token width {feature_dim}")

    def make() -> nn.Module:
        if encoder == "cnn":
            return Encoder(width, dim, blocks)
        return UnnormedEncoder(VisionTransformer(depth=12, position_offset=DINO_OFFSET, **BACKBONES[encoder]))

    shape: dict[str, Any] = {"feature_dim": feature_dim, "side": input_size // patch, "input_size": input_size}
    second = make() if second_encoder else None
    return SPOT(make(), second, slots=slots, slot_dim=slot_dim, **shape, **options).eval()
