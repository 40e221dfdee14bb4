"""Official checkpoints of SPOT (gkakogeorgiou/spot, commit 13c5926): names of tensors, and what is left out of them."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ...core.errors import UsageError
from .names import rename_keys
from .sizes import Size

OFFICIAL_NAMES = (
    (r"encoder\.", "encoder.vit."),
    (r"second_encoder\.", "second_encoder.vit."),
    (r"slot_attn\.layer_norm\.", "project.0."),
    (r"slot_attn\.mlp\.0\.", "project.1."),
    (r"slot_attn\.mlp\.2\.", "project.3."),
    (r"slot_attn\.slots_init\.weight$", "initialisation.mean"),
    (r"slot_attn\.slot_mu$", "initialisation.mean"),
    (r"slot_attn\.slot_log_sigma$", "initialisation.log_std"),
    (r"slot_attn\.slot_attention\.norm_inputs\.", "aggregation.norm_inputs."),
    (r"slot_attn\.slot_attention\.norm_slots\.", "aggregation.norm_queries."),
    (r"slot_attn\.slot_attention\.norm_mlp\.", "aggregation.norm_update."),
    (r"slot_attn\.slot_attention\.project_q\.", "aggregation.to_queries."),
    (r"slot_attn\.slot_attention\.project_k\.", "aggregation.to_keys."),
    (r"slot_attn\.slot_attention\.project_v\.", "aggregation.to_values."),
    (r"slot_attn\.slot_attention\.gru\.", "aggregation.gru."),
    (r"slot_attn\.slot_attention\.mlp\.", "aggregation.mlp."),
    (r"bos_tokens$", "decoder.first"),
    (r"input_proj\.", "decoder.embed_tokens."),
    (r"slot_proj\.", "decoder.embed_slots."),
    (r"dec\.layer_norm\.", "decoder.norm_out."),
    (r"dec\.blocks\.0\.self_attn_layer_norm\.", "decoder.norm_in."),
    (r"dec\.blocks\.(\d+)\.self_attn_layer_norm\.", r"decoder.layers.\1.norm_self."),
    (r"dec\.blocks\.(\d+)\.encoder_decoder_attn_layer_norm\.", r"decoder.layers.\1.norm_cross."),
    (r"dec\.blocks\.(\d+)\.ffn_layer_norm\.", r"decoder.layers.\1.norm_mlp."),
    (r"dec\.blocks\.(\d+)\.ffn\.", r"decoder.layers.\1.mlp."),
    (r"dec\.blocks\.(\d+)\.self_attn\.proj_([qkv])\.", r"decoder.layers.\1.self_attention.\2."),
    (r"dec\.blocks\.(\d+)\.encoder_decoder_attn\.proj_([qkv])\.", r"decoder.layers.\1.cross_attention.\2."),
    (r"dec\.blocks\.(\d+)\.self_attn\.proj_o\.", r"decoder.layers.\1.self_attention.out_proj."),
    (r"dec\.blocks\.(\d+)\.encoder_decoder_attn\.proj_o\.", r"decoder.layers.\1.cross_attention.out_proj."),
)
"""Names in official checkpoints -> names here; each pattern matches from a key's start."""

SIZES = (
    Size("project.0.weight", 0, "features of a token", lambda size: "encoder=..., only dino_base_16 is released"),
    Size("initialisation.mean", -2, "slots", lambda size: f"slots={size}"),
    Size("initialisation.mean", -1, "channels of a slot", lambda size: f"slot_dim={size}"),
)

_MASK = re.compile(r"dec\.blocks\.\d+\.self_attn_mask$")


def translate_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename official tensors, and join the matrices of queries, keys and values of an attention into one.

    Each block stores its causal mask, which here is made anew: it is left out by its name if it is that mask. Older
    files have `tf_dec` for `dec`.

    Raises:
        UsageError: a tensor has no counterpart, a mask is not causal, or one of the three matrices is missing.
    """
    kept: dict[str, Tensor] = {}
    for name, value in state.items():
        name = re.sub(r"^tf_dec\.", "dec.", name)
        if _MASK.match(name):
            _check_causal(name, value)
        else:
            kept[name] = value
    renamed = rename_keys(kept, OFFICIAL_NAMES)
    joined: dict[str, Tensor] = {}
    for name, value in renamed.items():
        match = re.match(r"(.*_attention\.)([qkv])\.weight$", name)
        if match is None:
            joined[name] = value
        elif match[2] == "q":  # the query brings key and value along
            parts = [f"{match[1]}{part}.weight" for part in "qkv"]
            if missing := [part for part in parts if part not in renamed]:
                raise UsageError(f"misses tensor '{missing[0]}' of an attention; is it a checkpoint of this model?")
            joined[f"{match[1]}in_proj_weight"] = torch.cat([renamed[part] for part in parts])
    mean = joined.get("initialisation.mean")
    if mean is not None and mean.ndim == 2:  # an embedding of the slots' numbers
        joined["initialisation.mean"] = mean.unsqueeze(0)
    return joined


def _check_causal(name: str, mask: Tensor) -> None:
    """Raise UsageError if a stored mask is not that of a causal attention."""
    square = mask.ndim == 2 and mask.shape[0] == mask.shape[1] and mask.dtype == torch.bool
    if not square or not (mask.is_meta or torch.equal(mask, torch.ones_like(mask).triu(1))):
        raise UsageError(f"tensor '{name}' {tuple(mask.shape)} is not the causal mask that this model has")
