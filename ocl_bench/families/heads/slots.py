"""Head on frozen slots: predicts the class and the box of the object that a slot represents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from ...cards.protocols import Fit
from ...core.errors import UsageError
from ...core.types import Prediction, Truth
from ..base import Batches, Head
from ..checks import check_alike
from ..discovery import label_map
from .matching import Objects
from .perceptron import Examples, fit_perceptron

NO_OBJECT = -1
"""Category of a slot that represents no object."""

Finder = Callable[[Truth, np.ndarray, int], Objects]
"""Function from the truth of an image, the slot (H, W) of each pixel and the number of slots to the objects."""


@dataclass(frozen=True)
class SlotSet:
    """Slots of all images of a split, one after the other.

    Attributes:
        features: (N, D) float32 slots.
        categories: (N,) int64 category ids, or `NO_OBJECT`.
        boxes: (N, 4) float32 left, top, right, bottom as shares of the image; NaN for `NO_OBJECT`.
        bounds: (images + 1,) rows bounds[i] to bounds[i + 1] belong to image i.
    """

    features: Tensor
    categories: np.ndarray
    boxes: Tensor
    bounds: np.ndarray


@dataclass(frozen=True)
class _SlotSource:
    """An `ExampleSource` that gives all slots of each image. targets: (N,) int64 classes of the slots."""

    slots: SlotSet
    targets: Tensor

    def __len__(self) -> int:
        return len(self.slots.bounds) - 1

    @property
    def width(self) -> int:
        return self.slots.features.shape[1]

    def batch(self, images: np.ndarray, random: np.random.Generator | None) -> Examples:
        del random  # an image has few slots, so all of them are used
        bounds = self.slots.bounds
        chosen = np.concatenate([np.arange(bounds[i], bounds[i + 1]) for i in images])
        rows = torch.from_numpy(chosen.astype(np.int64))
        return Examples(self.slots.features[rows], self.targets[rows], self.slots.boxes[rows])


def collect_slots(batches: Batches, find: Finder, threshold: float, *, unmatched: bool) -> SlotSet:
    """Collect the slots that match an object as examples of its category and box.

    Args:
        batches: truths and predictions, with masks and slots, of the split.
        find: gives the objects of an image.
        threshold: IoU above which a slot matches an object.
        unmatched: also take the other slots that own a pixel, as examples of `NO_OBJECT`.

    Raises:
        UsageError: no image could be read, or slots differ in length or are not finite.
    """
    features: list[np.ndarray] = []
    categories: list[np.ndarray] = []
    boxes: list[np.ndarray] = []
    for truths, prediction in batches:
        # strict=False: a padded batch has more predictions than truths.
        rows = zip(truths, cast(Tensor, prediction.masks), slots_array(prediction), strict=False)
        for truth, masks, slots in rows:
            if not np.isfinite(slots).all():
                raise UsageError("Prediction.slots is not finite (NaN or infinity) on an image of the fit split")
            check_alike("slots", slots.shape[1:], (features or [slots])[0].shape[1:])
            segments = label_map(masks.detach(), (truth.labels.shape[0], truth.labels.shape[1]))
            objects = find(truth, segments, len(slots))
            matched, its_slots = objects.matched(threshold)
            present = np.flatnonzero(np.bincount(segments.ravel()))
            empty = np.setdiff1d(present, its_slots) if unmatched else its_slots[:0]
            features.append(slots[np.concatenate([its_slots, empty])])
            categories.append(np.concatenate([objects.categories[matched], np.full(len(empty), NO_OBJECT)]))
            boxes.append(np.concatenate([objects.boxes[matched], np.full((len(empty), 4), np.nan, np.float32)]))
    if not features:
        raise UsageError("no image of the fit split could be read")
    bounds = np.cumsum([0, *(len(image_slots) for image_slots in features)])
    return SlotSet(
        torch.from_numpy(np.concatenate(features)),
        np.concatenate(categories).astype(np.int64),
        torch.from_numpy(np.concatenate(boxes)),
        bounds,
    )


def slots_array(prediction: Prediction) -> np.ndarray:
    """The slots of a prediction as an array (B, K, D) float32."""
    return cast(Tensor, prediction.slots).detach().float().cpu().numpy()


def fit_slots(slots: SlotSet, names: Mapping[int, str], fit: Fit, *, background: bool) -> Head:
    """Fit the head.

    Args:
        slots: examples from `collect_slots`.
        names: names of the categories that the data set declares, by id.
        fit: the recipe of the task card.
        background: add a class C for slots that represent no object.

    Returns:
        Tensors of the head (see `fit_perceptron`) and `categories` (C,) int64, the category id of each class.
    """
    categories = known_categories(names, slots.categories)
    targets = np.where(slots.categories == NO_OBJECT, len(categories), np.searchsorted(categories, slots.categories))
    head = fit_perceptron(
        _SlotSource(slots, torch.from_numpy(targets.astype(np.int64))),
        len(categories) + background,
        fit,
        normalise=False,
    )
    return {**head, "categories": torch.from_numpy(categories)}


def known_categories(names: Mapping[int, str], found: np.ndarray) -> np.ndarray:
    """(C,) int64: the category ids that the data set declares or that occur, in ascending order.

    Args:
        names: names of the declared categories, by id.
        found: ids that occur; negative ones stand for background and are ignored.

    Raises:
        UsageError: there is no category.
    """
    categories = np.union1d(np.array(sorted(names), np.int64), found[found >= 0]).astype(np.int64)
    if not len(categories):
        raise UsageError("the fit split has no object with a category; a head needs annotated objects to be fitted on")
    return categories
