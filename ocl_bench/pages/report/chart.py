"""The geometry of line charts over strata: the template only draws it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, zip_longest
from typing import Any

WIDTH, HEIGHT = 460, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 118, 14, 46
_LINE = 13
"""Least distance of two labels in pixels."""
_MOST = {"floor": 2, "ceiling": 1}
"""References in a chart; of floors and of ceilings those with the best values."""
_WRITTEN = 8
"""Most names of strata on an axis: of more, as of steps, only some are written."""


def line_chart(stratum: dict[str, Any]) -> dict[str, Any]:
    """Positions in pixels of the axis, the strata, and the lines of one entry of `strata`."""
    lines = _chosen(stratum["lines"], stratum["direction"])
    values = [value for line in lines for value in line["values"] if value is not None]
    low, high = min([0.0, *values]), max([*values, 0.0])
    step = _step(high - low)
    high = step * -(-high // step)
    low = step * (low // step)
    count = len(stratum["labels"])

    def x(position: int) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * (position + 0.5) / count

    def y(value: float) -> float:
        return _TOP + (HEIGHT - _TOP - _BOTTOM) * (high - value) / ((high - low) or 1.0)

    drawn = []
    for line in lines:
        points = [(x(place), y(value)) for place, value in enumerate(line["values"]) if value is not None]
        if points:
            drawn.append({**line, "points": [(round(a, 1), round(b, 1)) for a, b in points], "end": points[-1][1]})
    for line, place in zip(drawn, _apart([line["end"] for line in drawn]), strict=True):
        line["label"] = round(place, 1)
    ticks = round((high - low) / step)
    return {
        **stratum,
        "width": WIDTH,
        "height": HEIGHT,
        "left": _LEFT,
        "right": WIDTH - _RIGHT,
        "bottom": HEIGHT - _BOTTOM,
        "ticks": [{"y": round(y(low + step * n), 1), "text": f"{low + step * n:g}"[:5]} for n in range(ticks + 1)],
        "groups": [
            {"x": round(x(place), 1), "text": label, "count": number}
            for place, (label, number) in enumerate(zip_longest(stratum["labels"], stratum["counts"]))
            if place % -(-count // _WRITTEN) == 0
        ],
        "drawn": drawn,
    }


def _chosen(lines: Sequence[dict[str, Any]], direction: int) -> list[dict[str, Any]]:
    """All runs, and the best floors and ceilings: more lines could not be told apart."""

    def mean(line: dict[str, Any]) -> float:
        values = [value for value in line["values"] if value is not None]
        return direction * sum(values) / len(values) if values else float("-inf")

    chosen = [line for line in lines if line["role"] not in _MOST]
    for role, most in _MOST.items():
        chosen += sorted((line for line in lines if line["role"] == role), key=mean, reverse=True)[:most]
    return chosen


def _step(span: float) -> float:
    """Distance of the ticks of an axis: 1, 2 or 5 times a power of ten, for about five ticks."""
    power = 1e-3
    while True:
        for step in (1, 2, 5):
            if span / (step * power) <= 5:
                return step * power
        power *= 10


def _apart(places: Sequence[float]) -> list[float]:
    """The places moved down where two are closer than a line of text, in their order."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = list(places)
    for before, after in pairwise(order):
        moved[after] = max(moved[after], moved[before] + _LINE)
    # What was pushed below the axis goes up again, with its neighbours.
    limit = HEIGHT - _BOTTOM + 4.0
    for index in reversed(order):
        moved[index] = min(moved[index], limit)
        limit = moved[index] - _LINE
    return moved
