"""Recognise id maps that were resized with interpolation: the numbers between two ids look like further objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..core.log import warn_once

FEWEST = 4
"""Fewer rims than this prove nothing."""


def remark_rims(codes: np.ndarray, coloured: bool, void: int | None, path: Path, about: object) -> None:
    """Warn, once for `about`, when most ids of a mask are rims (see `count_rims`)."""
    ids, rims = count_rims(codes, coloured, void)
    if rims >= FEWEST and 2 * rims > ids:
        text = (
            f"most ids are rims ({rims} of {ids}): as after resizing with interpolation, which makes objects of borders"
        )
        warn_once("rims", about, f"{path}: {text}; resize masks by nearest pixel (said once for {about})")


def count_rims(codes: np.ndarray, coloured: bool = False, void: int | None = None) -> tuple[int, int]:
    """Number of ids of a mask, and how many of them are rims between others.

    A rim is never wider than two pixels, and nearly everywhere lies between neighbours with a smaller and a larger
    number (or colour): so does what interpolation makes of a border. Objects that small exist too, but on a background
    or on an object they have neighbours on one side only. Without solid ids on most of the mask, nothing is a rim.

    Args:
        codes: (H, W) as `read_mask` gives them.
        coloured: whether the codes are colours.
        void: code of pixels without annotation, which count on no side.
    """
    from scipy.ndimage import maximum_filter, minimum_filter

    known = np.ones(codes.shape, bool) if void is None else codes != void
    ids, index, areas = np.unique(codes[known], return_inverse=True, return_counts=True)
    if len(ids) < FEWEST + 2:
        return len(ids), 0
    inside, between = known.copy(), np.zeros_like(known)
    for channel in [codes >> shift & 255 for shift in (0, 8, 16)] if coloured else [codes]:
        low = minimum_filter(np.where(known, channel, channel.max()), 3)
        high = maximum_filter(np.where(known, channel, channel.min()), 3)
        inside &= (low == channel) & (high == channel)
        between |= (low < channel) & (channel < high)
    solid = np.bincount(index, inside[known]) > 0
    share = np.bincount(index, between[known]) / areas
    if solid.sum() < 2 or 2 * areas[solid].sum() < areas.sum():
        return len(ids), 0
    return len(ids), int((~solid & (share > 0.8)).sum())
