"""Recognise id maps that were resized with interpolation: the numbers between two ids look like further objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..core.log import warn_once
from .labels import distinct, renumbered

FEWEST = 4
"""Fewer rims than this prove nothing."""


def remark_rims(
    codes: np.ndarray, coloured: bool, void: int | None, path: Path, about: object, numbers: np.ndarray | None = None
) -> None:
    """Warn, once for `about`, when most ids of a mask are rims (see `count_rims`)."""
    ids, rims = count_rims(codes, coloured, void, numbers)
    if rims >= FEWEST and 2 * rims > ids:
        text = (
            f"most ids are rims ({rims} of {ids}): as after resizing with interpolation, which makes objects of borders"
        )
        warn_once("rims", about, f"{path}: {text}; resize masks by nearest pixel (said once for {about})")


def count_rims(
    codes: np.ndarray, coloured: bool = False, void: int | None = None, numbers: np.ndarray | None = None
) -> tuple[int, int]:
    """Number of ids of a mask, and how many of them are rims between others.

    A rim is never wider than two pixels, and nearly everywhere lies between neighbours with a smaller and a larger
    number (or colour): so does what interpolation makes of a border. Objects that small exist too, but on a background
    or on an object they have neighbours on one side only. Without solid ids on most of the mask, nothing is a rim.

    Args:
        codes: (H, W) as `read_mask` gives them.
        coloured: whether the codes are colours.
        void: code of pixels without annotation, which count on no side.
        numbers: the sorted numbers of `codes`, where they are known.
    """
    ids = distinct(codes) if numbers is None else numbers
    counted = np.ones(len(ids), bool) if void is None else ids != void
    # A quarter of the rows mostly has a solid square of each number.
    if counted.sum() < FEWEST + 2 or any(np.isin(ids[counted], _solid(codes, step)).all() for step in (12, 1)):
        return int(counted.sum()), 0
    index = renumbered(codes, ids, np.arange(len(ids)))
    known = counted.take(index)
    inside, between = known.copy(), np.zeros_like(known)
    # Ranks are in the order of the numbers, and fit into two bytes where there are no more than that.
    ranks = index.astype(np.uint16) if len(ids) < 1 << 16 else index
    for channel in [(codes >> shift & 255).astype(np.uint8) for shift in (0, 8, 16)] if coloured else [ranks]:
        low = _around(np.where(known, channel, channel.max()), np.minimum)
        high = _around(np.where(known, channel, channel.min()), np.maximum)
        inside &= (low == channel) & (high == channel)
        between |= (low < channel) & (channel < high)
    between &= known
    flat = index.ravel()
    areas, insides, betweens = (
        np.bincount(flat, pixels.ravel(), len(ids))[counted] for pixels in (known, inside, between)
    )
    solid = insides > 0
    if solid.sum() < 2 or 2 * areas[solid].sum() < areas.sum():
        return len(areas), 0
    return len(areas), int((~solid & (betweens / areas > 0.8)).sum())


def _solid(codes: np.ndarray, step: int) -> np.ndarray:
    """The numbers that fill a square of 3 x 3 pixels: no rims, and in most maps all that there are.

    step: from one row of squares to the next.
    """
    above, here, below = (codes[start : start + len(codes) - 2 : step] for start in range(3))
    same = (above == here) & (here == below)
    across = here[:, 1:] == here[:, :-1]
    # Three columns in a row whose three pixels are equal, and equal to those of their neighbours.
    square = same[:, 1:-1] & same[:, :-2] & same[:, 2:] & across[:, 1:] & across[:, :-1]
    return distinct(here[:, 1:-1][square])


def _around(values: np.ndarray, extreme: np.ufunc) -> np.ndarray:
    """The smallest or largest of the up to nine values in and around each pixel of a map (H, W)."""
    for axis in (0, 1):
        lines = np.moveaxis(values, axis, 0)
        found = lines.copy()
        extreme(found[1:], lines[:-1], out=found[1:])
        extreme(found[:-1], lines[1:], out=found[:-1])
        values = np.moveaxis(found, 0, axis)
    return values
