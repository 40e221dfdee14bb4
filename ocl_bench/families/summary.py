"""Aggregate per-sample rows to the metrics of a data set. Each metric defines its aggregation (`metrics.of_set`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..cards.task import TaskSpec
from ..metrics.catalogue import find_metric, is_metric
from ..metrics.metric import Metric
from ..metrics.of_set import Mean, statistic_of
from ..metrics.statistics import Interval, bootstrap_mean
from ..metrics.statistics_of_set import Statistic, bootstrap_statistic
from ..results.ranks_with import Reason
from ..results.record import MetricValue, Result

if TYPE_CHECKING:
    import pandas

ROUNDING = 1e-9
"""Relative difference above 1 that sums in another order, on another processor, may make."""


def summarise(rows: pandas.DataFrame, task: TaskSpec, source: str) -> dict[str, MetricValue]:
    """Compute value, interval and number of valid samples for each metric of the task.

    Every sample has the same weight, whatever its number of noise seeds. The bootstrap resamples images or videos,
    never frames, since frames of one video are not independent.

    Args:
        rows: per-sample rows of all noise seeds: `id`, `noise_seed`, and the columns that the metrics need.
        task: the task; `task.metrics` gives the metrics and their order.
        source: the scored part of the model (`Adapter.source`), for the signature.
    """
    return {name: _value(rows, task, find_metric(name), source) for name in task.metrics}


def set_statistic(rows: pandas.DataFrame, task: TaskSpec, metric: str) -> Statistic | None:
    """A metric as a function of sample weights; None for a metric that is the mean of its own column.

    The weights are in the order of the sorted sample ids.
    """
    return statistic_of(find_metric(metric).of_set, rows, metric, task.protocol)


def edited_value(result: Result, rows: pandas.DataFrame, task: TaskSpec | None) -> Reason | None:
    """The first metric whose stored value is not what the rows of the result give; None where all agree.

    Without the card (None), only metrics that are means of their own column can be computed again.

    A number in a JSON file can be edited by hand, its rows hardly can: their hash stands in the file. Intervals are not
    computed again here, since that takes minutes for a whole board; `ocl-bench validate` does it.
    """
    names = task.metrics if task is not None else [name for name in result.metrics if _is_mean(rows, name)]
    for name in names:
        stored = result.metrics[name].value
        if stored is None:
            continue
        try:
            value = _plain_value(rows, task, name)
        except (KeyError, TypeError, ValueError) as error:
            return Reason(f"metrics.{name}.value", f"{name} cannot be computed from the rows ({type(error).__name__})")
        if not abs(value - stored) <= ROUNDING * max(1.0, abs(value)):  # `not <=`, so that NaN counts as different
            return Reason(f"metrics.{name}.value", f"{name} is {stored:.6g} in the file, but its rows give {value:.6g}")
    return None


def _is_mean(rows: pandas.DataFrame, name: str) -> bool:
    """Whether a metric is known here as the mean of its own column, and the rows have this column."""
    return name in rows and is_metric(name) and isinstance(find_metric(name).of_set, Mean)


def _plain_value(rows: pandas.DataFrame, task: TaskSpec | None, name: str) -> float:
    """A metric of the set without its interval; NaN where it is not defined."""
    statistic = None if task is None else set_statistic(rows, task, name)
    if statistic is None:
        return float(rows.groupby("id", sort=False)[name].mean().mean())
    return float(statistic(np.ones((1, rows["id"].nunique()), dtype=np.int64))[0])


def _value(rows: pandas.DataFrame, task: TaskSpec, metric: Metric, source: str) -> MetricValue:
    """One metric with its interval; null instead of NaN, as JSON requires."""
    name, of_set = metric.name, set_statistic(rows, task, metric.name)
    if of_set is None:
        value, interval = _mean(rows, name)
    else:
        value, interval = bootstrap_statistic(of_set, rows["id"].nunique())
    known, several = not np.isnan(value), not np.isnan(interval.se)  # one sample has a value but no interval
    return MetricValue(
        value=value if known else None,
        se=interval.se if several else None,
        ci95=(interval.low, interval.high) if several else None,
        n_valid=int(rows.loc[metric.of_set.counted(rows, name), "id"].nunique()) if known else 0,
        direction=metric.direction,
        signature=task.signature(source, name),
    )


def _mean(rows: pandas.DataFrame, name: str) -> tuple[float, Interval]:
    """Mean over samples of the mean over noise seeds, with its interval. NaN (not valid) is skipped."""
    values = rows.groupby("id", sort=False)[name].mean().to_numpy(np.float64)
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else np.nan, bootstrap_mean(values)
