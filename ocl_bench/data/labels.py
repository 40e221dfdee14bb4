"""Label maps from annotations: instances that may overlap, regions of a semantic map, polygons and run-length codes."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.rle import unpack_runs
from ..core.types import OVERLAP, VOID, Instance

_FARTHEST = 1_000_000
"""Largest coordinate of a polygon in pixels; what leaves the image is cut off."""


def label_map(
    instances: tuple[Instance, ...], shape: tuple[int, int], crowd: str = "drop"
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Labels (H, W) int16 with overlaps, and the category of each label, from instances with masks."""
    from pycocotools import mask as rle

    labels, ignored = np.zeros(shape, dtype=np.int16), np.zeros(shape, dtype=bool)
    claims = np.zeros(shape, dtype=np.int16)
    categories = []
    for one in instances:
        if one.mask is None or (one.crowd and crowd == "drop"):
            continue
        mask = rle.decode(one.mask).astype(bool)
        if one.crowd and crowd == "ignore":
            ignored |= mask
            continue
        categories.append(one.category)
        labels[mask] = len(categories)
        claims += mask
    labels[ignored & (labels == 0)] = VOID
    labels[claims > 1] = OVERLAP
    return labels, tuple(categories)


def class_regions(classes: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """Each class of a semantic map as one object: labels (H, W) int16 from 1, and the class of each label."""
    present = np.unique(classes[classes >= 0])
    labels = np.where(classes >= 0, np.searchsorted(present, classes) + 1, VOID).astype(np.int16)
    return labels, tuple(int(value) for value in present)


def run_length(segmentation: Any, shape: tuple[int, int]) -> dict[str, Any] | None:
    """A COCO run-length code `{"size", "counts": bytes}` from polygons or either kind of run-length code.

    None without a segmentation. Raises ValueError when a code has another size than the image, or makes no sense.
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
    # pycocotools checks neither: it would show memory of others where a code ends too early.
    if not all(type(run) is int and run >= 0 for run in runs):
        raise ValueError("run-length code with runs that are no whole numbers from 0")
    if sum(runs) != shape[0] * shape[1]:
        raise ValueError(f"run-length code of {sum(runs)} pixels, its image has {shape[0] * shape[1]}")
    if isinstance(counts, list):
        code: dict[str, Any] = rle.frPyObjects({"size": size, "counts": counts}, *shape)
        return code
    return {"size": size, "counts": counts}


def _corners(polygon: Any) -> list[float]:
    """The coordinates x, y, x, y, ... of a polygon, checked."""
    values = np.asarray(polygon, dtype=np.float64)
    if values.ndim != 1 or len(values) < 6 or len(values) % 2:
        raise ValueError("a polygon needs at least 3 points x, y, x, y, ...")
    # pycocotools draws in 32-bit integers, and reserves memory for each pixel of an edge.
    if not (np.abs(values) <= _FARTHEST).all():
        raise ValueError(f"a polygon has a coordinate that is no number up to {_FARTHEST:,}")
    corners: list[float] = values.tolist()
    return corners
