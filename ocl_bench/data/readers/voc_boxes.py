"""Read the boxes of PASCAL VOC's XML files, and find the mask that belongs to each box."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from ...core.errors import SampleError
from ...core.files import read_bytes
from ...core.types import Instance
from ..labels import FARTHEST

Box = tuple[float, float, float, float]

SAME_OBJECT = 0.5
"""Least share of the box around a mask that must lie inside an annotated box if the two are to be one object. Not an
IoU: the void border of a small object covers most of its mask, so its IoU with the annotated box is small."""

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_REMEDY = "unpack the archive again, or take the image out of the list"


def read_boxes(path: Path, sample_id: str, shape: tuple[int, ...], names: Sequence[str]) -> tuple[Instance, ...]:
    """The objects of a file as instances without masks, in the order of the file.

    VOC counts pixels from 1, and both corners belong to the box: it becomes (xmin - 1, ymin - 1, xmax, ymax), clipped
    at the image. `difficult` objects, which VOC counts neither as hits nor as misses, are marked as crowds. `truncated`
    changes nothing, as in VOC.

    Args:
        path: the XML file.
        sample_id: for messages.
        shape: (H, W) of the image.
        names: class names; category k is `names[k]`, and 0 is the background.

    Raises:
        SampleError: the file is missing or broken, or a box is not in the image.
    """
    try:
        root = ElementTree.fromstring(read_bytes(path))
    except (OSError, ElementTree.ParseError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SampleError(sample_id, f"{path}: boxes cannot be read ({reason}); {_REMEDY}") from error
    boxes = []
    for number, entry in enumerate(root.findall("object"), start=1):
        name = (entry.findtext("name") or "").strip()
        if name not in names[1:]:
            raise SampleError(sample_id, f"{path}: object {number} has the unknown class '{name}'; {_REMEDY}")
        try:
            corners = [float(entry.findtext(f"bndbox/{corner}") or "nan") for corner in _CORNERS]
            difficult = bool(int(entry.findtext("difficult") or 0))
        except ValueError as error:
            raise SampleError(sample_id, f"{path}: object {number}: {error}; {_REMEDY}") from error
        box = _clip(corners, shape)
        # Written with `not`, because NaN fails every comparison: a corner that is not a number is refused as well.
        if not (box[0] < box[2] and box[1] < box[3] and max(map(abs, corners)) <= FARTHEST):
            text = ", ".join(f"{corner:g}" for corner in corners)
            raise SampleError(sample_id, f"{path}: object {number}: box ({text}) is not in the image; {_REMEDY}")
        area = (box[2] - box[0]) * (box[3] - box[1])
        boxes.append(Instance(names.index(name), box, None, area, difficult))
    return tuple(boxes)


def join_masks(boxes: Sequence[Instance], masks: Sequence[Instance]) -> tuple[Instance, ...]:
    """The boxes, each with the mask of its object and the area of that mask, then the masks without a box.

    Boxes and masks of a class are matched one to one, so that the sum of the IoU between the boxes and the boxes around
    the masks is largest. `SAME_OBJECT` says which pairs are allowed. A box without a mask keeps its own area.
    """
    from scipy.optimize import linear_sum_assignment

    # The numbers of the objects are not used: SBD counts objects in another order than VOC.
    overlap = _overlap([box.box for box in boxes], [mask.box for mask in masks])
    same = np.array([[box.category == mask.category for mask in masks] for box in boxes], dtype=bool)
    overlap *= same.reshape(overlap.shape)
    pairs = zip(*linear_sum_assignment(overlap, maximize=True), strict=True)
    # The assignment also pairs what has no overlap, when nothing better is left.
    partner = {int(row): int(column) for row, column in pairs if overlap[row, column] > 0}
    joined = []
    for row, box in enumerate(boxes):
        mask = masks[partner[row]] if row in partner else None
        area, code = (box.area, None) if mask is None else (mask.area, mask.mask)
        joined.append(Instance(box.category, box.box, code, area, box.crowd))
    taken = set(partner.values())
    return (*joined, *(mask for column, mask in enumerate(masks) if column not in taken))


def _clip(corners: Sequence[float], shape: tuple[int, ...]) -> Box:
    """A box of VOC, whose pixels count from 1, as x0, y0, x1, y1 inside an image (H, W)."""
    xmin, ymin, xmax, ymax = corners
    return max(xmin - 1, 0.0), max(ymin - 1, 0.0), min(xmax, float(shape[1])), min(ymax, float(shape[0]))


def _overlap(boxes: Sequence[Box], masks: Sequence[Box]) -> np.ndarray:
    """Intersection over union (N, M), 0 for pairs that cannot be one object. Every box must have an area above 0."""
    a = np.array(boxes, dtype=np.float64).reshape(-1, 1, 4)
    b = np.array(masks, dtype=np.float64).reshape(1, -1, 4)
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None)
    common = sides.prod(-1)
    area, mask_area = ((corners[..., 2:] - corners[..., :2]).prod(-1) for corners in (a, b))
    return np.where(common >= SAME_OBJECT * mask_area, common / (area + mask_area - common), 0.0)
