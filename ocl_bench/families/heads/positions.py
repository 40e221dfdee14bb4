"""The position probe: ridge regression from a slot to the place of its object on the ground."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ...core.types import Truth
from ...metrics.contingency import contingency
from ...metrics.overlap import iou
from ..base import Head

RIDGE = 1e-5
"""Weight of the penalty, relative to the variance of a standardised slot."""


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


def located_slots(slots: Tensor, segments: np.ndarray, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
    """The slots (N, D) of the objects of a frame that have a location, and these (N, 2)."""
    if truth.locations is None:
        return slots.numpy()[:0], np.empty((0, 2))
    objects, matched = match_slots(truth.labels, segments)
    places = truth.locations[objects - 1]
    known = (matched >= 0) & np.isfinite(places).all(axis=1)
    return slots.numpy()[matched[known]], places[known]


def fit_positions(slots: np.ndarray, places: np.ndarray) -> Head:
    """Fit the probe in float64.

    Args:
        slots: (N, D) of objects.
        places: (N, 2) on the ground.

    Returns:
        Tensors `place_mean` and `place_scale` (D,), `place_weight` (D, 2) and `place_bias` (2,), the mean place.
    """
    mean, scale = slots.mean(axis=0, dtype=np.float64), slots.std(axis=0, dtype=np.float64)
    scale = np.where(scale > 1e-6, scale, 1.0)
    inputs = (slots - mean) / scale
    bias = places.mean(axis=0)
    gram = inputs.T @ inputs / len(inputs) + RIDGE * np.eye(inputs.shape[1])
    weight = np.linalg.solve(gram, inputs.T @ (places - bias) / len(inputs))
    parts = {"place_mean": mean, "place_scale": scale, "place_weight": weight, "place_bias": bias}
    return {name: torch.from_numpy(np.ascontiguousarray(part)) for name, part in parts.items()}


def places_of(head: Head, slots: Tensor) -> np.ndarray:
    """Where the objects of slots (..., D) lie, (..., 2) float64."""
    standard = (slots.double().cpu() - head["place_mean"]) / head["place_scale"]
    return (standard @ head["place_weight"] + head["place_bias"]).numpy()
