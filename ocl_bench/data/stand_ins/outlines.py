"""Outlines of masks: closed polygons along the edges of pixels."""

from __future__ import annotations

import numpy as np

Point = tuple[int, int]


def outlines(mask: np.ndarray) -> list[list[Point]]:
    """Closed loops of corners (x, y) around the regions of a mask (H, W) bool, and around its holes.

    Loops around holes turn the other way, see `signed_area`. Regions that touch only at a corner get separate loops.
    A straight run of pixels is one edge.
    """
    following = _edges(np.pad(mask, 1))
    loops = []
    while following:
        start = min(following)
        loop, point, heading = [], start, (0, 0)
        while following.get(point):
            candidates = following[point]
            # At a corner where two regions touch, a right turn stays with the region that the loop follows.
            chosen = min(candidates, key=lambda step: _turn(heading, step))
            candidates.remove(chosen)
            if not candidates:
                del following[point]
            if chosen != heading:
                loop.append(point)
            heading = chosen
            point = (point[0] + chosen[0], point[1] + chosen[1])
        loops.append(loop)
    return loops


def signed_area(loop: list[Point]) -> float:
    """Area in pixels that a loop encloses: positive around a region, negative around a hole (shoelace formula)."""
    x, y = np.array(loop, dtype=np.float64).T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)


def _edges(padded: np.ndarray) -> dict[Point, list[Point]]:
    """Corner -> unit steps from it along edges of pixels, with the region on the right-hand side (y points down)."""
    following: dict[Point, list[Point]] = {}
    sides = (
        (padded[1:-1, 1:-1] & ~padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 1:-1] & ~padded[1:-1, 2:], (1, 0), (0, 1)),
        (padded[1:-1, 1:-1] & ~padded[2:, 1:-1], (1, 1), (-1, 0)),
        (padded[1:-1, 1:-1] & ~padded[1:-1, :-2], (0, 1), (0, -1)),
    )
    for side, (dx, dy), step in sides:
        for y, x in zip(*np.nonzero(side), strict=True):
            following.setdefault((int(x) + dx, int(y) + dy), []).append(step)
    return following


def _turn(heading: Point, step: Point) -> int:
    """0 for a right turn, 1 for straight on, 2 for a left turn."""
    return 1 - (heading[0] * step[1] - heading[1] * step[0])
