"""Stored inputs and outputs of official codes, compared with ours in both precisions."""

from __future__ import annotations

import pytest
import torch
from places import PARITY
from safetensors.torch import load_file
from torch import Tensor

# Tolerances of the cases (manifest of the parity set): outputs were computed by the official code in float64.
FLOAT32_ATOL = {
    "dias_normalshared": 2.6e-6,
    "dias_slot_attention": 1.5e-5,
    "dias_decoder": 1.8e-5,
    "dias_losses": 1.5e-6,
    "dias_full_model": 4.4e-5,
    "slotcon_grouping": 4.9e-5,
    "slotcon_invaug": 8.8e-6,
    "slotcon_group_loss": 1.4e-6,
    "slotcon_slot_loss": 1.3e-6,
    "slotcon_full_model": 9.9e-6,
    "slotcon_lars": 3.1e-6,
    "slotcontrast_initializers": 2.2e-6,
    "slotcontrast_slot_attention": 8.8e-5,
    "slotcontrast_predictor": 9.5e-5,
    "slotcontrast_decoder": 3.8e-6,
    "slotcontrast_losses": 1.1e-6,
    "slotcontrast_latent_processor": 3.9e-5,
    "slotcontrast_full_model": 2.6e-5,
    "ftdinosaur_slot_attention": 2e-5,
    "ftdinosaur_decoder_top_k": 1.7e-5,
    "ftdinosaur_full_model": 5.3e-5,
    "slotcurri_cyclic": 1.7e-5,
    "smoothsa_initializer": 1.2e-3,
    "smoothsa_full_model": 5.3e-4,
    "smoothsa_video_eval": 3.1e-5,
    "videosaur_decoder": 4.1e-5,
    "videosaur_latent_processor": 1.1e-4,
    "videosaur_latent_processor_mlp": 6.2e-5,
    "videosaur_losses": 6.1e-6,
    "videosaur_full_model": 5e-5,
    "spot_model": 2.5e-5,
    "spot_slot_attention_gaussian": 1.6e-5,
    "dino_vit": 3e-5,
    "dino_head": 8.6e-6,
    "dino_loss": 1.3e-5,
    "ibot_vit": 1.6e-5,
    "ibot_head_shared": 2.4e-5,
    "ibot_head_separate": 2e-5,
    "ibot_loss": 2.1e-6,
    "slotformer_rollouter": 2.8e-4,
    "slotformer_losses": 3.4e-5,
    "savi_decode": 8.4e-6,
    "aloe_head": 3e-5,
    "physion_readout": 1.5e-5,
}
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


class Case:
    """One parity file: its inputs in the wanted dtype, and comparisons with its tolerance."""

    def __init__(self, name: str, dtype: torch.dtype) -> None:
        self.name, self.dtype = name, dtype
        self.tensors = load_file(PARITY / f"{name}.safetensors")
        self.unchecked = {key for key in self.tensors if key.startswith(("out.", "grad."))}

    def __getitem__(self, key: str) -> Tensor:
        value = self.tensors[key]
        return value.to(self.dtype) if value.is_floating_point() else value

    def trainable(self, key: str) -> Tensor:
        return self[key].clone().requires_grad_()

    @property
    def weights(self) -> dict[str, Tensor]:
        return {key.removeprefix("weights."): self[key] for key in self.tensors if key.startswith("weights.")}

    def check(self, key: str, value: Tensor | None) -> None:
        assert value is not None, key
        expected = self.tensors[key]
        self.unchecked.discard(key)
        if not expected.is_floating_point():
            assert torch.equal(value, expected), key
            return
        exact = self.dtype == torch.float64
        rtol, atol = (1e-9, 1e-11) if exact else (1e-4, FLOAT32_ATOL[self.name])
        torch.testing.assert_close(value.detach().double(), expected.reshape(value.shape), rtol=rtol, atol=atol)

    def all_checked(self) -> None:
        """Nothing that the official code gave was left out."""
        assert not self.unchecked
