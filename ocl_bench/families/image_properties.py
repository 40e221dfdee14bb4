"""Properties of the true objects of an image, by which leaderboards are split into strata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PROPERTIES = ("object_size", "object_contact")
"""Names of the columns.

object_size: area of an object as a share of the scored image, mean over objects. object_contact: share of an object's
border that touches another object, mean over objects. Contact approximates occlusion, which label maps do not record:
objects that occlude each other touch in the image, but so do some that do not.
"""
_FIELDS = ("sizes", "contacts")
_STEP = 65536
"""Values are rounded to 1/65536, so that a column takes two bytes an image in a file of rows."""


@dataclass(frozen=True)
class ObjectShapes:
    """Sizes and contacts of the n objects of one label map.

    Attributes:
        sizes: (n,) float64, area as a share of the image.
        contacts: (n,) float64, share of the border that touches another object; NaN for an object without border.
    """

    sizes: np.ndarray
    contacts: np.ndarray


def object_shapes(labels: np.ndarray, background: int | None = 0) -> ObjectShapes:
    """Sizes and contacts of the objects of a label map.

    The border of an object is the set of neighbouring pixel pairs (4-neighbourhood) with exactly one pixel inside the
    object. Pairs with a void or overlap pixel (negative labels) are not counted, since it is unknown what is there.

    Args:
        labels: (H, W) integers; labels >= 0 are objects, except for the background.
        background: label of the background, or None when there is none.
    """
    lowest = int(labels.min())
    shifted = labels.astype(np.int64) - lowest
    pixels = np.bincount(shifted.ravel())
    names = np.arange(lowest, lowest + len(pixels))
    known = names >= 0
    # Without a background label, compare with -3, which is no label: nothing is excluded.
    is_object = known & (pixels > 0) & (names != (-3 if background is None else background))
    border, contact = np.zeros(len(pixels)), np.zeros(len(pixels))
    # Horizontal neighbours, then vertical ones. A pair is counted at both of its segments.
    for before, after in ((shifted[:, :-1], shifted[:, 1:]), (shifted[:-1], shifted[1:])):
        differ = before != after
        first, second = before[differ], after[differ]
        both_known = known[first] & known[second]
        first, second = first[both_known], second[both_known]
        touching = (is_object[first] & is_object[second]).astype(np.float64)
        for side in (first, second):
            border += np.bincount(side, minlength=len(pixels))
            contact += np.bincount(side, touching, minlength=len(pixels))
    contacts = np.divide(contact, border, out=np.full(len(pixels), np.nan), where=border > 0)
    return ObjectShapes(pixels[is_object] / labels.size, contacts[is_object])


def image_properties(shapes: Sequence[ObjectShapes]) -> dict[str, float]:
    """The `PROPERTIES` of an image, or of all frames of a video: means over their objects, NaN without objects."""
    sizes, contacts = (np.concatenate([np.zeros(0), *(getattr(frame, name) for frame in shapes)]) for name in _FIELDS)
    return dict(zip(PROPERTIES, (_mean(sizes), _mean(contacts)), strict=True))


def _mean(values: np.ndarray) -> float:
    """Mean of the values that are not NaN, rounded to 1 / `_STEP`; NaN without any."""
    known = values[~np.isnan(values)]
    return round(float(known.mean()) * _STEP) / _STEP if known.size else float("nan")
