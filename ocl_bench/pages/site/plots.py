"""Geometry of the plots of the site; templates only draw it. Lengths are in pixels of the drawing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .rows import Line, Section

WHISKER = (120, 16)
"""Width and height of the whisker in a cell."""
FEWEST = 3
"""Fewest rows that are worth a plot."""


@dataclass(frozen=True)
class Scale:
    """A linear axis from `low` to `high`, drawn from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Where a value lies; one beyond an end lies at that end."""
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
    """An axis that holds all numbers of a metric, between round ends, from 0 unless they lie close together."""
    ends = [end for line in lines if metric in line.values for end in line.values[metric].ends] or [0.0, 1.0]
    low, high = min(ends), max(ends)
    if high - low > 0.5 * abs(high):
        low, high = min(0.0, low), max(0.0, high)
    step = nice_step(max(high - low, 1e-6) / 5)
    return Scale(
        step * math.floor(low / step + 1e-9),
        step * max(math.ceil(high / step - 1e-9), math.floor(low / step + 1e-9) + 1),
        start,
        end,
    )


def any_width(lines: Sequence[Line], metric: str) -> bool:
    """Whether any number of a metric has an interval or a spread."""
    return any(low < high for line in lines if metric in line.values for low, high in [line.values[metric].ends])


def band(section: Section, metric: str, scale: Scale, direction: int) -> list[dict[str, Any]]:
    """What lies below the best floor and above the lowest ceiling of a section, as rectangles along the axis."""
    out: list[dict[str, Any]] = []
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
    """All rows of a section that have a metric, with their intervals, one below the other; None for too few.

    Without any interval the plot would only repeat the table: None, too.
    """
    lines = [line for line in section.lines if metric in line.values]
    if len(lines) < FEWEST or not any_width(lines, metric):
        return None
    left, right, step = 20 + round(6.8 * max(len(line.name) + 2 for line in lines)), 510, 22
    scale = axis(lines, metric, left, right)
    rows = [{**whisker(line, metric, scale), "y": 30 + step * n, "line": line} for n, line in enumerate(lines)]
    return {
        "width": 560,
        "height": 46 + step * len(lines),
        "left": left,
        "right": right,
        "bottom": 20 + step * len(lines),
        "rows": rows,
        "ticks": scale.ticks,
        "bands": band(section, metric, scale, direction),
    }


def scatter(lines: Sequence[Line], metric: str, fact: str) -> dict[str, Any] | None:
    """A metric against a cost (`parameters` or `images_per_second`), logarithmic; None where that is no picture."""
    points = [(float(line.facts[fact]), line) for line in lines if line.facts.get(fact) and metric in line.values]
    points = [(cost, line) for cost, line in points if cost > 0]
    if len(points) < FEWEST or len({cost for cost, _ in points}) < 2:
        return None
    costs = [math.log10(cost) for cost, _ in points]
    marks = [{"along": math.log10(cost), "line": line, "cost": cost} for cost, line in points]
    return _points(marks, metric, min(costs) - 0.1, max(costs) + 0.1, _log_ticks)


def _points(
    marks: Sequence[dict[str, Any]],
    metric: str,
    low: float,
    high: float,
    ticks: Callable[[Scale], list[dict[str, Any]]],
    rise: int = 0,
) -> dict[str, Any]:
    """The frame that plots of points share, with their marks and labels.

    Args:
        marks: `along` (place on the horizontal axis), `line` and `cost` of each point.
        metric: the vertical axis.
        low: least place on the horizontal axis.
        high: largest one.
        ticks: gives the ticks of that axis.
        rise: pixels by which a label stands above its point.
    """
    width, height, left, bottom = 460, 300, 48, 256
    across = Scale(low, high, left, width - 110)
    up = axis([mark["line"] for mark in marks], metric, bottom, 16)
    placed = [
        {**mark, "x": across(mark["along"]), "y": up(mark["line"].values[metric].value), "rise": rise} for mark in marks
    ]
    return {
        "width": width,
        "height": height,
        "left": left,
        "right": width - 110,
        "bottom": bottom,
        "points": _labelled(placed, width),
        "x_ticks": ticks(across),
        "y_ticks": up.ticks,
        "scales": (across, up),
    }


def _log_ticks(along: Scale) -> list[dict[str, Any]]:
    """Powers of ten on an axis of logarithms, with 2 and 5 times them where it holds fewer than three."""
    for factors in ((1,), (1, 2, 5)):
        values = [
            factor * 10.0**power
            for power in range(math.floor(along.low), math.ceil(along.high) + 1)
            for factor in factors
            if along.low <= math.log10(factor * 10.0**power) <= along.high
        ]
        if len(values) > 2:
            break
    return [{"at": along(math.log10(value)), "text": short_number(value)} for value in values]


def short_number(value: float) -> str:
    """A number that fits on an axis: 0.5, 20, 1 k, 50 k, 2 M."""
    power = max(0, int(math.log10(value) + 1e-9) // 3)
    return f"{value / 1000**power:g}" + (f" {' kMGT'[power]}" if power else "")


def _labelled(points: list[dict[str, Any]], width: float) -> list[dict[str, Any]]:
    """Label each point on its right or left (`side` 1 or -1) where the label meets neither points nor labels."""
    taken: list[tuple[float, float, float]] = []
    out = []
    for point in sorted(points, key=lambda point: point["y"]):
        x, y, length = point["x"], point["y"], 6.4 * len(point["line"].name) + 8
        others = [one for one in points if one is not point and abs(one["y"] - y) < 10]
        found = 0
        for side, start in ((1, x + 5), (-1, x - 5 - length)):
            end = start + length
            meets = any(abs(y - at) < 12 and start < right and left < end for left, right, at in taken)
            if not meets and start >= 0 and end <= width and not any(start - 4 < one["x"] < end + 4 for one in others):
                taken.append((start, end, y))
                found = side
                break
        out.append({**point, "label": point["line"].name if found else "", "side": found})
    return out


def history(lines: Sequence[Line], metric: str, direction: int) -> dict[str, Any] | None:
    """Comparable published rows by year of their paper, with the best so far; None where that is no picture."""
    rows = [line for line in lines if line.comparable == "yes" and line.year and metric in line.values]
    years = sorted({int(line.year) for line in rows})
    if len(rows) < FEWEST or len(years) < 2:
        return None
    best, so_far = None, []
    for year in years:
        own = [row.values[metric].value for row in rows if int(row.year) == year]
        top = max(own) if direction > 0 else min(own)
        best = top if best is None else (max(best, top) if direction > 0 else min(best, top))
        so_far.append((year, best))

    def ticks(along: Scale) -> list[dict[str, Any]]:
        return [{"at": along(year), "text": str(year)} for year in range(years[0], years[-1] + 1)]

    marks = [{"along": int(row.year), "line": row, "cost": None} for row in rows]
    # The line of the best so far leaves a point to the right: labels stand above it.
    plot = _points(marks, metric, years[0] - 0.4, years[-1] + 0.4, ticks, rise=9)
    along, up = plot["scales"]
    return {**plot, "steps": [(along(year), up(value)) for year, value in so_far], "best": so_far}
