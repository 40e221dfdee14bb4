"""Label maps from annotations: overlapping instances, regions of a semantic map, polygons and run-length codes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import ior
from typing import Any

import numpy as np

from ..core.errors import SampleError
from ..core.rle import unpack_runs
from ..core.types import OVERLAP, VOID, Instance

LARGEST_LABEL = np.iinfo(np.int16).max
"""Largest number of an object in a label map. Negative numbers are void and overlaps."""

FARTHEST = 1_000_000
"""Largest coordinate of a polygon or a box in pixels. Parts outside the image are cut off."""


@dataclass(frozen=True)
class Runs:
    """Maps of one size as runs of pixels, row after row, in which no map changes: far fewer than pixels.

    Attributes:
        values: for each map, its number in each run (N,).
        lengths: (N,) pixels of each run.
        shape: of the maps.
    """

    values: list[np.ndarray]
    lengths: np.ndarray
    shape: tuple[int, ...]

    @classmethod
    def of(cls, *maps: np.ndarray) -> Runs:
        """The runs of one or more maps of the same size."""
        lines = [one.ravel() for one in maps]
        changed = reduce(ior, (line[1:] != line[:-1] for line in lines))
        starts = np.append(0, np.flatnonzero(changed) + 1)[: lines[0].size]  # an empty map has none
        return cls([line[starts] for line in lines], np.diff(starts, append=lines[0].size), maps[0].shape)

    def drawn(self, values: np.ndarray) -> np.ndarray:
        """The map that has these values in the runs."""
        return np.repeat(values, self.lengths).reshape(self.shape)


def narrowed(labels: np.ndarray, sample_id: str, where: object) -> np.ndarray:
    """A label map of whole numbers as int16.

    Args:
        labels: (H, W) numbers of any integer type.
        sample_id: for the message.
        where: the file that the labels come from, for the message.

    Raises:
        SampleError: a label does not fit. Cut to 16 bits, 40000 would be -25536, and 65537 another object.
    """
    if not np.can_cast(labels.dtype, np.int16) and labels.size:
        limits = np.iinfo(np.int16)
        wrong = next((int(n) for n in (labels.max(), labels.min()) if not limits.min <= n <= limits.max), None)
        if wrong is not None:
            text = f"label {wrong}, expected 0..{LARGEST_LABEL}; number the objects of a mask 1, 2, .. anew"
            raise SampleError(sample_id, f"{where}: {text}")
    return labels.astype(np.int16)


def label_map(
    instances: tuple[Instance, ...], shape: tuple[int, int], crowd: str = "drop"
) -> tuple[np.ndarray, tuple[int, ...]]:
    """The label map of instances, and the category of each label.

    Args:
        instances: those without a mask are left out and get no label.
        shape: (H, W) of the image.
        crowd: what crowds become: `drop` (background), `instance` (objects) or `ignore` (void).

    Returns:
        Labels (H, W) int16, or int32 where the instances are more than `LARGEST_LABEL`: 0 background, k for the k-th
        object that is kept, OVERLAP where several objects claim a pixel, VOID where only ignored crowds do. And the
        category of label k at index k - 1.
    """
    from pycocotools import mask as rle

    if not instances:
        return np.zeros(shape, np.int16), ()
    # Column by column, as pycocotools decodes: between two orders, NumPy takes three times as long. Objects are added
    # up, which takes a tenth of the time of an assignment: where one alone claims a pixel, the sum is its label.
    wide = np.int16 if len(instances) <= LARGEST_LABEL else np.int32
    kind = np.uint8 if len(instances) < 256 else wide
    labels, claims = (np.zeros(shape, kind, order="F") for _ in range(2))
    ignored = None
    categories = []
    for instance in instances:
        if instance.mask is None or (instance.crowd and crowd == "drop"):
            continue
        mask = rle.decode(instance.mask)
        if instance.crowd and crowd == "ignore":
            ignored = mask if ignored is None else ignored | mask
            continue
        categories.append(instance.category)
        claims += mask
        labels += mask * kind(len(categories))
    found = np.ascontiguousarray(labels).astype(wide)
    # An object that stands in an ignored crowd keeps its pixels: only what nobody claims becomes void.
    if ignored is not None:
        found[(ignored > 0) & (claims == 0)] = VOID
    if claims.max(initial=0) > 1:
        found[claims > 1] = OVERLAP
    return found, tuple(categories)


def class_regions(classes: np.ndarray, void: int | None = None) -> tuple[np.ndarray, tuple[int, ...]]:
    """Each class of a semantic map as one object.

    Args:
        classes: (H, W) class of each pixel; negative numbers are void.
        void: a number that is void, too.

    Returns:
        Labels (H, W) int16 from 1, VOID where the class is void, and the class of each label.
    """
    runs = Runs.of(classes)
    (kinds,) = runs.values
    known = (kinds >= 0) if void is None else (kinds >= 0) & (kinds != void)
    present = np.unique(kinds[known])
    labels = np.where(known, np.searchsorted(present, kinds) + 1, VOID).astype(np.int16)
    return runs.drawn(labels), tuple(int(value) for value in present)


def distinct(codes: np.ndarray) -> np.ndarray:
    """The sorted numbers of a map of any shape: `np.unique`, several times as fast for maps of regions."""
    return np.unique(Runs.of(codes).values[0])


def renumbered(codes: np.ndarray, numbers: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A map with `values[k]` in place of `numbers[k]`; `numbers` are sorted and hold all numbers of the map."""
    runs = Runs.of(codes)
    return runs.drawn(values[np.searchsorted(numbers, runs.values[0])])


def region_codes(labels: np.ndarray, count: int) -> list[dict[str, Any]]:
    """The COCO run-length codes of labels 1..count of a map (H, W), as `pycocotools` encodes each of their masks."""
    from pycocotools import mask as rle

    # Bytes are brought into another order faster; VOID and OVERLAP become 255 and 254.
    line = (labels.astype(np.uint8) if count < 254 else labels).ravel(order="F")
    starts = np.append(0, np.flatnonzero(line[1:] != line[:-1]) + 1)
    owners, stops = line[starts], np.append(starts[1:], line.size)
    codes = []
    for label in range(1, count + 1):
        mine = owners == label
        # Where the map changes to the label and from it, the lengths of zeros and ones are the distances between.
        bounds = np.stack([starts[mine], stops[mine]], axis=1).ravel()
        runs = np.diff(bounds, prepend=0, append=line.size).tolist()
        size = list(labels.shape)
        codes.append(rle.frPyObjects({"size": size, "counts": runs if runs[-1] else runs[:-1]}, *size))
    return codes


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
    if not (np.abs(values) <= FARTHEST).all():
        raise ValueError(f"a polygon has a coordinate that is not a number up to {FARTHEST:,}")
    corners: list[float] = values.tolist()
    return corners
