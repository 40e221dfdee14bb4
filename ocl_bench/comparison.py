"""Is one method better than another? Results of the same images, training seeds paired (`statistics.Difference`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas

from .adapters import get_adapter
from .errors import UsageError
from .registry import get_task
from .results import Result, read_result, read_rows
from .spec import TaskSpec
from .statistics import Difference, Statistic, two_level_statistic_difference


def load_methods(folder: Path) -> dict[str, list[Result]]:
    """Results below a folder by method (`dias:1` is a training seed of `dias`), in the order of training seeds."""
    methods: dict[str, list[Result]] = {}
    for path in sorted(folder.rglob("*.json")):
        result = read_result(path)
        methods.setdefault(result.model.name.partition(":")[0], []).append(result)
    return {name: sorted(found, key=lambda one: one.model.training_seed or 0) for name, found in methods.items()}


def difference(
    ours: Sequence[Result], theirs: Sequence[Result], metric: str, other_metric: str | None = None
) -> Difference:
    """`metric` of our method minus `other_metric` (by default the same) of theirs; positive is always better for ours.

    ours, theirs: one result for each training seed; seeds that only one of them has are left out. A method that is not
    trained meets each seed of the other. Only images on which every result has a value count. Raises UsageError for
    other tasks or images and for methods without a seed in common.
    """
    everything = [*ours, *theirs]
    task = _common_task(everything)
    ours, theirs = _paired(ours, theirs)
    columns = [(result, metric) for result in ours] + [(result, other_metric or metric) for result in theirs]
    rows = _common_rows(columns, task)
    statistics = [_statistic(table, task, name) for table, (_, name) in zip(rows, columns, strict=True)]
    sign = everything[0].metrics[metric].direction
    signed = [_signed(statistic, sign) for statistic in statistics]
    return two_level_statistic_difference(signed[: len(ours)], signed[len(ours) :], rows[0]["id"].nunique())


def _common_task(results: Sequence[Result]) -> TaskSpec:
    first = results[0]
    for other in results:
        if other.task.hash != first.task.hash:
            raise UsageError(f"{first.model.name} and {other.model.name}: results of different protocols")
        if other.data.ids_sha256 != first.data.ids_sha256:
            raise UsageError(f"{first.model.name} and {other.model.name}: results of different images")
    task = get_task(first.task.name)
    if task.hash != first.task.hash:
        raise UsageError(f"{first.model.name}: a result of another version of task '{task.name}'")
    return task


def _paired(ours: Sequence[Result], theirs: Sequence[Result]) -> tuple[Sequence[Result], Sequence[Result]]:
    """As many results of either: a method that is not trained meets each seed, others are joined by their seeds."""
    if any(len(side) == 1 and side[0].model.training_seed is None for side in (ours, theirs)):
        most = max(len(ours), len(theirs))
        return list(ours) * (most // len(ours)), list(theirs) * (most // len(theirs))
    seeds_a, seeds_b = ({one.model.training_seed: one for one in side} for side in (ours, theirs))
    common = [seed for seed in seeds_a if seed in seeds_b]
    if not common:
        raise UsageError(f"{ours[0].model.name} and {theirs[0].model.name}: no training seed in common")
    return [seeds_a[seed] for seed in common], [seeds_b[seed] for seed in common]


def _common_rows(columns: Sequence[tuple[Result, str]], task: TaskSpec) -> list[pandas.DataFrame]:
    """Rows of each result on the images on which all of them have values, sorted by image."""
    tables, valid = [], None
    for result, metric in columns:
        if metric not in result.metrics:
            raise UsageError(f"{result.model.name}: no metric '{metric}' in its result")
        if result.rows_path is None or not result.rows_path.is_file():
            raise UsageError(f"{result.model.name}: the rows of its result are missing")
        table = read_rows(result.rows_path)
        scored = table.dropna(subset=[metric]) if metric in table else table
        valid = set(scored["id"]) if valid is None else valid & set(scored["id"])
        tables.append(table)
    if not valid:
        raise UsageError(f"no image of task '{task.name}' is scored in all results")
    return [table[table["id"].isin(valid)].sort_values(["id", "noise_seed"]) for table in tables]


def _statistic(rows: pandas.DataFrame, task: TaskSpec, metric: str) -> Statistic:
    """The metric as a function of how often each image is drawn; means over noise seeds first."""
    corpus = get_adapter(task).statistic(rows, task, metric)
    if corpus is not None:
        return corpus
    values = rows.groupby("id", sort=True)[metric].mean().to_numpy(dtype=np.float64)
    return lambda weights: weights @ values / weights.sum(axis=1)


def _signed(statistic: Statistic, sign: int) -> Statistic:
    return lambda weights: sign * statistic(weights)
