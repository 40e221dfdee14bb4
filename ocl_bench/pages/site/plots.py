"""Geometry of the plots of the site; templates only draw it. Lengths are in pixels of the drawing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .rows import Line, Section

WHISKER = (112, 16)
"""Width and height of the whisker in a cell."""


@dataclass(frozen=True)
class Scale:
    """A linear axis from `low` to `high`, drawn from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    @property
    def ticks(self) -> list[dict[str, Any]]:
        """Round numbers on the axis, with their place."""
        step = nice_step((self.high - self.low) / 4)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [{"at": self(number * step), "text": f"{number * step:.6g}"} for number in range(first, last + 1)]


def nice_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))


def axis(lines: Sequence[Line], metric: str, start: float, end: float) -> Scale:
    """An axis that holds all numbers of a metric, from 0 where none is negative, to a round end."""
    ends = [end for line in lines if metric in line.values for end in line.values[metric].ends]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    step = nice_step(max(high - low, 1e-6) / 5)
    return Scale(step * math.floor(low / step + 1e-9), step * math.ceil(high / step - 1e-9) or step, start, end)


def band(section: Section, metric: str, scale: Scale, direction: int) -> list[dict[str, Any]]:
    """What lies below the best floor and above the lowest ceiling of a section, as rectangles along the axis."""
    out = []
    for role in ("floor", "ceiling"):
        bound = section.bound(metric, role, direction)
        if bound is not None:
            outer = scale.low if (role == "floor") == (direction > 0) else scale.high
            first, last = sorted((scale(bound), scale(outer)))
            out.append({"role": role, "x": first, "width": round(last - first, 1), "value": bound})
    return [one for one in out if one["width"] > 0]


def whisker(line: Line, metric: str, scale: Scale) -> dict[str, Any]:
    """The interval of one number and its value on the axis."""
    value = line.values[metric]
    low, high = value.ends
    kind = "interval" if value.low is not None else "spread"
    return {"low": scale(low), "high": scale(high), "at": scale(value.value), "kind": kind}


def interval_plot(section: Section, metric: str, direction: int) -> dict[str, Any] | None:
    """All rows of a section that have a metric, one below the other, with their intervals."""
    lines = [line for line in section.lines if metric in line.values]
    if len(lines) < 2:
        return None
    left, right, step = 250, 690, 22
    scale = axis(lines, metric, left, right)
    rows = [{**whisker(line, metric, scale), "y": 30 + step * n, "line": line} for n, line in enumerate(lines)]
    return {
        "width": 760,
        "height": 46 + step * len(lines),
        "left": left,
        "right": right,
        "bottom": 20 + step * len(lines),
        "rows": rows,
        "ticks": scale.ticks,
        "bands": band(section, metric, scale, direction),
    }


def scatter(lines: Sequence[Line], metric: str, fact: str) -> dict[str, Any] | None:
    """A metric against a cost (`parameters` or `images_per_second`), logarithmic; None with fewer than three points."""
    points = [(float(line.facts[fact]), line) for line in lines if line.facts.get(fact) and metric in line.values]
    points = [(cost, line) for cost, line in points if cost > 0]
    if len(points) < 3 or len({cost for cost, _ in points}) < 2:
        return None
    width, height, left, bottom = 460, 300, 48, 256
    up = axis([line for _, line in points], metric, bottom, 16)
    costs = [math.log10(cost) for cost, _ in points]
    along = Scale(min(costs) - 0.1, max(costs) + 0.1, left, width - 110)
    powers = [n for n in range(math.floor(min(costs)), math.ceil(max(costs)) + 1) if along.low <= n <= along.high]
    marks = [
        {"x": along(math.log10(cost)), "y": up(line.values[metric].value), "line": line, "cost": cost}
        for cost, line in points
    ]
    return {
        "width": width,
        "height": height,
        "left": left,
        "right": width - 110,
        "bottom": bottom,
        "points": _labelled(marks),
        "x_ticks": [{"at": along(n), "text": power_text(n)} for n in powers],
        "y_ticks": up.ticks,
    }


def power_text(power: int) -> str:
    """10 to a power in words that fit on an axis: 0.1, 1, 10, 100, 1 k, 10 k, 100 k, 1 M, ..."""
    if power < 3:
        return f"{10.0**power:g}"
    return f"{10 ** (power % 3)} {'kMGT'[power // 3 - 1]}"


def _labelled(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give a label to each point whose label meets neither a point nor a label that stands already."""
    taken: list[tuple[float, float, float]] = []
    out = []
    for point in sorted(points, key=lambda point: point["y"]):
        x, y, width = point["x"] + 7, point["y"], 6.2 * len(point["line"].name) + 4
        free = all(abs(y - other) > 11 or x + width < start or x > end for start, end, other in taken)
        free = free and all(one is point or abs(one["y"] - y) > 9 or not x - 3 < one["x"] < x + width for one in points)
        if free:
            taken.append((x, x + width, y))
        out.append({**point, "label": point["line"].name if free else ""})
    return out


def history(lines: Sequence[Line], metric: str, direction: int) -> dict[str, Any] | None:
    """Comparable published rows by the year of their paper, with the line of the best so far; None below two years."""
    rows = [line for line in lines if line.comparable == "yes" and line.year and metric in line.values]
    years = sorted({int(line.year) for line in rows})
    if len(years) < 2:
        return None
    width, height, left, bottom = 460, 300, 48, 256
    up = axis(rows, metric, bottom, 16)
    along = Scale(years[0] - 0.4, years[-1] + 0.4, left, width - 110)
    marks = [{"x": along(int(row.year)), "y": up(row.values[metric].value), "line": row, "cost": None} for row in rows]
    best, steps = None, []
    for year in years:
        own = [row.values[metric].value for row in rows if int(row.year) == year]
        top = max(own) if direction > 0 else min(own)
        best = top if best is None else (max(best, top) if direction > 0 else min(best, top))
        steps.append((along(year), up(best)))
    return {
        "width": width,
        "height": height,
        "left": left,
        "right": width - 110,
        "bottom": bottom,
        "points": _labelled(marks),
        "steps": steps,
        "x_ticks": [{"at": along(year), "text": str(year)} for year in range(years[0], years[-1] + 1)],
        "y_ticks": up.ticks,
    }
