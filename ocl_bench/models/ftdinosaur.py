"""FT-DINOSAUR: DINOSAUR on a fine-tuned encoder, with top-k decoding (Didolkar et al., ICLR 2025, arXiv:2408.09162).

    image -> DINOv2, fine-tuned -> projection -> slot attention -> the 3 slots of each token that attend to it most
                                                                    -> MLP decoder -> masks

It is DINOSAUR, hence DIAS without its additions (`dias.DIAS`), with other parts: the projection narrows to the width of
the slots, the MLPs have ReLU, and the decoder is `layers.top_k_decoder`. The reference of the field for images that a
model was not trained on ("zero-shot").

Facts are from the official inference code (rw-ocrl/ftdinosaur-inference, commit 4e6c7c7, Apache-2.0). That code is for
inference: how the encoder was fine-tuned (its features of a frozen copy are the target) is not in it, and here the
encoder stays frozen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

from torch import Tensor, nn

from .checkpoints.names import rename_keys
from .checkpoints.sizes import Size, check_sizes
from .checkpoints.slotcontrast import BACKBONES, PATCH, read_official
from .dias import DIAS
from .layers.slot_attention import SlotAttention
from .layers.top_k_decoder import TopKDecoder
from .options import check_choice, check_range
from .slotcontrast import dinov2

OFFICIAL_NAMES = (
    (r"encoder\.", "encoder.vit."),
    (r"slot_init\.slots_mu$", "initialisation.mean"),
    (r"slot_init\.slots_logsigma$", "initialisation.log_std"),
    (r"slot_attention\.feature_transform\.", "project."),
    (r"slot_attention\.slot_attention\.norm_input\.", "aggregation.norm_inputs."),
    (r"slot_attention\.slot_attention\.norm_slots\.", "aggregation.norm_queries."),
    (r"slot_attention\.slot_attention\.to_q\.", "aggregation.to_queries."),
    (r"slot_attention\.slot_attention\.to_k\.", "aggregation.to_keys."),
    (r"slot_attention\.slot_attention\.to_v\.", "aggregation.to_values."),
    (r"slot_attention\.slot_attention\.gru\.", "aggregation.gru."),
    (r"slot_attention\.slot_attention\.ff_mlp\.module\.0\.", "aggregation.norm_update."),
    (r"slot_attention\.slot_attention\.ff_mlp\.module\.1\.", "aggregation.mlp.0."),
    (r"slot_attention\.slot_attention\.ff_mlp\.module\.3\.", "aggregation.mlp.2."),
    (r"decoder\.pos_embed$", "decoder.positions"),
    (r"decoder\.decoder\.", "decoder.mlp."),
)
"""Names in official checkpoints -> names here; each pattern matches from a key's start."""


def _encoder_of(width: int) -> str:
    name = next((name for name, shape in BACKBONES.items() if shape["dim"] == width), None)
    return f"encoder={name}" if name else f"encoder=..., none of {', '.join(BACKBONES)} has this width"


SIZES = (
    Size("initialisation.mean", -1, "channels of a slot", lambda size: f"slot_dim={size}"),
    Size("decoder.positions", -2, "tokens of an image", lambda size: f"input_size={round(size**0.5) * PATCH}"),
    Size("project.0.weight", 0, "features of a token", _encoder_of),
)


V2_NAMES = (
    (r"encoder\.backbone\.model\.", "encoder.vit."),
    (r"encoder\.output_transform\.layers\.", "project."),
    (r"initializer\.mean$", "initialisation.mean"),
    (r"initializer\.log_std$", "initialisation.log_std"),
    (r"processor\.corrector\.norm_features\.", "aggregation.norm_inputs."),
    (r"processor\.corrector\.norm_slots\.", "aggregation.norm_queries."),
    (r"processor\.corrector\.to_q\.", "aggregation.to_queries."),
    (r"processor\.corrector\.to_k\.", "aggregation.to_keys."),
    (r"processor\.corrector\.to_v\.", "aggregation.to_values."),
    (r"processor\.corrector\.gru\.", "aggregation.gru."),
    (r"processor\.corrector\.mlp\.layers\.0\.", "aggregation.norm_update."),
    (r"processor\.corrector\.mlp\.layers\.1\.", "aggregation.mlp.0."),
    (r"processor\.corrector\.mlp\.layers\.3\.", "aggregation.mlp.2."),
    (r"decoder\.pos_emb$", "decoder.positions"),
    (r"decoder\.mlp\.layers\.", "decoder.mlp."),
)
"""The same for files of DINOSAUR by the code of VideoSAUR, which has images without the `module` of its videos."""


