"""The objective of the slot models (dias, slot-attention, dinosaur): reconstruct the cached tokens of a frozen encoder.

All random choices of a step (slot noise, visible tokens, whether slots merge, mirrored images) are drawn on the CPU
from (seed, step). They are passed to `model.loss`, which is a pure function.
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
from ..models.layers.smooth_initialisation import DETACHED_SHARE
from .clips import FrameFeatures
from .data import ChunkedArray
from .validation import ValidatedObjective


class SlotOptions(BaseModel):
    """Options of `train.objective` for the kind `slots`.

    Attributes:
        encoder: Card of the frozen encoder.
        encoder_checkpoint: File with its weights, instead of the bundled ones.
        flip: Mirror half of the images.
        distill_peak: Weight of the self-distillation at the end of the training.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["slots"]
    encoder: str = "encoder"
    encoder_checkpoint: str = ""
    flip: bool = True
    distill_peak: float = Field(default=1.0, ge=0)


@dataclass
class SlotObjective(ValidatedObjective):
    """Trains a slot model with `loss(features, *, noise, visible, merge_coin, distill_weight)`.

    A model with smooth initial slots gets `query_noise` and `detached` as well.

    Attributes:
        features: Cached tokens of the images, rows (P, D) float16.
        mirrored: Cached tokens of the mirrored images; None trains without mirroring.
        options: Options of the recipe.
        seed: Seed of the training.
        batch_size: Images per step, all ranks together.
        slots: Number of slots K.
        slot_dim: Length C of a slot.
        merge_probability: Share of the steps that merge slots.
        smooth: Whether the initial slots are smooth (`layers.smooth_initialisation`).
        validator: Returns the validation numbers of a model.
    """

    features: ChunkedArray | FrameFeatures
    mirrored: ChunkedArray | FrameFeatures | None
    options: SlotOptions
    seed: int
    batch_size: int
    slots: int
    slot_dim: int
    merge_probability: float
    validator: Callable[[nn.Module], dict[str, float]]
    smooth: bool = False

    def batch(self, step: int) -> dict[str, Any]:
        """Tokens (B, P, D) float16, slot noise (B, K, C), visible tokens (B, P) bool, and whether this step merges."""
        source = generator(self.seed, "slots", step)
        # The order of the draws below is part of the random stream: another order would be another training.
        indices = sample_indices(self.seed, step, self.batch_size, len(self.features))
        flip = torch.rand(self.batch_size, generator=source) < 0.5
        features = self.features[indices]
        if self.mirrored is not None:
            features = torch.where(flip.view(-1, 1, 1), self.mirrored[indices], features)
        shape = (self.batch_size, self.slots, self.slot_dim)
        inputs = {
            "features": features,
            "noise": torch.randn(shape, generator=source),
            "visible": random_visible(self.batch_size, features.shape[1], source),
            "merge": float(torch.rand((), generator=source)) < self.merge_probability,
        }
        return inputs | ({"query_noise": torch.randn(shape, generator=source)} if self.smooth else {})

    def loss(self, model: nn.Module, inputs: dict[str, Any], step_fraction: float) -> dict[str, Tensor]:
        """Loss terms of the model. The weight of the distillation grows with `step_fraction`."""
        weight = self.options.distill_peak * distillation_weight(step_fraction, 1)
        smooth: dict[str, Any] = {}
        if self.smooth:
            smooth = {"query_noise": inputs["query_noise"], "detached": step_fraction < DETACHED_SHARE}
        return model.loss(  # type: ignore[operator]
            inputs["features"].float(),
            noise=inputs["noise"],
            visible=inputs["visible"],
            # torch.compile compiles again for each new Python number: the coin has two values only, and the weight,
            # which changes at every step, is a tensor.
            merge_coin=0.0 if inputs["merge"] else 1.0,
            distill_weight=torch.tensor(weight, device=inputs["noise"].device),
            **smooth,
        )
