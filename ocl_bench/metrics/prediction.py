"""Masks of predicted slots, and boxes around them, by the rules of SlotFormer (pairlab/SlotFormer, commit 10a6d9b)."""

from __future__ import annotations

import numpy as np


def with_background_slot(masks: np.ndarray) -> np.ndarray:
    """Label maps in which pixels that no mask claims go to the background slot (`postproc_mask`).

    The background slot is the one whose mask has the smallest maximum in the frame; it may be an empty one.

    Args:
        masks: (T, K, H, W) soft masks.

    Returns:
        (T, H, W) int64 slot of each pixel.

    Example:
        >>> with_background_slot(np.array([[[[0.9, 0.4]], [[0.1, 0.3]], [[0.0, 0.2]]]]))
        array([[[0, 2]]])
    """
    labels = masks.argmax(axis=1)
    background = masks.max(axis=(2, 3)).argmin(axis=1)
    return np.where(masks.max(axis=1) < 0.5, background[:, None, None], labels)


def box_recall(truth: np.ndarray, segments: np.ndarray, threshold: float = 0.5) -> float:
    """Share of the objects of a frame whose box one slot's box covers (`bbox_precision_recall`).

    Objects choose in the order of their labels: each takes the box with the largest IoU, and misses if another object
    has taken it. The edges of a box are pixel indices, without + 1: a mask of one pixel has no area and is missed.

    Args:
        truth: (H, W) labels; objects are 1, 2, ...
        segments: (H, W) slot of each pixel.
        threshold: smallest IoU that counts.

    Returns:
        The share; NaN without an object.

    Example:
        >>> truth = np.array([[0, 1, 1], [0, 1, 1], [2, 2, 2]])
        >>> box_recall(truth, truth)  # a strip of one pixel has no area
        0.5
    """
    objects = [label for label in np.unique(truth) if label > 0]
    if not objects:
        return float("nan")
    slots = _boxes(segments, np.unique(segments))
    overlap = _overlap(_boxes(truth, objects), slots)
    taken: set[int] = set()
    found = 0
    for row in overlap:
        best = int(row.argmax())
        hit = row[best] >= threshold and best not in taken
        found += hit
        if hit:
            taken.add(best)
    return float(found / len(objects))


def _boxes(labels: np.ndarray, names: np.ndarray | list[int]) -> np.ndarray:
    """Boxes (N, 4) left, top, right, bottom of the pixels of each label."""
    corners = []
    for name in names:
        rows, columns = np.nonzero(labels == name)
        corners.append((columns.min(), rows.min(), columns.max(), rows.max()))
    return np.array(corners, np.float64)


def _overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """IoU (N, M) of boxes; 0 for two boxes without area."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None] - shared
    return shared / np.where(union > 0, union, 1)
