"""Translation of checkpoints of DINO, iBOT, DINOv2, ODIS and Hugging Face's transformers to the names used here.

Our names are the official ones: `teacher.backbone.cls_token`, `teacher.head.mlp.0.weight`, and the same for `student`.
Files differ in which of the two networks and heads they hold, and in the prefix of the names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core.errors import UsageError
from .names import read_content, rename_keys

NETWORKS = ("student", "teacher")
LOSSES = ("dino_loss", "ibot_loss")
"""Parts of a training's checkpoint that are read; optimiser, scaler, epoch and arguments are not."""

HEAD_NAMES = (
    (r"parametrizations\.weight\.original0$", "weight_g"),
    (r"parametrizations\.weight\.original1$", "weight_v"),
)
"""Names of weight norm in new versions of torch -> its names in the official files."""

TRANSFORMERS_NAMES = (
    (r"embeddings\.cls_token$", "cls_token"),
    (r"embeddings\.mask_token$", "masked_embed"),
    (r"embeddings\.register_tokens$", "reg_token"),
    (r"embeddings\.position_embeddings$", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"layernorm\.", "norm."),
    (r"blocks\.(\d+)\.(?:layernorm_before|norm1)\.", r"blocks.\1.norm1."),
    (r"blocks\.(\d+)\.(?:layernorm_after|norm2)\.", r"blocks.\1.norm2."),
    (r"blocks\.(\d+)\.attention\.(?:attention\.query|q_proj)\.", r"blocks.\1.attn.0."),
    (r"blocks\.(\d+)\.attention\.(?:attention\.key|k_proj)\.", r"blocks.\1.attn.1."),
    (r"blocks\.(\d+)\.attention\.(?:attention\.value|v_proj)\.", r"blocks.\1.attn.2."),
    (r"blocks\.(\d+)\.attention\.(?:output\.dense|o_proj)\.", r"blocks.\1.attn.proj."),
    (r"blocks\.(\d+)\.(?:intermediate\.dense|mlp\.fc1)\.", r"blocks.\1.mlp.fc1."),
    (r"blocks\.(\d+)\.(?:output\.dense|mlp\.fc2)\.", r"blocks.\1.mlp.fc2."),
    (r"blocks\.(\d+)\.layer_scale([12])\.lambda1$", r"blocks.\1.ls\2.gamma"),
)
"""Names of transformers' `ViTModel`, `Dinov2Model` and `Dinov2WithRegistersModel` (versions 4 and 5) -> timm's.

The number of the block has been moved to `blocks.N.` before; see `from_transformers`.
"""


