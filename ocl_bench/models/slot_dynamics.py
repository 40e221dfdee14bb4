"""Floors and a ceiling of visual prediction: simple dynamics on the slots of another model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..core.types import Batch, Prediction
from .clustering import OtherTokens
from .frames import video_model


class OtherSlots(OtherTokens):
    """A model that predicts the slots of another one in its own way; masks and slots of seen frames are the other's.

    Args:
        model: the other model, or its name.
    """

    reads_video = True

    def __init__(self, model: str | Any) -> None:
        super().__init__(model)
        self._follow = video_model(self.encoder)
        self.whole_video = bool(getattr(self._follow, "whole_video", False))
        if hasattr(self.encoder, "decode_slots"):
            self.decode_slots = self.encoder.decode_slots
            self.slots_decode = getattr(self.encoder, "slots_decode", "slots")

    def predict(self, batch: Batch) -> Prediction:
        """The prediction of the other model for the frames of a video."""
        prediction: Prediction = self._follow.predict(batch)
        return prediction


class CopyLast(OtherSlots):
    """Nothing moves."""

    def predict_slots(self, slots: Tensor, steps: int) -> Tensor:
        """The last of the slots (B, T, K, D), repeated (B, steps, K, D)."""
        return slots[:, -1:].expand(-1, steps, -1, -1)


class Linear(OtherSlots):
    """Every slot goes on as from the last frame but one to the last."""

    def predict_slots(self, slots: Tensor, steps: int) -> Tensor:
        """Slots (B, steps, K, D) on a line, kept within the range of each channel in the slots (B, T, K, D)."""
        last = slots[:, -1:]
        step = torch.arange(1, steps + 1, device=slots.device)[None, :, None, None]
        flat = slots.flatten(1, 2)
        low, high = (extreme[:, None, None] for extreme in (flat.amin(1), flat.amax(1)))
        return torch.minimum(torch.maximum(last + step * (last - slots[:, -2:-1]), low), high)


class Permuted(OtherSlots):
    """The fitted rollouter, whose past has the slots of each frame in another order: nobody is who he was."""

    needs_rollouter = True

    def predict_slots(self, slots: Tensor, steps: int, *, rollout: Any) -> Tensor:
        """What the rollouter makes of the shuffled slots (1, T, K, D): (1, steps, K, D)."""
        generator = torch.Generator().manual_seed(0)
        order = torch.stack([torch.randperm(slots.shape[2], generator=generator) for _ in range(slots.shape[1])])
        frames = torch.arange(slots.shape[1])[:, None]
        return rollout(slots[0, frames, order], steps)[None]


class TrueSlots(OtherSlots):
    """The slots that the model gets from the real future frames."""

    needs_future = True

    def predict_slots(self, slots: Tensor, steps: int, *, future: Tensor) -> Tensor:
        """The slots (B, steps, K, D) of the future frames."""
        del slots, steps
        return future


def build_copy_last(model: str = "slotcontrast") -> CopyLast:
    """Build the floor `copy-last`."""
    return CopyLast(model)


def build_linear(model: str = "slotcontrast") -> Linear:
    """Build the floor `linear`."""
    return Linear(model)


def build_permuted(model: str = "slotcontrast") -> Permuted:
    """Build the floor `permuted`."""
    return Permuted(model)


def build_true_slots(model: str = "slotcontrast") -> TrueSlots:
    """Build the ceiling `true-slots`."""
    return TrueSlots(model)
