"""Heads on frozen slots: the class and the box of what a slot stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from ...cards.protocols import Fit
from ...core.errors import UsageError
from ...core.types import Prediction, Truth
from ..discovery import label_map
from .matching import Objects
from .perceptron import Examples, fit_perceptron

NO_OBJECT = -1
"""Category of a slot that stands for no object."""

Finder = Callable[[Truth, np.ndarray, int], Objects]
"""The objects of an image, from its truth, the slot (H, W) of each pixel, and K."""


@dataclass(frozen=True)
class SlotSet:
    """Slots of a whole split by image: features (N, D), category ids (N,), boxes (N, 4), image i at bounds[i : i + 2].

    boxes are shares of the image, NaN for `NO_OBJECT`.
    """

    features: Tensor
    categories: np.ndarray
    boxes: Tensor
    bounds: np.ndarray


@dataclass(frozen=True)
class _Slots:
    """A `perceptron.Source`: all slots of each image, with classes in place of categories."""

    slots: SlotSet
    targets: Tensor

    def __len__(self) -> int:
        return len(self.slots.bounds) - 1

    @property
    def width(self) -> int:
        return self.slots.features.shape[1]

    def batch(self, images: np.ndarray, random: np.random.Generator | None) -> Examples:
        del random
        bounds = self.slots.bounds
        chosen = np.concatenate([np.arange(bounds[i], bounds[i + 1]) for i in images])
        rows = torch.from_numpy(chosen.astype(np.int64))
        return Examples(self.slots.features[rows], self.targets[rows], self.slots.boxes[rows])


def collect_slots(
    batches: Iterable[tuple[Sequence[Truth], Prediction]], find: Finder, threshold: float, *, unmatched: bool
) -> SlotSet:
    """Slots that are matched to an object above an IoU of `threshold`, as examples of its category and box.

    batches: truths after the protocol and a prediction with masks and slots, whose first rows belong to them.
    unmatched: also take the other slots that own a pixel, as examples of `NO_OBJECT`.

    Raises UsageError when no image could be read or slots are not finite.
    """
    features: list[np.ndarray] = []
    categories: list[np.ndarray] = []
    boxes: list[np.ndarray] = []
    for truths, prediction in batches:
        rows = zip(truths, cast(Tensor, prediction.masks), slots_array(prediction), strict=False)  # the batch is padded
        for truth, masks, slots in rows:
            if not np.isfinite(slots).all():
                raise UsageError("Prediction.slots is not finite (NaN or infinity) on an image of the fit split")
            segments = label_map(masks.detach(), (truth.labels.shape[0], truth.labels.shape[1]))
            objects = find(truth, segments, len(slots))
            found, own = objects.matched(threshold)
            others = np.setdiff1d(np.flatnonzero(np.bincount(segments.ravel())), own) if unmatched else own[:0]
            features.append(slots[np.concatenate([own, others])])
            categories.append(np.concatenate([objects.categories[found], np.full(len(others), NO_OBJECT)]))
            boxes.append(np.concatenate([objects.boxes[found], np.full((len(others), 4), np.nan, np.float32)]))
    if not features:
        raise UsageError("no image of the fit split could be read")
    bounds = np.cumsum([0, *(len(one) for one in features)])
    return SlotSet(
        torch.from_numpy(np.concatenate(features)),
        np.concatenate(categories).astype(np.int64),
        torch.from_numpy(np.concatenate(boxes)),
        bounds,
    )


def slots_array(prediction: Prediction) -> np.ndarray:
    """Slots (B, K, D) float32."""
    return cast(Tensor, prediction.slots).detach().float().cpu().numpy()


def fit_slots(slots: SlotSet, names: Mapping[int, str], fit: Fit, *, background: bool) -> dict[str, Tensor]:
    """Tensors of the head (see `perceptron`) and `categories` (C,) int64, the id of each class.

    names: the categories that the data set declares. background: class C is no object.
    """
    categories = known_categories(names, slots.categories)
    targets = np.where(slots.categories == NO_OBJECT, len(categories), np.searchsorted(categories, slots.categories))
    head = fit_perceptron(
        _Slots(slots, torch.from_numpy(targets.astype(np.int64))),
        len(categories) + background,
        fit,
        normalise=False,
    )
    return {**head, "categories": torch.from_numpy(categories)}


def known_categories(names: Mapping[int, str], found: np.ndarray) -> np.ndarray:
    """(C,) int64: the categories that the data set declares and those that occur, the negative ones apart.

    Raises UsageError when there is none.
    """
    categories = np.union1d(np.array(sorted(names), np.int64), found[found >= 0]).astype(np.int64)
    if not len(categories):
        raise UsageError("the fit split has no object with a category, so that there is nothing to fit a head on")
    return categories