def read_networks(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint file: a bare state dict, its `state_dict`, or the parts of a training.

    The parts `student`, `teacher` and those of the losses become prefixes of the names. UsageError as in
    `names.read_content`.
    """
    content = read_content(path)
    parts = [name for name in (*NETWORKS, *LOSSES) if isinstance(content.get(name), Mapping)]
    if not parts:
        inner: Mapping[Any, Any] = next(
            (content[name] for name in ("state_dict", "model") if isinstance(content.get(name), Mapping)), content
        )
        return {str(name): value for name, value in inner.items() if isinstance(value, Tensor)}
    return {
        f"{part}.{name}": value for part in parts for name, value in content[part].items() if isinstance(value, Tensor)
    }


def translate(state: dict[str, Tensor], model: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a checkpoint to the names of a model.

    A file with both networks must hold all of both, heads included; its centres may be missing. A file with one network
    serves for both. A file with a bare backbone leaves the heads as they are.

    Args:
        state: tensors of the file; a checkpoint with our names is returned unchanged.
        model: tensors of the model. They fill in what the file cannot hold: heads, centres, `masked_embed`.

    Raises:
        UsageError: the file is not a checkpoint of such a model. Tensors that are still missing or superfluous
            afterwards are refused by `names.load_weights`.
    """
    if any(name.startswith("centre_") for name in state):
        return state
    if not any(name.startswith(tuple(f"{network}." for network in NETWORKS)) for name in state):
        backbone = bare_backbone(state)
        state = {f"{network}.backbone.{name}": value for network in NETWORKS for name, value in backbone.items()}
        heads = {name: value for name, value in model.items() if ".head." in name}
    else:
        state, heads = _training(state, model), {}
    # The teacher sees every patch and has no vector for hidden ones; iBOT's file may hold it.
    state.pop("teacher.backbone.masked_embed", None)
    if "student.backbone.masked_embed" not in model:
        state.pop("student.backbone.masked_embed", None)
    optional = {name: value for name, value in model.items() if name.startswith("centre_") or "masked_embed" in name}
    return {**optional, **heads, **state}


def bare_backbone(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of one vision transformer under timm's names, without any prefix.

    Args:
        state: names of DINO, iBOT, DINOv2, timm or transformers, with any prefix.

    Raises:
        UsageError: there is not exactly one class token.
    """
    class_tokens = [name for name in state if re.search(r"(^|\.)cls_token$", name)]
    if len(class_tokens) != 1:
        number = f"{len(class_tokens)} tensors" if class_tokens else "no tensor"
        raise UsageError(
            f"{number} 'cls_token'; expected the backbone of one vision transformer, or `student` and `teacher`"
        )
    prefix = class_tokens[0].removesuffix("cls_token").removesuffix("embeddings.")
    state = {name.removeprefix(prefix): value for name, value in state.items()}
    if "embeddings.cls_token" in state:
        return from_transformers(state)
    names = {"mask_token": "masked_embed", "register_tokens": "reg_token"}
    return {names.get(name, name): value for name, value in state.items()}


def from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of transformers' `ViTModel` or `Dinov2Model`, versions 4 and 5, to timm's names.

    Query, key and value become one matrix. UsageError for a tensor without a counterpart.
    """
    blocks = re.compile(r"^(?:encoder\.layers?|layers?)\.(\d+)\.")
    renamed = rename_keys({blocks.sub(r"blocks.\1.", name): value for name, value in state.items()}, TRANSFORMERS_NAMES)
    merged: dict[str, Tensor] = {}
    for name, value in renamed.items():
        match = re.match(r"(blocks\.\d+\.attn)\.([012])\.(weight|bias)$", name)
        if match is None:
            merged[name] = value
        elif match[2] == "0":  # the query brings key and value along
            parts = [f"{match[1]}.{number}.{match[3]}" for number in range(3)]
            if any(part not in renamed for part in parts):
                raise UsageError(f"query, key or value of {match[1]} is missing; is it a whole model of transformers?")
            merged[f"{match[1]}.qkv.{match[3]}"] = torch.cat([renamed[part] for part in parts])
    return merged


def _training(state: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a training's checkpoint, whose names start with the parts `NETWORKS` and `LOSSES`."""
    result: dict[str, Tensor] = {}
    networks: dict[str, dict[str, Tensor]] = {name: {} for name in NETWORKS}
    for name, value in state.items():
        part, rest = name.split(".", 1)
        if part in networks:
            networks[part][rest.removeprefix("module.")] = value
        elif part in LOSSES:
            result |= _centre(name, rest, value, model)
        else:
            result[name] = value
    for network, other in (NETWORKS, NETWORKS[::-1]):
        # A file with one network serves for both.
        for name, value in _head_names(networks[network] or networks[other], model).items():
            result[f"{network}.{name}"] = value
    return result


def _centre(name: str, rest: str, value: Tensor, model: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the centre of a loss."""
    # DINO's and iBOT's [CLS] has the parameters of our [OBJ], so its centre may be that of either.
    kinds = {"center": ("centre_image", "centre_object"), "center2": ("centre_patch",)}.get(rest)
    if kinds is None:
        raise UsageError(f"tensor '{name}' {tuple(value.shape)} has no counterpart in this model")
    centre = next((kind for kind in kinds if kind in model), None)
    if centre is None:
        raise UsageError(f"tensor '{name}' is of a loss that is off in this model; check its options `.._weight`")
    return {centre: value.view(1, -1)}


def _head_names(network: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename one network's head; UsageError if its last layers or their K differ from the model's."""
    result: dict[str, Tensor] = {}
    for name, value in network.items():
        for pattern, new in HEAD_NAMES:
            name = re.sub(pattern, new, name)
        result[name] = value
    # iBOT's `last_layer2` is the last layer of the patches; in a shared head it is a second name of the first layer.
    for kind in ("weight_g", "weight_v"):
        second = result.pop(f"head.last_layer2.{kind}", None)
        first = result.get(f"head.last_layer.{kind}")
        if second is not None and f"teacher.head.last_layer_patch.{kind}" in model:
            result[f"head.last_layer_patch.{kind}"] = second
        elif second is not None and (first is None or not torch.equal(first, second)):
            raise UsageError("patches have a last layer of their own in this file; use --option shared_head=false")
    prototypes = "head.last_layer.weight_v"
    rows, model_rows = result.get(prototypes), model.get(f"teacher.{prototypes}")
    if rows is not None and model_rows is not None and len(rows) != len(model_rows):
        raise UsageError(
            f"K differs: the checkpoint has {len(rows)} prototypes, the model {len(model_rows)}; "
            f"use --option out_dim={len(rows)}"
        )
    return result
