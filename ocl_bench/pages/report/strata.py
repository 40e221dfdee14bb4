"""A metric against the number of objects and their size, beside floors and ceilings on the same images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...core.errors import UsageError
from ...metrics import find_metric
from ...results.record import Result
from ...results.store import rows_of
from ...tables.leaderboard.strata import PROPERTIES, Property
from .run import Run, mean_over_seeds

if TYPE_CHECKING:
    import pandas

_SHOWN = ("objects", "size")


def strata(runs: Sequence[Run], references: Sequence[Result]) -> list[dict[str, Any]]:
    """The chosen metric on strata of the samples.

    Returns:
        For each property: its name and text, the metric, the labels and numbers of samples of the strata, and lines: a
        name, a role, and a mean for each stratum, None without a valid sample. Empty where no metric or property has
        values of single samples.
    """
    metric = _metric(runs[0])
    if metric is None:
        return []
    tables = [(run.name, "run", run.rows) for run in runs] + tables_of(references)
    found: list[dict[str, Any]] = []
    for name in _SHOWN:
        split = PROPERTIES[name]
        rows = runs[0].rows
        if not runs[0].has_numbers(split.column):
            continue
        places = {stratum.label: _inside(rows[split.column], stratum.low, stratum.high) for stratum in split.strata}
        # A stratum may hold samples on which the metric is not valid, such as images without objects.
        labels = [label for label, ids in places.items() if _mean(rows, metric, ids) is not None]
        lines = [
            {"name": who, "role": role, "values": [_mean(table, metric, places[label]) for label in labels]}
            for who, role, table in tables
            if metric in table
        ]
        found.append(
            {
                "name": split.name,
                "text": _text(split, runs[0].family.view),
                "metric": metric,
                "direction": find_metric(metric).direction,
                "labels": labels,
                "counts": [len(places[label]) for label in labels],
                "lines": lines,
            }
        )
    return [one for one in found if len(one["labels"]) > 1]


def _metric(run: Run) -> str | None:
    """Mean best overlap where the task has it, else the main metric; None without values of single samples."""
    names = run.per_sample
    return next((name for name in names if name.startswith("mbo")), next(iter(names), None))


def tables_of(references: Sequence[Result]) -> list[tuple[str, str, pandas.DataFrame]]:
    """Name, role and rows of the floors and ceilings whose rows can be read."""
    tables = []
    for reference in references:
        try:
            tables.append((reference.model.name, reference.model.role, mean_over_seeds(rows_of(reference))))
        except UsageError:
            continue  # a reference without rows still stands in the tiles
    return tables


def _inside(values: pandas.Series, low: float, high: float) -> pandas.Index:
    return values.index[(values >= low) & (values < high)]


def _mean(rows: pandas.DataFrame, metric: str, ids: pandas.Index) -> float | None:
    mean = float(rows[metric].reindex(ids).dropna().mean())
    return round(mean, 4) if math.isfinite(mean) else None


def _text(split: Property, view: str) -> str:
    """What the samples are split by. The rows of tasks with classes count classes as objects."""
    counted = "classes" if view == "classes" else "objects"
    return {"objects": f"number of {counted}", "size": "mean object size"}[split.name]
