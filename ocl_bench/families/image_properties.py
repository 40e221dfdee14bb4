"""What an image is like, beside what a model says of it: properties by which leaderboards are split into strata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PROPERTIES = ("object_size", "object_contact")
"""Columns of rows. object_size: mean over the objects of the share of the scored image that is theirs.
object_contact: mean over the objects of the share of their border that meets another object, a stand-in for occlusion,
which label maps do not hold: objects that hide each other touch in the image, and so do some that do not."""
_FIELDS = ("sizes", "contacts")
_STEP = 65536
"""Values are rounded to 1/65536, so that a column takes two bytes an image in a file of rows."""


@dataclass(frozen=True)
class ObjectShapes:
    """Of n objects: sizes (n,), shares of the image; contacts (n,), shares of the border, NaN without any border."""

    sizes: np.ndarray
    contacts: np.ndarray


def object_shapes(labels: np.ndarray, background: int | None = 0) -> ObjectShapes:
    """Shapes of the objects of a label map (H, W): labels from 0 on, except for the background.

    The border of an object are the pairs of neighbouring pixels (4 neighbours) of which one is the object's; pairs with
    void or overlapping pixels (negative labels) do not count, as nobody knows what is there.
    """
    lowest = int(labels.min())
    shifted = labels.astype(np.int64) - lowest
    pixels = np.bincount(shifted.ravel())
    names = np.arange(lowest, lowest + len(pixels))
    known = names >= 0
    is_object = known & (pixels > 0) & (names != (-3 if background is None else background))
    border, contact = np.zeros(len(pixels)), np.zeros(len(pixels))
    for one, other in ((shifted[:, :-1], shifted[:, 1:]), (shifted[:-1], shifted[1:])):
        differ = one != other
        first, second = one[differ], other[differ]
        counted = known[first] & known[second]
        first, second = first[counted], second[counted]
        touching = (is_object[first] & is_object[second]).astype(np.float64)
        for side in (first, second):
            border += np.bincount(side, minlength=len(pixels))
            contact += np.bincount(side, touching, minlength=len(pixels))
    contacts = np.divide(contact, border, out=np.full(len(pixels), np.nan), where=border > 0)
    return ObjectShapes(pixels[is_object] / labels.size, contacts[is_object])


def image_properties(shapes: Sequence[ObjectShapes]) -> dict[str, float]:
    """`PROPERTIES` of an image, or of the frames of a video: means over their objects, NaN without objects."""
    sizes, contacts = (np.concatenate([np.zeros(0), *(getattr(one, name) for one in shapes)]) for name in _FIELDS)
    return dict(zip(PROPERTIES, (_mean(sizes), _mean(contacts)), strict=True))


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return round(float(known.mean()) * _STEP) / _STEP if known.size else float("nan")
