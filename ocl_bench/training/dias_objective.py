"""What the slot models learn (dias, slot-attention, dinosaur): to explain the cached tokens of a frozen encoder.

Everything random in a step (slot noise, visible tokens, the coin of the merging, mirrored images) is drawn on the CPU
from (seed, step) and handed to `model.loss`, which is a pure function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from ..core.schedules import generator, sample_indices
from ..models.dias import distillation_weight
from ..models.layers.decoders import random_visible
from .data import ChunkedArray


class SlotOptions(BaseModel):
    """Options of `train.objective` for the kind `slots`.

    encoder: card of the frozen encoder; encoder_checkpoint: its weights instead of the bundled ones. flip: half of
    the images are mirrored. distill_peak: weight of the self-distillation at the end of the training.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["slots"]
    encoder: str = "encoder"
    encoder_checkpoint: str = ""
    flip: bool = True
    distill_peak: float = Field(default=1.0, ge=0)


@dataclass
class SlotObjective:
    """Trains a slot model with `loss(features, *, noise, visible, merge_coin, distill_weight)`.

    features: cached tokens, rows (P, D) float16, of the images as they are and, where given, mirrored.
    slots, slot_dim: shape (K, C) of a sample's slot noise. merge_probability: share of the steps that merge slots.
    validator(model) returns the validation numbers.
    """

    features: ChunkedArray
    mirrored: ChunkedArray | None
    options: SlotOptions
    seed: int
    batch_size: int
    slots: int
    slot_dim: int
    merge_probability: float
    validator: Callable[[nn.Module], dict[str, float]]

    def batch(self, step: int) -> dict[str, Any]:
        """Tokens (B, P, D) float16, slot noise (B, K, C), visible (B, P) bool, and whether this step merges."""
        source = generator(self.seed, "slots", step)
        indices = sample_indices(self.seed, step, self.batch_size, len(self.features))
        flip = torch.rand(self.batch_size, generator=source) < 0.5
        features = self.features[indices]
        if self.mirrored is not None:
            features = torch.where(flip.view(-1, 1, 1), self.mirrored[indices], features)
        return {
            "features": features,
            "noise": torch.randn(self.batch_size, self.slots, self.slot_dim, generator=source),
            "visible": random_visible(self.batch_size, features.shape[1], source),
            "merge": float(torch.rand((), generator=source)) < self.merge_probability,
        }

    def loss(self, model: nn.Module, inputs: dict[str, Any], step_fraction: float) -> dict[str, Tensor]:
        """The model's own loss terms."""
        weight = self.options.distill_peak * distillation_weight(step_fraction, 1)
        return model.loss(  # type: ignore[operator]
            inputs["features"].float(),
            noise=inputs["noise"],
            visible=inputs["visible"],
            # two values only, and the weight as a tensor: a compiled model is not compiled again at every step
            merge_coin=0.0 if inputs["merge"] else 1.0,
            distill_weight=torch.tensor(weight, device=inputs["noise"].device),
        )

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Numbers on the validation split."""
        return self.validator(model)
