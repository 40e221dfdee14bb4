"""Metrics that are means of a column: one sample has one vote, whatever the number of noise seeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..cards.task import TaskSpec

if TYPE_CHECKING:
    import pandas

    from ..results.record import MetricValue


def summarise_means(
    rows: pandas.DataFrame, task: TaskSpec, source: str, direction: Callable[[str], Literal[1, -1]]
) -> dict[str, MetricValue]:
    """Mean over samples of the mean over noise seeds for each metric of the task, also in the bootstrap.

    rows: `id` and a float column for each metric, NaN where it is not valid. direction: of a metric, +1 or -1.
    """
    from ..metrics.statistics import bootstrap_mean
    from ..results.record import MetricValue

    samples = rows.groupby("id", sort=False)[list(task.metrics)].mean()  # skips NaN: seeds that are not valid
    summary = {}
    for name in task.metrics:
        values = samples[name].to_numpy(np.float64)
        values = values[~np.isnan(values)]
        interval = bootstrap_mean(values)
        several = values.size >= 2
        summary[name] = MetricValue(
            value=float(values.mean()) if values.size else None,
            se=interval.se if several else None,
            ci95=(interval.low, interval.high) if several else None,
            n_valid=int(values.size),
            direction=direction(name),
            signature=task.signature(source, name),
        )
    return summary
