"""Names in the official checkpoints of SmoothSA and RandSF.Q, beside those of DIAS (`dias.OFFICIAL_NAMES`)."""

from __future__ import annotations

SMOOTH_NAMES = (
    (r"m\.initializ\.logstd2$", "initialisation.log_std_query"),
    (r"m\.initializ\.detach_flag$", "initialisation.detached"),
    (r"m\.initializ\.qproj_kv\.", "initialisation.memory."),
    (r"m\.initializ\.qinit\.self_attn\.", "initialisation.layer.self_attention."),
    (r"m\.initializ\.qinit\.multihead_attn\.", "initialisation.layer.cross_attention."),
    (r"m\.initializ\.qinit\.linear1\.", "initialisation.layer.mlp.0."),
    (r"m\.initializ\.qinit\.linear2\.", "initialisation.layer.mlp.2."),
    (r"m\.initializ\.qinit\.norm1\.", "initialisation.layer.norm_self."),
    (r"m\.initializ\.qinit\.norm3\.", "initialisation.layer.norm_mlp."),
)
"""The initialiser of SmoothSA. Its layer has no `norm2`: the official code takes it out."""

TRANSITION_NAMES = (
    (r"m\.transit\.te\.weight$", "transition.time"),
    (r"m\.transit\.proji\.", "transition.memory."),
    (r"m\.transit\.transit\.", "transition.layer."),
)
"""The transition of RandSF.Q; its layer is torch's, with torch's names."""