class FTDinosaur(DIAS):
    """FT-DINOSAUR around an encoder. `predict`, `decompose` and `loss` are those of `DIAS`.

    Args:
        encoder: maps images (B, 3, H, W) in [0, 1] to tokens (B, D, h, w); it is frozen here.
        feature_dim: D.
        tokens: P = h w.
        input_size: side in pixels of the images that give P tokens.
        slots: K. No weight depends on it.
        slot_dim: C.
        hidden: width of the decoder's 3 hidden layers.
        top_k: slots that are decoded at each token.
        mask_source: whether `predict` returns the decoder's masks or the attention.
    """

    official_names = OFFICIAL_NAMES

    def __init__(
        self,
        encoder: nn.Module,
        *,
        feature_dim: int,
        tokens: int,
        input_size: int,
        slots: int = 7,
        slot_dim: int = 256,
        hidden: int = 2048,
        top_k: int = 3,
        mask_source: Literal["decoder", "attention"] = "decoder",
    ) -> None:
        super().__init__(
            encoder,
            feature_dim=feature_dim,
            tokens=tokens,
            input_size=input_size,
            slots=slots,
            slot_dim=slot_dim,
            decoder="mlp",
            attention_prior=True,  # gives the decoder the attention, by which it chooses the slots
            distill=False,
            mask_source=mask_source,
        )
        self.project = nn.Sequential(
            nn.LayerNorm(feature_dim),
            nn.Linear(feature_dim, 2 * feature_dim),
            nn.ReLU(),
            nn.Linear(2 * feature_dim, slot_dim),
        )
        self.aggregation = SlotAttention(slot_dim, slot_dim, 3, activation=nn.ReLU, epsilon=1e-8)
        self.decoder = TopKDecoder(feature_dim, slot_dim, tokens, 3, hidden, top_k=top_k)

    def translate_checkpoint(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the tensors of an official checkpoint; a checkpoint with our names is returned unchanged.

        Raises:
            UsageError: it is of another model, or C, P or D differs from the model's.
        """
        if "initialisation.mean" not in state:
            state = rename_keys(state, self.official_names)
            table = state.get("decoder.positions")
            if table is not None and table.ndim == 3:  # officially without the axis of the slots
                state["decoder.positions"] = table.unsqueeze(1)
        check_sizes(state, self.state_dict(), SIZES)
        return state

    def read_checkpoint(self, path: Path) -> dict[str, Tensor]:
        """Read the tensors of a file, or of its `state_dict`; no code in it is run."""
        return read_official(path)


class DinosaurV2(FTDinosaur):
    """DINOSAUR as trained by the code of VideoSAUR: all slots are decoded, and slot attention is SlotContrast's.

    Source: `configs/dinosaur/coco_base14_dinov2.yml` of martius-lab/videosaur, commit 5d09311. The encoder is frozen.

    Args:
        encoder, slot_dim, options: see `FTDinosaur`.
    """

    official_names = V2_NAMES

    def __init__(self, encoder: nn.Module, *, slot_dim: int, slots: int, **options: Any) -> None:
        super().__init__(encoder, slot_dim=slot_dim, slots=slots, top_k=slots, **options)
        self.aggregation = SlotAttention(
            slot_dim, slot_dim, 3, activation=nn.ReLU, normalised_state=True, attention_floor=1e-8
        )


def build(
    *,
    encoder: str = "vit_small",
    input_size: int = 224,
    slots: int = 7,
    slot_dim: int = 256,
    top_k: int = 3,
    mask_source: Literal["decoder", "attention"] = "decoder",
) -> FTDinosaur:
    """Build the model of the card `ftdinosaur-paper`.

    Args:
        encoder: `vit_small` or `vit_base`, DINOv2 with patches of 14 pixels.
        input_size: side in pixels; the released models have 224 and 518.
        slots, slot_dim, top_k, mask_source: see `FTDinosaur`.

    Raises:
        UsageError: an option is unknown or out of range.
    """
    check_range("top_k", top_k, isinstance(top_k, int) and top_k >= 1, "a whole number from 1")
    options = {"slots": slots, "slot_dim": slot_dim, "mask_source": mask_source, "top_k": top_k}
    return _assemble(FTDinosaur, encoder, input_size, options)


def build_v2(
    *,
    encoder: str = "vit_base",
    input_size: int = 224,
    slots: int = 7,
    slot_dim: int = 256,
    mask_source: Literal["decoder", "attention"] = "decoder",
) -> DinosaurV2:
    """Build the model of the card `dinosaur-v2-paper`; arguments and errors as in `build`."""
    options = {"slots": slots, "slot_dim": slot_dim, "mask_source": mask_source}
    return _assemble(DinosaurV2, encoder, input_size, options)


Model = TypeVar("Model", bound=FTDinosaur)


def _assemble(kind: type[Model], encoder: str, input_size: int, options: dict[str, Any]) -> Model:
    """Build a model around DINOv2; UsageError for an option that is unknown or out of range."""
    check_choice("encoder", encoder, tuple(BACKBONES))
    check_choice("mask_source", options["mask_source"], ("decoder", "attention"))
    for name in ("slots", "slot_dim"):
        count = options[name]
        check_range(name, count, isinstance(count, int) and count >= 1, "a whole number from 1")
    whole = isinstance(input_size, int) and input_size >= PATCH and input_size % PATCH == 0
    check_range("input_size", input_size, whole, f"a multiple of {PATCH}")
    backbone, tokens = BACKBONES[encoder], (input_size // PATCH) ** 2
    shape: dict[str, Any] = {"feature_dim": backbone["dim"], "tokens": tokens, "input_size": input_size}
    return kind(dinov2(**backbone), **shape, **options).eval()
