"""Boxes of PASCAL VOC's XML files, and which mask belongs to which box."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from ...core.errors import SampleError
from ...core.types import Instance

Box = tuple[float, float, float, float]

SAME_OBJECT = 0.5
"""Share of the box around a mask that lies in a box, from which the two may be one object. Not IoU: the void border of
a small object takes most of its mask."""

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_REMEDY = "unpack the archive again, or take the image out of the list"


def read_boxes(path: Path, sample_id: str, shape: tuple[int, ...], names: Sequence[str]) -> tuple[Instance, ...]:
    """The objects of a file as instances without masks, in its order; category k is `names[k]`.

    VOC counts pixels from 1, and both corners belong to the box: it becomes (xmin - 1, ymin - 1, xmax, ymax), clipped
    at the image (H, W). `difficult` objects, which VOC neither asks for nor punishes, are marked as crowds. `truncated`
    changes nothing, as in VOC. Raises SampleError when the file is missing or broken, or a box is not in the image.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SampleError(sample_id, f"{path}: boxes cannot be read ({reason}); {_REMEDY}") from error
    found = []
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
        # Written so that a corner that is no number fails, too.
        if not (box[0] < box[2] and box[1] < box[3]):
            text = ", ".join(f"{corner:g}" for corner in corners)
            raise SampleError(sample_id, f"{path}: object {number}: box ({text}) is not in the image; {_REMEDY}")
        area = (box[2] - box[0]) * (box[3] - box[1])
        found.append(Instance(names.index(name), box, None, area, difficult))
    return tuple(found)


def join_masks(boxes: Sequence[Instance], masks: Sequence[Instance]) -> tuple[Instance, ...]:
    """The boxes, in their order, with the mask and its area where there is one; then the masks without a box.

    One to one, within a class, so that the sum of the IoU of boxes is largest; `SAME_OBJECT` says which may be pairs.
    Numbers are not compared: SBD counts objects in another order than VOC.
    """
    from scipy.optimize import linear_sum_assignment

    overlap = _overlap([one.box for one in boxes], [one.box for one in masks])
    same = np.array([[one.category == other.category for other in masks] for one in boxes], dtype=bool)
    overlap *= same.reshape(overlap.shape)
    pairs = zip(*linear_sum_assignment(overlap, maximize=True), strict=True)
    partner = {int(row): int(column) for row, column in pairs if overlap[row, column] > 0}
    joined = []
    for row, one in enumerate(boxes):
        mask = masks[partner[row]] if row in partner else None
        area, code = (one.area, None) if mask is None else (mask.area, mask.mask)
        joined.append(Instance(one.category, one.box, code, area, one.crowd))
    taken = set(partner.values())
    return (*joined, *(one for column, one in enumerate(masks) if column not in taken))


def _clip(corners: Sequence[float], shape: tuple[int, ...]) -> Box:
    xmin, ymin, xmax, ymax = corners
    return max(xmin - 1, 0.0), max(ymin - 1, 0.0), min(xmax, float(shape[1])), min(ymax, float(shape[0]))


def _overlap(boxes: Sequence[Box], masks: Sequence[Box]) -> np.ndarray:
    """(N, M) intersection over union, 0 for what cannot be one object; every box has an area."""
    a = np.array(boxes, dtype=np.float64).reshape(-1, 1, 4)
    b = np.array(masks, dtype=np.float64).reshape(1, -1, 4)
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None)
    common = sides.prod(-1)
    area, mask_area = ((one[..., 2:] - one[..., :2]).prod(-1) for one in (a, b))
    return np.where(common >= SAME_OBJECT * mask_area, common / (area + mask_area - common), 0.0)
