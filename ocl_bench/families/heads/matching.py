"""Hungarian matching of slots to objects by IoU, as in the recognition probe of Zhao's SmoothSA code.

One difference is deliberate: the filter of that code compares column indices with the values of a boolean tensor and
therefore keeps at most two objects of an image. Here every pair above the threshold is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...cards.protocols import Protocol
from ...core.types import VOID, Instance, Truth


@dataclass(frozen=True)
class Objects:
    """The G objects of one image and their overlap with its K slots.

    Attributes:
        categories: (G,) int64 category ids of the data set.
        boxes: (G, 4) float32 left, top, right, bottom as shares of the image; right and bottom are exclusive.
        overlap: (G, K) float64 IoU.
    """

    categories: np.ndarray
    boxes: np.ndarray
    overlap: np.ndarray

    def __len__(self) -> int:
        return len(self.categories)

    def matched(self, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the matched objects and of their slots, (M,) each.

        This is the one-to-one matching with the largest total IoU, without the pairs of IoU <= `threshold`. Pairs are
        dropped after the matching, so a pair that is dropped may have taken a slot from another object.
        """
        from scipy.optimize import linear_sum_assignment

        objects, slots = linear_sum_assignment(self.overlap, maximize=True)
        above = self.overlap[objects, slots] > threshold
        return objects[above], slots[above]


def labelled_objects(truth: Truth, segments: np.ndarray, slots: int, protocol: Protocol) -> Objects:
    """The objects of the label map, that is, their visible pixels after the protocol.

    Background is not an object. Overlap pixels are ignored. Void pixels belong to no object and count in the areas of
    the slots only with `void: count`.

    Args:
        truth: truth of the image; without categories all objects get category 0.
        segments: (H, W) slot 0 .. slots - 1 of each pixel.
        slots: number of slots.
        protocol: the protocol of the task.
    """
    from scipy.ndimage import find_objects

    labels = truth.labels
    known = labels >= 0
    rows = int(labels.max(initial=0)) + 1
    codes = labels[known].astype(np.int64) * slots + segments[known]  # one bincount gives the whole contingency table
    shared = np.bincount(codes, minlength=rows * slots).reshape(rows, slots)
    areas = shared.sum(0)
    if protocol.void == "count":
        areas = areas + np.bincount(segments[labels == VOID], minlength=slots)
    present = [label for label in range(1, rows) if shared[label].any()]
    windows = find_objects(np.maximum(labels, 0))  # void and overlap are negative and have no window
    return Objects(
        np.array([truth.categories[label - 1] if truth.categories else 0 for label in present], np.int64),
        _shares([_corners(windows[label - 1]) for label in present], labels.shape),
        _iou(shared[present], shared[present].sum(1), areas),
    )


def annotated_objects(truth: Truth, segments: np.ndarray, slots: int) -> Objects:
    """The annotated instances of the image without crowds, each with its whole mask even where masks overlap.

    Args:
        truth: truth of the image; an instance without a mask fills its box.
        segments: (H, W) slot 0 .. slots - 1 of each pixel.
        slots: number of slots.
    """
    instances = [instance for instance in truth.instances if not instance.crowd]
    shared, sizes = np.zeros((len(instances), slots), np.int64), np.zeros(len(instances), np.int64)
    for position, instance in enumerate(instances):
        inside = instance_mask(instance, segments.shape)
        shared[position] = np.bincount(segments[inside], minlength=slots)
        sizes[position] = np.count_nonzero(inside)
    return Objects(
        np.array([instance.category for instance in instances], np.int64),
        _shares([instance.box for instance in instances], segments.shape),
        _iou(shared, sizes, np.bincount(segments.ravel(), minlength=slots)),
    )


def instance_mask(instance: Instance, shape: tuple[int, ...]) -> np.ndarray:
    """(H, W) bool: the mask of an instance, or the pixels whose centres lie in its box when it has no mask."""
    if instance.mask is not None:
        from pycocotools import mask as coco_mask

        decoded: np.ndarray = coco_mask.decode(instance.mask).astype(bool)
        return decoded
    left, top, right, bottom = instance.box
    y, x = (np.arange(length) + 0.5 for length in shape)
    return ((y >= top) & (y < bottom))[:, None] & ((x >= left) & (x < right))


def box_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pairwise IoU.

    Args:
        first: (N, 4) boxes as left, top, right, bottom.
        second: (N, 4) boxes; box i is compared with box i of `first`.

    Returns:
        (N,) IoU; 0 when a box is inverted or both have no area.
    """
    low, high = np.maximum(first[:, :2], second[:, :2]), np.minimum(first[:, 2:], second[:, 2:])
    shared = (high - low).clip(0).prod(1)
    union = sum((boxes[:, 2:] - boxes[:, :2]).clip(0).prod(1) for boxes in (first, second)) - shared
    return np.divide(shared, union, out=np.zeros(len(first)), where=union > 0)


def _corners(window: tuple[slice, ...]) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of a window of rows and columns."""
    rows, columns = window
    return columns.start, rows.start, columns.stop, rows.stop


def _shares(boxes: Sequence[tuple[float, float, float, float]], shape: tuple[int, ...]) -> np.ndarray:
    """Boxes (N, 4) float32 as shares of an image of size (H, W) = shape, from boxes in pixels."""
    height, width = shape
    return np.array(boxes, np.float32).reshape(-1, 4) / np.array([width, height, width, height], np.float32)


def _iou(shared: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """IoU (G, K) from shared pixels (G, K) and areas (G,) and (K,); 0 where both areas are 0."""
    union = truth[:, None] + predicted[None] - shared
    return np.divide(shared, union, out=np.zeros(shared.shape), where=union > 0)
