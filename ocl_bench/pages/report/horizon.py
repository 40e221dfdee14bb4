"""Metrics of visual prediction at each step, beside the floors and ceilings of the same model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...metrics import find_metric
from ...results.record import Result
from ...tables.horizon import curves
from .run import Run
from .strata import tables_of


def horizons(runs: Sequence[Run], references: Sequence[Result]) -> list[dict[str, Any]]:
    """A chart for each metric, in the form of `strata`; empty where the rows have no steps."""
    tables = [(run.name, "run", run.rows) for run in runs] + tables_of(references)
    return [
        {
            "name": "step",
            "text": "predicted step",
            "metric": metric,
            "direction": find_metric(metric).direction,
            "labels": [str(step) for step in range(1, len(lines[0].values) + 1)],
            "counts": [],
            "lines": [
                {"name": line.name, "role": line.role, "values": [_rounded(value) for value in line.values]}
                for line in lines
            ],
        }
        for metric, lines in curves(tables).items()
    ]


def _rounded(value: float) -> float | None:
    return round(float(value), 4) if math.isfinite(value) else None
