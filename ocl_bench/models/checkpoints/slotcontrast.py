"""The official SlotContrast models (martius-lab/slotcontrast, commit 17b42b0): their sizes and the names of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core.errors import UsageError
from .export import read_checkpoint
from .names import rename_keys

VARIANTS: dict[str, dict[str, Any]] = {
    "movi_c": {"encoder": "vit_small", "slots": 11, "slot_dim": 64, "input_size": 336},
    "movi_e": {"encoder": "vit_base", "slots": 15, "slot_dim": 128, "input_size": 336},
    "ytvis": {"encoder": "vit_base", "slots": 7, "slot_dim": 64, "input_size": 518},
}
"""Options of the models that were released, by the data set that they were trained on."""

BACKBONES: dict[str, dict[str, int]] = {"vit_small": {"dim": 384, "heads": 6}, "vit_base": {"dim": 768, "heads": 12}}
"""DINOv2's transformers of 12 blocks and patches of 14 pixels."""

OFFICIAL_NAMES = (
    (r"initializer\.slots$", "initial_slots"),
    (r"encoder\.module\.backbone\.model\.", "encoder.vit."),
    (r"encoder\.module\.output_transform\.layers\.", "project."),
    (r"processor\.module\.corrector\.norm_features\.", "corrector.norm_inputs."),
    (r"processor\.module\.corrector\.norm_slots\.", "corrector.norm_queries."),
    (r"processor\.module\.corrector\.to_q\.", "corrector.to_queries."),
    (r"processor\.module\.corrector\.to_k\.", "corrector.to_keys."),
    (r"processor\.module\.corrector\.to_v\.", "corrector.to_values."),
    (r"processor\.module\.corrector\.gru\.", "corrector.gru."),
    (r"processor\.module\.corrector\.mlp\.layers\.0\.", "corrector.norm_update."),
    (r"processor\.module\.corrector\.mlp\.layers\.1\.", "corrector.mlp.0."),
    (r"processor\.module\.corrector\.mlp\.layers\.3\.", "corrector.mlp.2."),
    (r"processor\.module\.predictor\.blocks\.0\.self_attn\.", "predictor.attention."),
    (r"processor\.module\.predictor\.blocks\.0\.norm1\.", "predictor.norm_attention."),
    (r"processor\.module\.predictor\.blocks\.0\.norm2\.", "predictor.norm_mlp."),
    (r"processor\.module\.predictor\.blocks\.0\.linear1\.", "predictor.mlp.0."),
    (r"processor\.module\.predictor\.blocks\.0\.linear2\.", "predictor.mlp.2."),
    (r"decoder\.module\.pos_emb$", "decoder.positions"),
    (r"decoder\.module\.mlp\.layers\.", "decoder.mlp."),
)
"""Names of the official checkpoints -> names here; each pattern starts a key."""

LIGHTNING_CLASSES = ((dict, "pytorch_lightning.utilities.parsing.AttributeDict"),)
"""Classes that Lightning 1.9 may leave in its files, and what they are read as: nothing of Lightning is run."""


def read_official(path: Path) -> dict[str, Tensor]:
    """Tensors of a Lightning checkpoint (its `state_dict`) or of a file of plain tensors, on the CPU.

    Nothing in the file is run. Raises UsageError.
    """
    with torch.serialization.safe_globals(list(LIGHTNING_CLASSES)):
        return read_checkpoint(path)


def translate_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Official names -> ours; a state dict with our names is returned unchanged. Raises UsageError for other names."""
    if "initial_slots" in state:
        return state
    return rename_keys(state, OFFICIAL_NAMES)


def sizes(state: Mapping[str, Tensor]) -> dict[str, int]:
    """K, D, P and F of a state dict with our names, from its shapes; without those whose tensor is missing."""
    found: dict[str, int] = {}
    if "initial_slots" in state:
        found["K"], found["D"] = state["initial_slots"].shape[-2:]
    if "decoder.positions" in state:
        found["P"] = state["decoder.positions"].shape[-2]
    if "project.0.weight" in state:
        found["F"] = len(state["project.0.weight"])
    return found


def check_sizes(state: Mapping[str, Tensor], own: Mapping[str, Tensor], patch: int) -> None:
    """Raises UsageError when a checkpoint's K, D, P or F is not the model's, with the option that makes it so.

    state, own: of file and model, with our names. patch: side of a token in pixels.
    """
    theirs, ours = sizes(state), sizes(own)
    variant = next((name for name in VARIANTS if sizes_of(name) == theirs), None)
    for name, value in theirs.items():
        if value == ours[name]:
            continue
        option = (
            f"variant={variant}" if variant and "encoder.vit.cls_token" in own else _option(name, value, own, patch)
        )
        meaning = {"K": "slots", "D": "channels of a slot", "P": "tokens of a frame", "F": "features of a token"}[name]
        raise UsageError(
            f"{name} differs: the checkpoint has {value} {meaning}, the model {ours[name]}; use --option {option}"
        )


def sizes_of(variant: str) -> dict[str, int]:
    """K, D, P and F of a released model."""
    options = VARIANTS[variant]
    tokens = (options["input_size"] // 14) ** 2
    features = BACKBONES[options["encoder"]]["dim"]
    return {"K": options["slots"], "D": options["slot_dim"], "P": tokens, "F": features}


def _option(name: str, value: int, own: Mapping[str, Tensor], patch: int) -> str:
    """The option of `slotcontrast.build` that sets a size."""
    if name == "P":
        return f"input_size={round(value**0.5) * patch}"
    if name == "F":
        encoder = next((key for key, shape in BACKBONES.items() if shape["dim"] == value), None)
        return f"encoder={encoder}" if encoder and "encoder.vit.cls_token" in own else f"dim={value}"
    return f"{ {'K': 'slots', 'D': 'slot_dim'}[name] }={value}"
