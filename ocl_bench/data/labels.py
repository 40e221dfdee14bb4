"""Label maps from annotations: overlapping instances, regions of a semantic map, polygons and run-length codes."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.rle import unpack_runs
from ..core.types import OVERLAP, VOID, Instance

_FARTHEST = 1_000_000
"""Largest coordinate of a polygon in pixels. Parts outside the image are cut off."""


def label_map(
    instances: tuple[Instance, ...], shape: tuple[int, int], crowd: str = "drop"
) -> tuple[np.ndarray, tuple[int, ...]]:
    """The label map of instances, and the category of each label.

    Args:
        instances: those without a mask are left out and get no label.
        shape: (H, W) of the image.
        crowd: what crowds become: `drop` (background), `instance` (objects) or `ignore` (void).

    Returns:
        Labels (H, W) int16: 0 background, k for the k-th object that is kept, OVERLAP where several objects claim a
        pixel, VOID where only ignored crowds do. And the category of label k at index k - 1.
    """
    from pycocotools import mask as rle

    labels, ignored = np.zeros(shape, dtype=np.int16), np.zeros(shape, dtype=bool)
    claims = np.zeros(shape, dtype=np.int16)
    categories = []
    for instance in instances:
        if instance.mask is None or (instance.crowd and crowd == "drop"):
            continue
        mask = rle.decode(instance.mask).astype(bool)
        if instance.crowd and crowd == "ignore":
            ignored |= mask
            continue
        categories.append(instance.category)
        labels[mask] = len(categories)
        claims += mask
    # An object that stands in an ignored crowd keeps its pixels: only what nobody claims becomes void.
    labels[ignored & (labels == 0)] = VOID
    labels[claims > 1] = OVERLAP
    return labels, tuple(categories)


def class_regions(classes: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """Each class of a semantic map as one object.

    Args:
        classes: (H, W) class of each pixel; negative numbers are void.

    Returns:
        Labels (H, W) int16 from 1, VOID where the class is void, and the class of each label.
    """
    present = np.unique(classes[classes >= 0])
    labels = np.where(classes >= 0, np.searchsorted(present, classes) + 1, VOID).astype(np.int16)
    return labels, tuple(int(value) for value in present)


def run_length(segmentation: Any, shape: tuple[int, int]) -> dict[str, Any] | None:
    """A COCO run-length code `{"size", "counts": bytes}` from polygons or from either kind of run-length code.

    Args:
        segmentation: field `segmentation` of an annotation: a list of polygons, or `{"size", "counts"}` where counts
            is a list of runs (uncompressed) or a text (compressed).
        shape: (H, W) of the image.

    Returns:
        The code, or None for an annotation without a segmentation.

    Raises:
        ValueError: the code has another size than the image, or cannot be read.
    """
    from pycocotools import mask as rle

    if segmentation is None or segmentation == []:
        return None
    if isinstance(segmentation, list):
        polygons = [_corners(polygon) for polygon in segmentation]
        merged: dict[str, Any] = rle.merge(rle.frPyObjects(polygons, *shape))
        return merged
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= set(segmentation):
        raise ValueError("a segmentation is a list of polygons, or has size and counts")
    size, counts = list(segmentation["size"]), segmentation["counts"]
    if size != list(shape):
        raise ValueError(f"run-length code of size {size} (height, width), its image has {list(shape)}")
    if isinstance(counts, str):
        counts = counts.encode()
    runs = counts if isinstance(counts, list) else unpack_runs(counts)
    # pycocotools checks neither of the two: where a code ends too early, its C code reads memory behind the mask.
    # type() and not isinstance(): True is an int.
    if not all(type(run) is int and run >= 0 for run in runs):
        raise ValueError("run-length code with a run that is not a whole number of 0 or more")
    if sum(runs) != shape[0] * shape[1]:
        raise ValueError(f"run-length code of {sum(runs)} pixels, its image has {shape[0] * shape[1]}")
    if isinstance(counts, list):
        code: dict[str, Any] = rle.frPyObjects({"size": size, "counts": counts}, *shape)
        return code
    return {"size": size, "counts": counts}


def _corners(polygon: Any) -> list[float]:
    """The coordinates x, y, x, y, ... of a polygon, checked."""
    # `_pack` of the COCO reader makes arrays of numbers; a list may hold texts, which NumPy would take for numbers.
    for value in polygon if isinstance(polygon, list) else ():
        if isinstance(value, str | bool):
            raise ValueError(f"a polygon has {value!r}, expected a finite number")
    values = np.asarray(polygon, dtype=np.float64)
    if values.ndim != 1 or len(values) < 6 or len(values) % 2:
        raise ValueError("a polygon needs at least 3 points x, y, x, y, ...")
    # pycocotools draws in 32-bit integers and reserves memory for each pixel of an edge, so a huge coordinate would
    # overflow or exhaust the memory. Written so that NaN is refused as well: it fails every comparison.
    if not (np.abs(values) <= _FARTHEST).all():
        raise ValueError(f"a polygon has a coordinate that is not a number up to {_FARTHEST:,}")
    corners: list[float] = values.tolist()
    return corners
