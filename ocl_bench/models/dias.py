"""DIAS: slot attention with re-initialisation and self-distillation (Zhao et al., ACM MM 2025, arXiv:2507.23755).

    image -> frozen encoder -> projection -> slot attention -> [merge, aggregate again] -> decoder -> masks

Every addition of DIAS is a flag, so its baselines are the same code with flags off:

* `distill`: the attention of the first iteration learns from that of the last one (self-distillation).
* `merge_threshold`: redundant slots are merged, and the remaining ones start an extra aggregation. This is *our
  reconstruction*: the official release leaves it out, see `layers/merging.py`.
* `initialisation`: "smooth" is that of SmoothSA, see `layers/smooth_initialisation.py`.
* `decoder`: "transformer" is the random-subset masked decoder of DIAS, "mlp" the broadcast decoder of DINOSAUR.

Without the first two it is plain slot attention; with the MLP decoder it is DINOSAUR (arXiv:2209.14860). The rest
follows the official code (Genera1Z/DIAS, commit cc1d545: `object_centric_bench/model/dias.py` and
`config-dias/dias_r-*.py`), whose released models have neither merging nor an extra aggregation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import UsageError
from ..core.types import Batch, Prediction
from .checkpoints.dias import OFFICIAL_NAMES
from .checkpoints.names import rename_keys
from .checkpoints.smoothsa import SMOOTH_NAMES
from .encoder import STRIDE, Encoder
from .layers.decoders import BroadcastDecoder, RandomMaskDecoder
from .layers.initialisation import SharedGaussian, zero_biases
from .layers.merging import MergedSlots, merge_slots
from .layers.places import PLACE, places
from .layers.slot_attention import SlotAttention
from .layers.smooth_initialisation import PREHEAT_WEIGHT, SmoothGaussian
from .layers.vit import DINO_OFFSET, VisionTransformer
from .losses import distillation_loss, distillation_to_merged_loss
from .options import check_choice, check_distance
from .reading import DinoEncoder, PatchEncoder


@dataclass(frozen=True)
class Decomposition:
    """Result of one forward pass over B images, with K slots of C channels and P tokens of D channels.

    Attributes:
        slots: (B, K, C), the decoded slots.
        merged: which slots were merged into them; None where nothing was.
        attention: one map (B, K, P) for each iteration of the first aggregation.
        final_attention: (B, K, P), the last map of the last aggregation.
        reconstruction: (B, P, D).
        masks: (B, K, P), the decoder's.
        warm: (B, K, C), smooth initial slots with their gradient; None for others.
    """

    slots: Tensor
    merged: MergedSlots | None
    attention: list[Tensor]
    final_attention: Tensor
    reconstruction: Tensor
    masks: Tensor
    warm: Tensor | None = None

    @property
    def slot_mask(self) -> Tensor | None:
        """(B, K) bool, True = valid; None = all are."""
        return None if self.merged is None else self.merged.mask


class DIAS(nn.Module):
    """DIAS, or one of its baselines, around a frozen encoder.

    Args:
        encoder: maps images (B, 3, H, W) in [0, 1] to tokens (B, D, h, w); it is frozen here.
        feature_dim: D.
        tokens: P = h w.
        input_size: side in pixels of the images that give P tokens.
        slots: K. No weight depends on it, so it may change after the training.
        slot_dim: C.
        iterations: rounds of the first aggregation.
        initialisation: "shared" (a Gaussian, DIAS) or "smooth" (SmoothSA, with bi-level gradient).
        decoder: "transformer" (DIAS) or "mlp" (DINOSAUR).
        decoder_layers: layers of either decoder.
        decoder_heads: attention heads of the transformer.
        decoder_hidden: width of the MLP's hidden layers.
        attention_prior: add the log of the last aggregation's attention to the decoder's logits (not in the paper).
        positions: add where a token is to what slot attention reads (not in the paper, whose encoder says it already;
            the tokens of a CNN do not, and their slots then cannot tell where an object is).
        distill: use the self-distillation loss.
        distill_target: "first" distils the first aggregation's last map into its first one, as the official code;
            "merged" distils the map after merging into the first one (`losses.distillation_to_merged_loss`).
        merge_threshold: cosine distance below which slots are merged; None = no merging.
        merge_probability: share of training batches in which slots are merged.
        merge_iterations: rounds of the extra aggregation.
        mask_source: whether `predict` returns the decoder's masks or the attention.
        mask_temperature: above 1 it softens the masks that `predict` returns (not in the paper).
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        feature_dim: int,
        tokens: int,
        input_size: int,
        slots: int,
        slot_dim: int,
        iterations: int = 3,
        initialisation: Literal["shared", "smooth"] = "shared",
        decoder: Literal["transformer", "mlp"] = "transformer",
        decoder_layers: int = 4,
        decoder_heads: int = 4,
        decoder_hidden: int = 256,
        attention_prior: bool = False,
        positions: bool = False,
        distill: bool = True,
        distill_target: Literal["first", "merged"] = "first",
        merge_threshold: float | None = None,
        merge_probability: float = 1.0,
        merge_iterations: int = 1,
        mask_source: Literal["decoder", "attention"] = "decoder",
        mask_temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.input_size, self.slots, self.slot_dim = input_size, slots, slot_dim
        self.tokens, self.feature_dim = tokens, feature_dim
        self.distill, self.attention_prior, self.mask_source = distill, attention_prior, mask_source
        self.distill_target = distill_target
        self.merge_threshold, self.merge_probability = merge_threshold, merge_probability
        self.merge_iterations, self.mask_temperature = merge_iterations, mask_temperature
        self.encoder = encoder.requires_grad_(False)
        self.project = nn.Sequential(
            nn.LayerNorm(feature_dim),
            nn.Linear(feature_dim, feature_dim),
            nn.GELU(),
            nn.Linear(feature_dim, feature_dim),
        )
        smooth = initialisation == "smooth"
        self.initialisation = SmoothGaussian(slot_dim, feature_dim) if smooth else SharedGaussian(slot_dim)
        self.aggregation = SlotAttention(feature_dim, slot_dim, iterations, bilevel=smooth)
        self.decoder: nn.Module
        if decoder == "transformer":
            self.decoder = RandomMaskDecoder(feature_dim, slot_dim, tokens, decoder_layers, decoder_heads)
        else:
            self.decoder = BroadcastDecoder(feature_dim, slot_dim, tokens, decoder_layers, decoder_hidden)
        for part in (self.project, self.initialisation, self.aggregation, self.decoder):  # official `reset_parameters`
            zero_biases(part)
        self.place = nn.Linear(PLACE, feature_dim) if positions else None

    @torch.no_grad()
    def encode(self, batch: Batch) -> Tensor:
        """Encode images into tokens (B, D, h, w): input of the slots and target of the reconstruction."""
        return self.encoder(batch.image.to(self.initialisation.mean))

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        """Predict soft masks (B, K, h, w), slots (B, K, C), zero where merged away, and tokens (B, D, h, w)."""
        tokens = self.encode(batch)
        if batch.asks_only_for("tokens", ("slots", "masks")):
            return Prediction(tokens=tokens)
        # Slots are sampled in evaluation as well, as officially. Here the noise belongs to the image and the noise
        # seed, so a prediction can be repeated; the official `eval.py` sets no seed.
        noise = batch.noise(self.slots, self.slot_dim).to(tokens)
        result = self.decompose(tokens.flatten(2).transpose(1, 2), noise)
        masks = result.masks if self.mask_source == "decoder" else result.final_attention
        masks = soften(masks, self.mask_temperature).reshape(*masks.shape[:2], *tokens.shape[-2:])
        slots = result.slots if result.slot_mask is None else result.slots * result.slot_mask.unsqueeze(-1)
        return Prediction(masks=masks, mask_source=self.mask_source, slots=slots, tokens=tokens)

    def decompose(
        self,
        features: Tensor,
        noise: Tensor,
        *,
        visible: Tensor | None = None,
        merge: bool = True,
        query_noise: Tensor | None = None,
    ) -> Decomposition:
        """Decompose tokens into slots and decode them.

        Args:
            features: (B, P, D) raw encoder tokens.
            noise: (B, K, C) standard normal.
            visible: (B, P) bool, the tokens that the transformer decoder sees; None = all, as in evaluation.
            merge: False skips the merging but not the extra aggregation, so a training step that does not merge still
                trains what evaluation uses.
            query_noise: (B, K, C) standard normal, of a training step with smooth initial slots.
        """
        inputs = self.project(features)
        if self.place is not None:
            side = math.isqrt(self.tokens)
            inputs = inputs + self.place(places((side, side)).to(inputs))
        initial, warm = self.initial_slots(inputs, noise, query_noise)
        keyed = self.aggregation.keys_and_values(inputs)
        slots, attention = self.aggregation(inputs, initial, keyed=keyed)
        merged, slot_mask, final_attention = None, None, attention[-1]
        if self.merge_threshold is not None:
            if merge:
                merged = merge_slots(slots, self.merge_threshold)
                slots, slot_mask = merged.slots, merged.mask
            slots, extra = self.aggregation(inputs, slots, slot_mask, self.merge_iterations, keyed)
            final_attention = extra[-1]
        prior = {"prior": final_attention} if self.attention_prior else {}
        reconstruction, masks = self.decoder(slots, features, visible=visible, slot_mask=slot_mask, **prior)
        return Decomposition(slots, merged, attention, final_attention, reconstruction, masks, warm)

    @property
    def slots_decode(self) -> str:
        """How `decode_slots` gets masks: the transformer decoder replaces all tokens by the mask token."""
        return "masked" if isinstance(self.decoder, RandomMaskDecoder) else "slots"

    @torch.no_grad()
    def decode_slots(self, slots: Tensor) -> Tensor:
        """Masks (B, K, h, w) of slots (B, K, C) alone, such as predicted ones; of a slot of zeros it is 0.

        The transformer decoder sees no token of a frame, as it does now and then in training. There is no attention to
        a frame either: with `attention_prior`, it is left out.
        """
        slots = slots.to(self.initialisation.mean)
        tokens = slots.new_zeros(len(slots), self.tokens, self.feature_dim)
        hidden = torch.zeros(tokens.shape[:2], dtype=torch.bool, device=slots.device)
        masks = self.decoder(slots, tokens, visible=hidden, slot_mask=slots.abs().amax(2) > 0)[1]
        side = math.isqrt(self.tokens)
        return soften(masks, self.mask_temperature).unflatten(2, (side, side))

    def initial_slots(
        self, inputs: Tensor, noise: Tensor, query_noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Initial slots (B, K, C) for projected tokens (B, P, D), and where they are smooth, these with gradient."""
        if not isinstance(self.initialisation, SmoothGaussian):
            return self.initialisation(noise), None
        warm = self.initialisation.warm(noise, inputs)
        return self.initialisation.query(warm, query_noise), warm

    def loss(
        self,
        features: Tensor,
        *,
        noise: Tensor,
        visible: Tensor | None,
        merge_coin: float = 0.0,
        distill_weight: float | Tensor = 1.0,
        query_noise: Tensor | None = None,
        detached: bool | None = None,
    ) -> dict[str, Tensor]:
        """Compute the training loss, a pure function of the arguments and the weights.

        Args:
            features: (B, P, D) raw encoder tokens of any float type.
            noise: (B, K, C) standard normal.
            visible: (B, P) bool from `layers.decoders.random_visible`; the MLP decoder ignores it.
            merge_coin: uniform number in [0, 1); slots are merged if it is below `merge_probability`.
            distill_weight: from `distillation_weight`.
            query_noise: (B, K, C) standard normal; only smooth initial slots need it.
            detached: sets the switch of smooth initial slots, see `SmoothGaussian`; None leaves it.

        Returns:
            Scalars: "total", with gradient; "reconstruction", the mean squared error; each without its weight,
            "preheat" with smooth initial slots and "distillation" with the option `distill`.
        """
        features = features.detach().to(self.initialisation.mean.dtype)
        if detached is not None and isinstance(self.initialisation, SmoothGaussian):
            self.initialisation.detached.fill_(detached)
        merge = merge_coin < self.merge_probability
        result = self.decompose(features, noise, visible=visible, merge=merge, query_noise=query_noise)
        # Over all tokens, visible ones included, as officially.
        total = F.mse_loss(result.reconstruction, features)
        terms = {"reconstruction": total.detach()}
        if result.warm is not None:
            preheat = F.mse_loss(result.warm, result.slots.detach())
            total = total + PREHEAT_WEIGHT * preheat
            terms["preheat"] = preheat.detach()
        if self.distill:
            distillation = self._distillation(result)
            total = total + distill_weight * distillation
            terms["distillation"] = distillation.detach()
        return {"total": total, **terms}

    def _distillation(self, result: Decomposition) -> Tensor:
        """The self-distillation, without its weight."""
        # The attention of the aggregation on both sides: unlike in SPOT, the decoder's map is not involved.
        if self.distill_target == "merged" and result.merged is not None:
            return distillation_to_merged_loss(result.attention[0], result.final_attention, result.merged.members)
        return distillation_loss(student=result.attention[0], teacher=result.attention[-1])

    def translate_checkpoint(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the tensors of an official checkpoint, whose keys all start with `m.`; others stay as they are."""
        if not any(key.startswith("m.") for key in state):
            return state
        return rename_keys(state, (*SMOOTH_NAMES, *OFFICIAL_NAMES))


Model = TypeVar("Model", bound=DIAS)


def soften(masks: Tensor, temperature: float) -> Tensor:
    """Raise soft masks (B, K, P) to the power 1 / temperature and renormalise over the slots; the argmax is kept.

    Softer masks let the bilinear upsampling place a border inside a token. A mask that is exactly 0 stays 0.
    """
    if temperature == 1:  # unchanged to the bit
        return masks
    powers = masks ** (1 / temperature)
    return powers / powers.sum(dim=1, keepdim=True)


def distillation_weight(step: float, steps: float) -> float:
    """Return the weight of the distillation at a step: (1 - cos(pi step / steps)) / 2, which rises from 0 to 1.

    Source: the schedule of the official `config-dias/dias_r-*.py`.
    """
    return 0.5 * (1 - math.cos(math.pi * step / steps))


def build(
    *,
    encoder: Literal["cnn", "dinov2s14reg", "vit"] = "cnn",
    vit: Mapping[str, Any] | None = None,
    dim: int = 64,
    width: int = 64,
    blocks: Sequence[int] = (1, 1),
    input_size: int = 128,
    slots: int = 11,
    slot_dim: int = 64,
    **options: Any,
) -> DIAS:
    """Build the model of the cards `dias`, `dias-odis`, `dias-paper`, `slot-attention` and `dinosaur`.

    Args:
        encoder: "cnn" (`encoder.Encoder(width, dim, blocks)`), "dinov2s14reg" (the paper's) or "vit"
            (`VisionTransformer(dim, **vit)`, that of a card such as `odis`).
        vit: options of the encoder "vit".
        dim: D, except with "dinov2s14reg", which has 384.
        width, blocks: of the encoder "cnn".
        input_size: side in pixels, divisible by the encoder's stride (8 for "cnn"); always 256 with "dinov2s14reg".
        slots: K.
        slot_dim: C.
        options: the remaining keywords of `DIAS`.

    Raises:
        UsageError: an option is unknown or out of range.
    """
    sizes = {"dim": dim, "width": width, "blocks": blocks, "input_size": input_size}
    return assemble(DIAS, encoder, vit, sizes, {"slots": slots, "slot_dim": slot_dim, **options})


def assemble(
    kind: type[Model], encoder: str, vit: Mapping[str, Any] | None, sizes: Mapping[str, Any], options: dict[str, Any]
) -> Model:
    """Build a DIAS, or a model with other parts, around an encoder.

    Args:
        kind: the class.
        encoder, vit: see `build`.
        sizes: `dim`, `width`, `blocks` and `input_size` of `build`.
        options: the keywords of the class, `slots` and `slot_dim` included.

    Raises:
        UsageError: an option is unknown or out of range.
    """
    check_choice("encoder", encoder, ("cnn", "dinov2s14reg", "vit"))
    check_choice("decoder", options.get("decoder", "transformer"), ("transformer", "mlp"))
    check_choice("mask_source", options.get("mask_source", "decoder"), ("decoder", "attention"))
    check_choice("initialisation", options.get("initialisation", "shared"), ("shared", "smooth"))
    check_choice("distill_target", options.get("distill_target", "first"), ("first", "merged"))
    check_distance("merge_threshold", options.get("merge_threshold"))
    if not options.get("mask_temperature", 1.0) > 0:
        raise UsageError(f"option mask_temperature: {options['mask_temperature']} must be positive")
    if options.get("decoder", "transformer") == "transformer":
        feature_dim = 384 if encoder == "dinov2s14reg" else sizes["dim"]
        if feature_dim % options.get("decoder_heads", 4):
            raise UsageError(f"option decoder_heads: must divide the token width {feature_dim}")
    if encoder == "dinov2s14reg":
        return kind(DinoEncoder(), feature_dim=384, tokens=256, input_size=256, **options).eval()
    dim, side = sizes["dim"], sizes["input_size"]
    small = _vit_encoder(dim, vit or {}) if encoder == "vit" else Encoder(sizes["width"], dim, sizes["blocks"])
    stride = small.vit.patch if isinstance(small, PatchEncoder) else STRIDE
    if side % stride or side < 2 * stride:
        raise UsageError(f"option input_size: {side} must be a multiple of {stride}, at least {2 * stride}")
    return kind(small, feature_dim=dim, tokens=(side // stride) ** 2, input_size=side, **options).eval()


def _vit_encoder(dim: int, vit: Mapping[str, Any]) -> PatchEncoder:
    """Build the encoder "vit"; UsageError for missing or unknown options."""
    try:
        return PatchEncoder(VisionTransformer(dim=dim, position_offset=DINO_OFFSET, **vit))
    except TypeError as error:
        # Python's message starts with the class and "__init__() "; what follows names the option.
        raise UsageError(f"option vit: {str(error).partition(') ')[2] or error}") from error
