"""SlotFormer (Wu et al., ICLR 2023, arXiv:2210.05861): prediction of slots, with the official sizes and checkpoints.

Official files (pairlab/SlotFormer, commit 10a6d9b) hold the rollouter and the frozen decoder of the model whose slots
it predicts: SAVi's for OBJ3D and CLEVRER, STEVE's for Physion.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .checkpoints.export import read_checkpoint
from .checkpoints.names import rename_keys
from .layers.pixel_decoder import PixelDecoder
from .layers.rollouter import SlotRollouter
from .options import check_choice

SIZES: dict[str, dict[str, int]] = {
    "obj3d": {"slot_dim": 128, "history": 6, "dim": 128, "layers": 4, "heads": 8, "hidden": 512},
    "clevrer": {"slot_dim": 128, "history": 6, "dim": 256, "layers": 4, "heads": 8, "hidden": 1024},
    "physion": {"slot_dim": 192, "history": 15, "dim": 256, "layers": 8, "heads": 8, "hidden": 1024},
    "embedded": {"slot_dim": 64, "history": 6, "dim": 64, "layers": 2, "heads": 4, "hidden": 256},
}
"""Sizes of the rollouter: the three official ones, and a small one for the embedded videos."""

ROLLOUTER_NAMES = (
    (r"rollouter\.enc_t_pe$", "rollouter.time_encoding"),
    (r"rollouter\.in_proj\.", "rollouter.project_in."),
    (r"rollouter\.transformer_encoder\.", "rollouter.transformer."),
    (r"rollouter\.out_proj\.", "rollouter.project_out."),
)
"""Names in official checkpoints -> names here; each pattern matches from a key's start."""

_STEVE = ("dvae.", "decoder.")
"""What names of STEVE's frozen decoder begin with in the file for Physion. No prediction of slots needs it."""


def decoder_names(layers: int) -> tuple[tuple[str, str], ...]:
    """Names of SAVi's decoder with this number of transposed convolutions."""
    return (
        (r"decoder_pos_embedding\.grid$", "decoder.grid"),
        (r"decoder_pos_embedding\.dense\.", "decoder.positions."),
        (rf"decoder\.{layers}\.", "decoder.last."),
        (r"decoder\.(\d+)\.0\.", r"decoder.layers.\1."),
    )


class SlotFormer(nn.Module):
    """A rollouter, and the frozen decoder of its slots if they have one.

    Args:
        rollouter: predicts the slots.
        decoder: gives pictures and masks of slots; None for slots that only their own model decodes.
    """

    def __init__(self, rollouter: SlotRollouter, decoder: PixelDecoder | None = None) -> None:
        super().__init__()
        self.rollouter, self.decoder = rollouter, decoder
        if decoder is not None:
            decoder.requires_grad_(False)

    def forward(self, slots: Tensor, steps: int) -> Tensor:
        """Slots (B, T, K, C) of past frames -> the next (B, steps, K, C)."""
        return self.rollouter(slots, steps)

    def losses(self, slots: Tensor, pictures: Tensor | None = None) -> dict[str, Tensor]:
        """Mean squared errors of the frames after the history; the official loss is their sum.

        Args:
            slots: (B, history + L, K, C).
            pictures: (B, L, 3, S, S) in [-1, 1] of the predicted frames; None without the loss of the pictures.
        """
        history = self.rollouter.history
        predicted = self.rollouter(slots[:, :history], slots.shape[1] - history)
        losses = {"slot": F.mse_loss(predicted, slots[:, history:])}
        if self.decoder is not None and pictures is not None:
            losses["image"] = F.mse_loss(self.decoder(predicted.flatten(0, 1))[0], pictures.flatten(0, 1))
        return losses

    def read_checkpoint(self, path: Path) -> dict[str, Tensor]:
        """Read the tensors of a file, or of its `state_dict`; no code in it is run."""
        return read_checkpoint(path)

    def translate_checkpoint(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename the tensors of an official checkpoint; one with our names is returned unchanged.

        Raises UsageError for a tensor that this model does not have.
        """
        if "rollouter.time_encoding" in state:
            return dict(state)
        if self.decoder is None:
            state = {name: value for name, value in state.items() if not name.startswith(_STEVE)}
            return rename_keys(state, ROLLOUTER_NAMES)
        return rename_keys(state, (*ROLLOUTER_NAMES, *decoder_names(len(self.decoder.layers))))


def build(*, size: str = "clevrer", **changes: Any) -> SlotFormer:
    """Build SlotFormer at one of `SIZES`, with SAVi's decoder for OBJ3D and CLEVRER.

    Args:
        size: a key of `SIZES`.
        changes: values that replace those of the size.

    Raises:
        UsageError: the size is unknown.
    """
    check_choice("size", size, tuple(SIZES))
    sizes = SIZES[size] | changes
    decoder = PixelDecoder(sizes["slot_dim"]) if size in ("obj3d", "clevrer") else None
    return SlotFormer(SlotRollouter(sizes.pop("slot_dim"), **sizes), decoder)
