"""Measure a model for the gate, and write what it measured into its golden file."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...cards.names import get_task
from ...metrics.catalogue import find_metric
from ...results.provenance import git_state
from ...results.record import Result
from ...results.store import rows_of
from .golden import (
    Accepted,
    Golden,
    GoldenMetric,
    GoldenRecipe,
    GoldenTask,
    Made,
    Tolerance,
    as_column,
    golden_path,
    read_golden,
    write_golden,
)

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Measurement:
    """A result and its values per image: index sample id, one column for each metric, averaged over noise seeds."""

    result: Result
    values: pandas.DataFrame


def evaluate_recipe(task: str, model: str, recipe: GoldenRecipe, baseline: Path, device: str = "cpu") -> Measurement:
    """Evaluate a model as `recipe` says. Earlier runs are not reused, and `OCL_BENCH_DATA` is ignored."""
    from ...evaluation.evaluate import evaluate

    with tempfile.TemporaryDirectory() as folder, _without_official_data():
        result = evaluate(
            model,
            task,
            data_root=baseline / recipe.scenes if recipe.scenes else None,
            limit=recipe.limit,
            split=recipe.split,
            noise_seeds=recipe.noise_seeds,
            batch_size=recipe.batch_size,
            device=device,
            results=folder,
            progress=False,
        )
        return Measurement(result, per_image(result))


def per_image(result: Result) -> pandas.DataFrame:
    """Values by sample id, averaged over noise seeds; a metric without values per image is a column of NaN."""
    rows = rows_of(result)
    names = [name for name in result.metrics if name in rows]
    return rows.groupby("id", sort=True)[names].mean().reindex(columns=list(result.metrics))


@contextmanager
def _without_official_data() -> Iterator[None]:
    """Golden numbers come from stored or rendered scenes, whatever data the user has."""
    value = os.environ.pop("OCL_BENCH_DATA", None)
    try:
        yield
    finally:
        if value is not None:
            os.environ["OCL_BENCH_DATA"] = value


def make_golden(
    task: str,
    model: str,
    baseline: str | Path,
    *,
    limit: int,
    tolerance: Tolerance,
    reason: str,
    scenes: str = "",
    tolerances: dict[str, Tolerance] | None = None,
) -> Path:
    """Measure a model and write its golden file; an earlier file is replaced and its reasons are kept.

    Args:
        limit: number of samples.
        reason: why the numbers are accepted.
        scenes: data root below `baseline` with stored scenes; empty: the stand-in.
        tolerances: of single metrics, instead of `tolerance`.

    Returns:
        The path of the golden file.
    """
    recipe = GoldenRecipe(scenes=scenes, limit=limit, noise_seeds=get_task(task).noise_seeds)
    measured = evaluate_recipe(task, model, recipe, Path(baseline))
    limits = _Limits(recipe, tolerance, tolerances or {})
    earlier = golden_path(Path(baseline), measured.result.task.name, model)
    before = read_golden(earlier) if earlier.is_file() else None
    return write_golden(_record(model, limits, measured.result, measured.values, reason, before), Path(baseline))


def accepted_golden(before: Golden, measured: Measurement, reason: str) -> Golden:
    """The golden file with the values measured now, and the reason appended."""
    # A candidate may have more images. A changed task may have others: the golden file then takes the new ones.
    same_images = set(before.ids) <= set(measured.values.index)
    values = measured.values.loc[list(before.ids)] if same_images else measured.values
    limits = _Limits(before.recipe, before.tolerance, before.tolerances)
    return _record(before.model, limits, measured.result, values, reason, before)


@dataclass(frozen=True)
class _Limits:
    """The fields that a golden file keeps when new numbers are accepted."""

    recipe: GoldenRecipe
    tolerance: Tolerance
    tolerances: dict[str, Tolerance]


def _record(
    model: str, limits: _Limits, result: Result, values: pandas.DataFrame, reason: str, before: Golden | None
) -> Golden:
    """A golden file from a measurement. before: the file that it replaces, whose reasons it keeps."""
    names = result.task.metrics
    corpus = tuple(name for name in names if not find_metric(name).is_mean)
    means = {name: mean_of(values[name].to_numpy()) for name in names}
    means |= {name: math.nan if (value := result.metrics[name].value) is None else value for name in corpus}
    metrics = {
        name: GoldenMetric(
            value=mean if math.isfinite(mean) else None,
            direction=result.metrics[name].direction,
        )
        for name, mean in means.items()
    }
    return Golden(
        task=GoldenTask(name=result.task.name, version=result.task.version, hash=result.task.hash),
        model=model,
        recipe=limits.recipe,
        made=Made(
            data_revision=result.data.revision,
            checkpoint_sha256=result.model.checkpoint_sha256,
            suite_version=result.identity.suite_version,
            commit=result.identity.commit,
            versions=result.setup.versions,
        ),
        tolerance=limits.tolerance,
        tolerances=limits.tolerances,
        metrics=metrics,
        ids=tuple(str(i) for i in values.index),
        rows={name: as_column(values[name].to_numpy(np.float64)) for name in names},
        corpus=corpus,
        accepted=(*(before.accepted if before else ()), _reason_entry(reason, metrics, before)),
    )


def _reason_entry(reason: str, metrics: dict[str, GoldenMetric], before: Golden | None) -> Accepted:
    """An entry that says why the numbers changed, and from which values to which."""
    old = {name: metric.value for name, metric in before.metrics.items()} if before else {}
    pairs = {name: (old.get(name), metric.value) for name, metric in metrics.items()}
    return Accepted(
        reason=reason,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=git_state()[0][:12],
        changes={name: pair for name, pair in pairs.items() if pair[0] != pair[1]},
    )


def mean_of(values: np.ndarray) -> float:
    """Mean of the finite values, NaN when there is none; unlike `np.nanmean`, which warns then."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else math.nan
