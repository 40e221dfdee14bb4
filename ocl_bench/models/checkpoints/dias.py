"""Names in the checkpoints of the official code of DIAS (Genera1Z/DIAS, commit cc1d545)."""

from __future__ import annotations

OFFICIAL_NAMES = (
    (r"m\.encode_backbone\.1\.", "encoder.vit."),
    (r"m\.encode_project\.", "project."),
    (r"m\.initializ\.logstd$", "initialisation.log_std"),
    (r"m\.initializ\.", "initialisation."),
    (r"m\.aggregat\.norm1q\.", "aggregation.norm_queries."),
    (r"m\.aggregat\.norm1kv\.", "aggregation.norm_inputs."),
    (r"m\.aggregat\.norm2\.", "aggregation.norm_update."),
    (r"m\.aggregat\.proj_q\.", "aggregation.to_queries."),
    (r"m\.aggregat\.proj_k\.", "aggregation.to_keys."),
    (r"m\.aggregat\.proj_v\.", "aggregation.to_values."),
    (r"m\.aggregat\.rnn\.", "aggregation.gru."),
    (r"m\.aggregat\.ffn\.", "aggregation.mlp."),
    (r"m\.decode\.mask_token$", "decoder.mask_token"),
    (r"m\.decode\.posit_embed\._pe$", "decoder.positions"),
    (r"m\.decode\.project1\.", "decoder.embed_tokens."),
    (r"m\.decode\.project2\.", "decoder.embed_slots."),
    (r"m\.decode\.norm0\.", "decoder.norm_in."),
    (r"m\.decode\.backbone\.layers\.(\d+)\.self_attn\.", r"decoder.layers.\1.self_attention."),
    (r"m\.decode\.backbone\.layers\.(\d+)\.multihead_attn\.", r"decoder.layers.\1.cross_attention."),
    (r"m\.decode\.backbone\.layers\.(\d+)\.linear1\.", r"decoder.layers.\1.mlp.0."),
    (r"m\.decode\.backbone\.layers\.(\d+)\.linear2\.", r"decoder.layers.\1.mlp.2."),
    (r"m\.decode\.backbone\.layers\.(\d+)\.norm1\.", r"decoder.layers.\1.norm_self."),
    (r"m\.decode\.backbone\.layers\.(\d+)\.norm2\.", r"decoder.layers.\1.norm_cross."),
    (r"m\.decode\.backbone\.layers\.(\d+)\.norm3\.", r"decoder.layers.\1.norm_mlp."),
)
"""Names in official checkpoints -> names here; each pattern matches from a key's start.

Layer 0 has no `norm1`: the official code takes it out of the layer as `norm0` (see `layers.decoders`).
"""
