"""The released VideoSAUR models (martius-lab/videosaur, commit 5d09311): their sizes and names of tensors."""

from __future__ import annotations

from typing import Any

from .sizes import Size
from .slotcontrast import OFFICIAL_NAMES as SLOTCONTRAST_NAMES

BACKBONES: dict[str, dict[str, Any]] = {
    "dino_base_8": {"grid": 28, "patch": 8, "dim": 768, "heads": 12},
    "dino_base_16": {"grid": 14, "patch": 16, "dim": 768, "heads": 12},
    "dinov2_base_14": {"grid": 37, "patch": 14, "dim": 768, "heads": 12, "layer_scale": 1e-5},
    "dinov2_small_14": {"grid": 37, "patch": 14, "dim": 384, "heads": 6, "layer_scale": 1e-5},
}
"""Options of `layers.vit.VisionTransformer`; all have 12 blocks. Positions are resampled by timm's rule."""

_MOVI: dict[str, Any] = {"encoder": "dino_base_8", "slot_dim": 128, "input_size": 224, "features": False}
_WITH_FEATURES: dict[str, Any] = {"decoder_blocks": 3, "decoder_layers": 3, "slots": 7}
VARIANTS: dict[str, dict[str, Any]] = {
    "movi_c": {**_MOVI, "slots": 11},
    "movi_e": {**_MOVI, "slots": 15},
    "ytvis": {**_WITH_FEATURES, "encoder": "dino_base_16", "slot_dim": 64, "input_size": 224, "temperature": 0.25},
    "ytvis_dinov2": {
        **_WITH_FEATURES, "encoder": "dinov2_base_14", "slot_dim": 64, "input_size": 518, "temperature": 0.15
    },
    "clevrer": {
        **_WITH_FEATURES, "encoder": "dinov2_small_14", "slot_dim": 128, "input_size": 196, "temperature": 0.15
    },
}  # fmt: skip
"""Options of the released models, from the official configurations; `clevrer` is C-JEPA's (galilai-group/cjepa)."""

OFFICIAL_NAMES = (
    (r"initializer\.mean$", "initialisation.mean"),
    (r"initializer\.log_std$", "initialisation.log_std"),
    (r"decoder\.module\.allocator\.blocks\.(\d+)\.self_attn\.", r"decoder.allocator.\1.attention."),
    (r"decoder\.module\.allocator\.blocks\.(\d+)\.norm1\.", r"decoder.allocator.\1.norm_attention."),
    (r"decoder\.module\.allocator\.blocks\.(\d+)\.norm2\.", r"decoder.allocator.\1.norm_mlp."),
    (r"decoder\.module\.allocator\.blocks\.(\d+)\.linear1\.", r"decoder.allocator.\1.mlp.0."),
    (r"decoder\.module\.allocator\.blocks\.(\d+)\.linear2\.", r"decoder.allocator.\1.mlp.2."),
    (r"decoder\.module\.renderer\.layers\.", "decoder.mlp."),
    (r"decoder\.module\.output_transform\.", "decoder.output."),
    (r"decoder\.module\.to_q\.", "decoder.to_queries."),
    (r"decoder\.module\.to_k\.", "decoder.to_keys."),
    (r"decoder\.module\.norm_q\.", "decoder.norm_queries."),
    (r"decoder\.module\.norm_k\.", "decoder.norm_keys."),
    (r"decoder\.module\.norm_memory\.", "decoder.norm_memory."),
    *(rule for rule in SLOTCONTRAST_NAMES if not rule[1].startswith(("initial_slots", "decoder.mlp"))),
)
"""Names in official checkpoints -> names here; each pattern matches from a key's start."""

_WIDTHS = {384: "clevrer", 768: "movi_c, movi_e, ytvis or ytvis_dinov2"}
_TOKENS = {784: "movi_c", 196: "ytvis", 1369: "ytvis_dinov2"}

SIZES = (
    Size("project.0.weight", 0, "features of a token", lambda size: f"variant={_WIDTHS.get(size, '..., none fits')}"),
    Size("decoder.positions", -2, "tokens of a frame", lambda size: f"variant={_TOKENS.get(size, '..., none fits')}"),
    Size("initialisation.mean", -1, "channels of a slot", lambda size: f"slot_dim={size}"),
)
"""The number of slots is in no tensor: slots are sampled. A file of MOVi-E fits `movi_c` with --option slots=15."""
