"""The position probe: ridge regression from a slot to the place of its object on the ground."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ...core.types import Truth
from ...metrics.contingency import contingency
from ...metrics.overlap import iou
from ..base import Head

RIDGES = (1e-5, 1e-3, 1e-2, 1e-1, 1.0)
"""Candidates for the weight of the penalty, relative to the variance of a standardised slot."""
HELD_OUT = 4
"""Every fourth video is held out to choose the penalty: frames of one video are too alike to tell overfitting."""

Located = tuple[np.ndarray, np.ndarray]
"""Slots (N, D) of objects, and their places (N, 2) on the ground."""


def match_slots(labels: np.ndarray, segments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The slot of each object of a frame, or of several frames taken as one.

    Args:
        labels: (..., H, W) truth; objects are 1, 2, ...
        segments: (..., H, W) slot of each pixel.

    Returns:
        Labels (N,) of the objects that have a pixel, and their slots (N,): the one-to-one matching with the largest sum
        of IoU. The slot is -1 for an object that shares no pixel with its slot, or has none.
    """
    width = labels.shape[-1]
    counts = contingency(labels.reshape(1, -1, width), segments.reshape(1, -1, width), ignore_index=None)
    objects = np.flatnonzero(counts.objects(0)[0])
    overlap = iou(counts)[0, objects]
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    slots = np.full(len(objects), -1)
    touching = overlap[rows, columns] > 0
    slots[rows[touching]] = columns[touching]
    return objects, slots


def located_slots(slots: Tensor, segments: np.ndarray, truth: Truth) -> Located:
    """The slots of the objects of a frame that have a location, and these."""
    if truth.locations is None:
        return slots.numpy()[:0], np.empty((0, 2))
    objects, matched = match_slots(truth.labels, segments)
    places = truth.locations[objects - 1]
    known = (matched >= 0) & np.isfinite(places).all(axis=1)
    return slots.numpy()[matched[known]], places[known]


def fit_positions(videos: Sequence[Located]) -> Head:
    """Fit the probe in float64, with the penalty that is best on held-out videos.

    Args:
        videos: the objects of each video of the fit split; at least one video has one.

    Returns:
        Tensors `place_mean` and `place_scale` (D,), `place_weight` (D, 2), `place_bias` (2,), the mean place, and
        `ridge` (1,), the chosen penalty.
    """
    used = [video for video in videos if len(video[1])]
    held = used[HELD_OUT - 1 :: HELD_OUT]
    ridge = RIDGES[0]
    if held:
        rest = _joined([video for number, video in enumerate(used) if number % HELD_OUT != HELD_OUT - 1])
        slots, places = _joined(held)
        errors = [np.abs(places_of(_fit(*rest, one), torch.from_numpy(slots)) - places).mean() for one in RIDGES]
        ridge = RIDGES[int(np.argmin(errors))]
    return {**_fit(*_joined(used), ridge), "ridge": torch.tensor([ridge])}


def _joined(videos: Sequence[Located]) -> Located:
    return np.concatenate([video[0] for video in videos]), np.concatenate([video[1] for video in videos])


def _fit(slots: np.ndarray, places: np.ndarray, ridge: float) -> Head:
    """The probe with a given penalty."""
    mean, scale = slots.mean(axis=0, dtype=np.float64), slots.std(axis=0, dtype=np.float64)
    scale = np.where(scale > 1e-6, scale, 1.0)
    inputs = (slots - mean) / scale
    bias = places.mean(axis=0)
    gram = inputs.T @ inputs / len(inputs) + ridge * np.eye(inputs.shape[1])
    weight = np.linalg.solve(gram, inputs.T @ (places - bias) / len(inputs))
    parts = {"place_mean": mean, "place_scale": scale, "place_weight": weight, "place_bias": bias}
    return {name: torch.from_numpy(np.ascontiguousarray(part)) for name, part in parts.items()}


def places_of(head: Head, slots: Tensor) -> np.ndarray:
    """Where the objects of slots (..., D) lie, (..., 2) float64."""
    standard = (slots.double().cpu() - head["place_mean"]) / head["place_scale"]
    return (standard @ head["place_weight"] + head["place_bias"]).numpy()
