"""References of contacts and reasoning whose slots are the true states of objects.

After the cut of a video these are moved on at constant velocity, or the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.errors import NotApplicableError
from ..core.types import Batch, Prediction, Truth
from ..data.clevrer.facts import COLOURS, KINDS, MATERIALS, SHAPES

FAR = 4.0
"""Largest distance that a slot knows, in units of the data; a contact is far below it."""


class States:
    """Slot k is the state of object k: place on the ground, distance to the next object, and whether it is in view.

    The distance is there because a readout of two linear layers cannot compute it. Where questions are asked, the state
    also says of which colour, material and shape the object is.
    """

    needs_truth = True
    reads_video = True

    def predict(self, batch: Batch, truth: Sequence[Truth]) -> Prediction:
        """Label maps (1, T, H, W) and slots (1, T, K, 4), or (1, T, K, 17), of the frames of a video.

        Raises NotApplicableError for data that do not say where objects are.
        """
        if any(frame.locations is None for frame in truth):
            raise NotApplicableError("true states need the locations of objects, which these data do not have")
        labels = np.stack([np.maximum(frame.labels, 0) for frame in truth]).astype(np.int64)
        places = torch.from_numpy(np.stack([cast(np.ndarray, frame.locations) for frame in truth]))
        ground = torch.full((len(places), 1, 2), torch.nan, dtype=places.dtype)  # slot 0 shows no object
        slots = _states(torch.cat([ground, places], dim=1).float())
        if truth[0].questions:
            slots = torch.cat([slots, _kinds(truth[0].categories).expand(len(slots), -1, -1)], dim=2)
        return Prediction(masks=torch.from_numpy(labels)[None], mask_source="truth", slots=slots[None])


def _states(places: Tensor) -> Tensor:
    """Places (T, K, 2), NaN out of view -> states (T, K, 4)."""
    apart = torch.cdist(places, places).nan_to_num(FAR)
    apart.diagonal(dim1=1, dim2=2).fill_(FAR)
    near = apart.amin(dim=2, keepdim=True).clamp_max(FAR)
    return torch.cat([places.nan_to_num(0.0), near, places[..., :1].isfinite().float()], dim=2)


def _kinds(categories: Sequence[int]) -> Tensor:
    """Colour, material and shape (1 + G, 13) of G objects, each as one number of 1 among zeros; slot 0 has none."""
    kinds = [KINDS[number] for number in categories]
    parts = [
        torch.tensor([names.index(getattr(kind, part)) for kind in kinds], dtype=torch.int64)
        for part, names in (("color", COLOURS), ("material", MATERIALS), ("shape", SHAPES))
    ]
    sizes = (len(COLOURS), len(MATERIALS), len(SHAPES))
    coded = torch.cat([F.one_hot(part, size) for part, size in zip(parts, sizes, strict=True)], dim=1)
    return F.pad(coded.float(), (0, 0, 1, 0))


class ConstantVelocity(States):
    """Every object that is in view in the last two frames goes on as it moved between them."""

    def predict_slots(self, slots: Tensor, steps: int) -> Tensor:
        """States (1, steps, K, 4) after those of seen frames (1, T, K, 4)."""
        before, last = slots[0, -2], slots[0, -1]
        moves = (before[:, 3:] > 0) & (last[:, 3:] > 0)
        velocity = torch.where(moves, last[:, :2] - before[:, :2], 0.0)
        step = torch.arange(1, steps + 1, device=slots.device)[:, None, None]
        places = torch.where(last[:, 3:] > 0, last[:, :2] + step * velocity, torch.nan)
        return _states(places)[None]


class TrueStates(States):
    """The states of the real future."""

    needs_future = True

    def predict_slots(self, slots: Tensor, steps: int, *, future: Tensor) -> Tensor:
        """The states (1, steps, K, 4) of the future frames."""
        del slots, steps
        return future


def build_constant_velocity() -> ConstantVelocity:
    """Build the reference `constant-velocity`."""
    return ConstantVelocity()


def build_true_states() -> TrueStates:
    """Build the ceiling `true-states`."""
    return TrueStates()
