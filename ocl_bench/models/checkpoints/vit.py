"""Checkpoints of DINO, iBOT, DINOv2 and ODIS, and those of transformers' models, under the names used here.

Our names are the official ones: `teacher.backbone.cls_token`, `teacher.head.mlp.0.weight`, and the same of `student`.
What differs between files is which of the two networks and their heads they hold, and what is put before the names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core.errors import UsageError
from .export import read_content
from .names import rename_keys

NETWORKS = ("student", "teacher")
LOSSES = ("dino_loss", "ibot_loss")
"""Parts of a checkpoint of a training, besides optimiser, scaler, epoch and arguments, which are left out."""

HEAD_NAMES = (
    (r"parametrizations\.weight\.original0$", "weight_g"),
    (r"parametrizations\.weight\.original1$", "weight_v"),
)
"""Weight norm in new versions of torch -> its names in the official files."""

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
"""Names of `ViTModel`, `Dinov2Model` and `Dinov2WithRegistersModel`, versions 4 and 5, whose blocks are called so."""


def read_networks(path: Path) -> dict[str, Tensor]:
    """Tensors of a checkpoint file: of a bare state dict, of `state_dict`, or of the parts of a training.

    The parts `student`, `teacher` and those of the losses keep their names as prefixes. Raises UsageError for what is
    no checkpoint and for files whose loading would run code; the arguments of the official trainings are let through.
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


def translate(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a checkpoint under the names of a model, `own`, whose tensors fill in what the file cannot have.

    Tensors of our own checkpoints are returned unchanged. A file with both networks has to have all of both, heads
    included; centres may be missing. A file with one network serves for both; one with a bare backbone leaves the heads
    as they are. Hidden patches' vector may be missing or superfluous. All else that is missing or left over is refused
    by `checkpoints.load_weights`. Raises UsageError.
    """
    if any(name.startswith("centre_") for name in state):
        return state
    if not any(name.startswith(tuple(f"{network}." for network in NETWORKS)) for name in state):
        backbone = bare_backbone(state)
        state = {f"{network}.backbone.{name}": value for network in NETWORKS for name, value in backbone.items()}
        heads = {name: value for name, value in own.items() if ".head." in name}
    else:
        state, heads = _training(state, own), {}
    state.pop("teacher.backbone.masked_embed", None)
    if "student.backbone.masked_embed" not in own:
        state.pop("student.backbone.masked_embed", None)
    optional = {name: value for name, value in own.items() if name.startswith("centre_") or "masked_embed" in name}
    return {**optional, **heads, **state}


def bare_backbone(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of one vision transformer, with timm's names, whatever was before them.

    state: names of DINO, iBOT, DINOv2 and timm, or of transformers. Raises UsageError if there is no class token.
    """
    marks = [name for name in state if re.search(r"(^|\.)cls_token$", name)]
    if len(marks) != 1:
        found = f"{len(marks)} tensors 'cls_token'" if marks else "no tensor 'cls_token'"
        raise UsageError(f"{found}; expected the backbone of one vision transformer, or `student` and `teacher`")
    prefix = marks[0].removesuffix("cls_token").removesuffix("embeddings.")
    state = {name.removeprefix(prefix): value for name, value in state.items()}
    if "embeddings.cls_token" in state:
        return from_transformers(state)
    names = {"mask_token": "masked_embed", "register_tokens": "reg_token"}
    return {names.get(name, name): value for name, value in state.items()}


def from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of transformers' `ViTModel` or `Dinov2Model`, versions 4 and 5, under timm's names.

    Query, key and value become one matrix. Raises UsageError naming a tensor that has no counterpart.
    """
    blocks = re.compile(r"^(?:encoder\.layers?|layers?)\.(\d+)\.")
    renamed = rename_keys({blocks.sub(r"blocks.\1.", name): value for name, value in state.items()}, TRANSFORMERS_NAMES)
    merged: dict[str, Tensor] = {}
    for name, value in renamed.items():
        found = re.match(r"(blocks\.\d+\.attn)\.([012])\.(weight|bias)$", name)
        if found is None:
            merged[name] = value
        elif found[2] == "0":
            others = [f"{found[1]}.{number}.{found[3]}" for number in range(3)]
            absent = next((other for other in others if other not in renamed), None)
            if absent is not None:
                raise UsageError(f"query, key or value of {found[1]} is missing; is it a whole model of transformers?")
            merged[f"{found[1]}.qkv.{found[3]}"] = torch.cat([renamed[other] for other in others])
    return merged


def _training(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a checkpoint of a training, with prefixes `student.`, `teacher.`, `dino_loss.`, `ibot_loss.`."""
    result: dict[str, Tensor] = {}
    networks: dict[str, dict[str, Tensor]] = {name: {} for name in NETWORKS}
    for name, value in state.items():
        part, rest = name.split(".", 1)
        if part in networks:
            networks[part][rest.removeprefix("module.")] = value
        elif part in LOSSES:
            result |= _centre(name, rest, value, own)
        else:
            result[name] = value
    for network, other in (NETWORKS, NETWORKS[::-1]):
        for name, value in _head_names(networks[network] or networks[other], own).items():
            result[f"{network}.{name}"] = value
    return result


def _centre(name: str, rest: str, value: Tensor, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The centre of a loss under the name that the model has for it: [CLS] may be our [OBJ]."""
    kinds = {"center": ("centre_image", "centre_object"), "center2": ("centre_patch",)}.get(rest)
    if kinds is None:
        raise UsageError(f"tensor '{name}' {tuple(value.shape)} has no counterpart in this model")
    known = next((kind for kind in kinds if kind in own), None)
    if known is None:
        raise UsageError(f"tensor '{name}' is of a loss that is off in this model; check its options `.._weight`")
    return {known: value.view(1, -1)}


def _head_names(network: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names of one network's tensors. iBOT's `last_layer2` is that of the patches, an alias where it is shared."""
    result: dict[str, Tensor] = {}
    for name, value in network.items():
        for pattern, new in HEAD_NAMES:
            name = re.sub(pattern, new, name)
        result[name] = value
    for kind in ("weight_g", "weight_v"):
        second = result.pop(f"head.last_layer2.{kind}", None)
        first = result.get(f"head.last_layer.{kind}")
        if second is not None and f"teacher.head.last_layer_patch.{kind}" in own:
            result[f"head.last_layer_patch.{kind}"] = second
        elif second is not None and (first is None or not torch.equal(first, second)):
            raise UsageError("patches have a last layer of their own in this file; use --option shared_head=false")
    theirs, ours = (one.get(name) for one, name in ((result, _PROTOTYPES), (own, f"teacher.{_PROTOTYPES}")))
    if theirs is not None and ours is not None and len(theirs) != len(ours):
        raise UsageError(
            f"K differs: the checkpoint has {len(theirs)} prototypes, the model {len(ours)}; "
            f"use --option out_dim={len(theirs)}"
        )
    return result


_PROTOTYPES = "head.last_layer.weight_v"
