"""What is wrong with a segmentation, pixel by pixel: objects that are split, merged, missed, or that spill over.

Every predicted segment belongs to the truth label, object or background, that holds most of its pixels. The main
segment of an object is the largest part of it among the segments that belong to it. With this, each annotated pixel is
of one kind, so that the kinds of an image add up to all its pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

Kind: TypeAlias = Literal["background", "right", "split", "merged", "missed", "spilled"]
KINDS: tuple[Kind, ...] = ("background", "right", "split", "merged", "missed", "spilled")
"""Kinds of pixels.

background: background in a segment of the background. right: of an object, in its main segment. split: in another
segment that belongs to the object. merged: in a segment that belongs to another object. missed: of an object, in a
segment of the background. spilled: background in a segment that belongs to an object.
"""
WRONG: tuple[Kind, ...] = ("split", "merged", "missed", "spilled")

FRAGMENT_IOU = 0.1
"""A segment counts as a fragment of an object from this IoU on."""

_NONE = -1


@dataclass(frozen=True)
class Mistakes:
    """The mistakes of one image or video with G truth labels and P segments.

    Attributes:
        kinds: (G, P) int8, position in `KINDS` of the pixels of truth label g in segment p; -1 where there are none.
        pixels: number of pixels of each kind, in the order of `KINDS`.
        owners: (P,) int64, truth label to which a segment belongs; -1 for a segment without annotated pixels.
        main: (G,) int64, main segment of an object; -1 for the background and for objects without one.
        best_iou: (G,) float64, largest IoU of an object with a segment; NaN for what is not an object.
        fragments: (G,) int64, segments with an IoU of at least `FRAGMENT_IOU` with the object.
    """

    kinds: np.ndarray
    pixels: tuple[int, ...]
    owners: np.ndarray
    main: np.ndarray
    best_iou: np.ndarray
    fragments: np.ndarray


def mistakes(table: np.ndarray, background: int | None = 0) -> Mistakes:
    """Sort the pixels of one image, or of all frames of a video, by what is wrong with them.

    Args:
        table: (G, P) pixels that truth label g and segment p share, as in `Contingency.table`.
        background: truth label that is not an object; None when every label is an object.

    Example:
        >>> found = mistakes(np.array([[4, 1, 0], [0, 3, 2], [1, 0, 0]]))  # object 1 is cut, object 2 is missed
        >>> dict(zip(KINDS, found.pixels, strict=True))
        {'background': 4, 'right': 3, 'split': 2, 'merged': 0, 'missed': 1, 'spilled': 1}
    """
    table = np.asarray(table, dtype=np.int64)
    labels, segments = table.shape
    is_object = table.sum(1) > 0
    if background is not None and 0 <= background < labels:
        is_object[background] = False
    owners = np.where(table.sum(0) > 0, table.argmax(0), _NONE)  # the lowest label where two hold as many
    of_object = (owners != _NONE) & is_object[owners]
    own = owners == np.arange(labels)[:, None]
    owned = np.where(own, table, 0)
    main = np.where(is_object & (owned.max(1, initial=0) > 0), owned.argmax(1) if segments else _NONE, _NONE)
    is_main = np.arange(segments) == main[:, None]
    kinds = np.where(
        is_object[:, None],
        np.select([is_main, own, of_object], [_at("right"), _at("split"), _at("merged")], _at("missed")),
        np.where(of_object, _at("spilled"), _at("background")),
    )
    kinds = np.where(table > 0, kinds, _NONE).astype(np.int8)
    union = table.sum(1, keepdims=True) + table.sum(0, keepdims=True) - table
    iou = np.divide(table, union, out=np.zeros(table.shape), where=union > 0)
    return Mistakes(
        kinds,
        tuple(int(table[kinds == position].sum()) for position in range(len(KINDS))),
        owners,
        main,
        np.where(is_object, iou.max(1, initial=0), np.nan),
        np.where(is_object, (iou >= FRAGMENT_IOU).sum(1), 0),
    )


def _at(kind: Kind) -> int:
    return KINDS.index(kind)
