"""The released SlotContrast models (martius-lab/slotcontrast, commit 17b42b0): their sizes and names of tensors."""

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
"""Options of the released models, by the data set of their training (from the official configs)."""

BACKBONES: dict[str, dict[str, int]] = {"vit_small": {"dim": 384, "heads": 6}, "vit_base": {"dim": 768, "heads": 12}}
"""Widths of DINOv2's transformers with 12 blocks."""

PATCH = 14
"""Side of DINOv2's patches in pixels."""

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
"""Names in official checkpoints -> names here; each pattern matches from a key's start.

The file has no final norm of the backbone, because the official feature extractor prunes it.
"""

LIGHTNING_CLASSES = ((dict, "pytorch_lightning.utilities.parsing.AttributeDict"),)
"""Classes that Lightning 1.9 may leave in its files, and what they are read as. No code of Lightning is run."""


def read_official(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a Lightning checkpoint (its `state_dict`) or of a file of plain tensors, on the CPU.

    No code in the file is run; see `names.read_content`.
    """
    with torch.serialization.safe_globals(list(LIGHTNING_CLASSES)):
        return read_checkpoint(path)


def translate_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename official tensors; a state dict with our names is returned unchanged. UsageError for any other name."""
    if "initial_slots" in state:
        return state
    return rename_keys(state, OFFICIAL_NAMES)


def sizes(state: Mapping[str, Tensor]) -> dict[str, int]:
    """Read K, D, P and F from the shapes of a state dict with our names; a size without its tensor is left out."""
    numbers: dict[str, int] = {}
    if "initial_slots" in state:
        numbers["K"], numbers["D"] = state["initial_slots"].shape[-2:]
    if "decoder.positions" in state:
        numbers["P"] = state["decoder.positions"].shape[-2]
    if "project.0.weight" in state:
        numbers["F"] = len(state["project.0.weight"])
    return numbers


def check_sizes(state: Mapping[str, Tensor], model: Mapping[str, Tensor], patch: int) -> None:
    """Compare the sizes of a checkpoint with those of a model.

    Args:
        state: tensors of the checkpoint, with our names.
        model: tensors of the model.
        patch: side of a token in pixels.

    Raises:
        UsageError: K, D, P or F differs; the message names the option that makes the model fit.
    """
    file_sizes, model_sizes = sizes(state), sizes(model)
    variant = next((name for name in VARIANTS if sizes_of(name) == file_sizes), None)
    for name, value in file_sizes.items():
        if value == model_sizes[name]:
            continue
        # All four sizes of a released model at once are better advice than the first one that differs.
        released = variant and "encoder.vit.cls_token" in model
        option = f"variant={variant}" if released else _option(name, value, model, patch)
        meaning = {"K": "slots", "D": "channels of a slot", "P": "tokens of a frame", "F": "features of a token"}[name]
        raise UsageError(
            f"{name} differs: the checkpoint has {value} {meaning}, the model {model_sizes[name]}; "
            f"use --option {option}"
        )


def sizes_of(variant: str) -> dict[str, int]:
    """Return K, D, P and F of a released model."""
    options = VARIANTS[variant]
    tokens = (options["input_size"] // PATCH) ** 2
    features = BACKBONES[options["encoder"]]["dim"]
    return {"K": options["slots"], "D": options["slot_dim"], "P": tokens, "F": features}


def _option(name: str, value: int, model: Mapping[str, Tensor], patch: int) -> str:
    """Return the option of `slotcontrast.build` that sets a size, as NAME=VALUE."""
    if name == "P":
        return f"input_size={round(value**0.5) * patch}"
    if name == "F":
        encoder = next((key for key, shape in BACKBONES.items() if shape["dim"] == value), None)
        return f"encoder={encoder}" if encoder and "encoder.vit.cls_token" in model else f"dim={value}"
    return f"{ {'K': 'slots', 'D': 'slot_dim'}[name] }={value}"
