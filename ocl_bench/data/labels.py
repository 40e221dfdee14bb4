"""Label maps from annotations: instances that may overlap, regions of a semantic map, polygons and run-length codes."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..types import OVERLAP, VOID, Instance


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
        if any(len(polygon) < 6 or len(polygon) % 2 for polygon in segmentation):
            raise ValueError("a polygon needs at least 3 points")
        merged: dict[str, Any] = rle.merge(rle.frPyObjects(segmentation, *shape))
        return merged
    size = tuple(segmentation["size"])
    if size != shape:
        raise ValueError(f"run-length code of size {size[1]}x{size[0]}, its image {shape[1]}x{shape[0]}")
    counts = segmentation["counts"]
    if isinstance(counts, list):
        if sum(counts) != shape[0] * shape[1]:
            raise ValueError(f"run-length code of {sum(counts)} pixels, its image has {shape[0] * shape[1]}")
        code: dict[str, Any] = rle.frPyObjects({"size": list(size), "counts": counts}, *shape)
        return code
    return {"size": list(size), "counts": counts.encode() if isinstance(counts, str) else counts}
