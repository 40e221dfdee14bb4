"""Boundaries of all labels of a frame at once: each label is one bit of a word per pixel.

Boundaries and dilations of up to 64 masks are then a few bit operations on whole frames. `davis` counts with them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_WORD = 64
"""Number of labels whose boundaries are computed together, one bit each."""

_ROWS = 2**16
"""Number of boundary pixels that are unpacked into bits at a time. Below 2**24, float32 counts stay exact."""


@dataclass(frozen=True)
class Edges:
    """Boundaries of up to 64 labels.

    Attributes:
        words: (H, W) unsigned; bit k is set on the boundary of label k.
        near: (H, W) unsigned; bit k is set within the tolerance of the boundary of label k.
        labels: number of labels.
    """

    words: np.ndarray
    near: np.ndarray
    labels: int

    def pixels(self) -> np.ndarray:
        """(labels,) int64 number of boundary pixels."""
        total = np.zeros(self.labels, np.int64)
        for bits in _unpacked(self.words[self.words > 0], self.labels):
            total += bits.sum(0).astype(np.int64)
        return total


def edges_of(maps: np.ndarray, labels: np.ndarray, void: np.ndarray, radius: int) -> Edges:
    """Boundaries of at most 64 `labels` of `maps` (H, W), integers >= 0. void: (H, W) bool, pixels of no mask."""
    # The narrowest word that holds a bit for each label: the dilation moves whole frames of them.
    kind = next(k for k in (np.uint8, np.uint16, np.uint32, np.uint64) if len(labels) <= np.iinfo(k).bits)
    bit_of = np.zeros(int(maps.max(initial=0)) + 1, kind)
    bit_of[labels] = np.left_shift(np.ones(len(labels), kind), np.arange(len(labels), dtype=kind))
    masks = np.take(bit_of, maps)
    masks[void] = 0
    words = boundary_bits(masks)
    return Edges(words, _dilated(words, radius), len(labels))


def boundary_bits(masks: np.ndarray) -> np.ndarray:
    """Boundaries (H, W) of masks (H, W): bits that are set in some, not all, of a pixel and its lower right neighbours.

    The boundary is one pixel wide and lies half a pixel towards the origin, as in the official code. Beyond the frame
    the last row and column repeat: a mask that fills the frame has no boundary.
    """
    anywhere, everywhere = masks.copy(), masks.copy()
    for axis in (0, 1):  # rows, then columns of what the rows left: three neighbours in two steps
        here, there = (np.s_[:-1], np.s_[1:]) if axis == 0 else (np.s_[:, :-1], np.s_[:, 1:])
        anywhere[here] |= anywhere[there]
        everywhere[here] &= everywhere[there]
    return anywhere ^ everywhere


def _dilated(words: np.ndarray, radius: int) -> np.ndarray:
    """Bits of all pixels within a disk x^2 + y^2 <= radius^2, which is a stack of horizontal runs."""
    height, width = words.shape
    run, half = words.copy(), 0
    near = np.zeros_like(words)
    # From the shortest run, at the top of the disk, to the longest: each run extends the one before it.
    for y in range(radius, -1, -1):
        longest = math.isqrt(radius**2 - y**2)
        for x in range(half + 1, min(longest, width - 1) + 1):
            run[:, x:] |= words[:, :-x]
            run[:, :-x] |= words[:, x:]
        half = longest
        if y < height:
            near[y:] |= run[: height - y]
            near[: height - y] |= run[y:]
    return near


def edges_met(of: Edges, other: Edges) -> np.ndarray:
    """(labels of `of`, labels of `other`) int64 boundary pixels of the first near the boundary of the second."""
    at = np.flatnonzero(of.words)  # boundaries are few pixels of a frame
    total = np.zeros((of.labels, other.labels), np.int64)
    blocks = zip(
        _unpacked(of.words.ravel()[at], of.labels), _unpacked(other.near.ravel()[at], other.labels), strict=True
    )
    for edge, near in blocks:
        total += (edge.T @ near).astype(np.int64)
    return total


def _unpacked(words: np.ndarray, labels: int) -> Iterator[np.ndarray]:
    """(rows, labels) float32 bits of (N,) words, a block of at most `_ROWS` rows at a time.

    Products of two blocks are exact, because their counts stay far below 2**24, the integers of float32.
    """
    for start in range(0, len(words), _ROWS):
        octets = words[start : start + _ROWS, None].view(np.uint8)
        yield np.unpackbits(octets, axis=1, count=labels, bitorder="little").astype(np.float32)


def parts_of(labels: np.ndarray) -> list[np.ndarray]:
    """The labels, 64 at a time; without labels one empty part."""
    return [labels[start : start + _WORD] for start in range(0, max(len(labels), 1), _WORD)]
