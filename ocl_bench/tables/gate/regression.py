"""The gate: measure the golden models again and compare, image by image.

It fails when a metric fell beyond its tolerance (the paired bootstrap interval says whether by more than chance), when
an exact golden changed on any image, and when a golden file contradicts itself: a stored value that is not the mean of
its own rows, or one that lies above what is measured. A rise only warns: an unexplained gain is often a bug, too.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ...cards.names import get_task
from ...core.errors import UsageError
from ...metrics.catalogue import find_metric
from ...metrics.statistics import paired_difference
from ...results.provenance import git_state
from ...results.record import Result
from ...results.store import rows_of, search
from .golden import (
    EXACT,
    Accepted,
    Golden,
    GoldenMetric,
    GoldenRecipe,
    GoldenTask,
    Made,
    Tolerance,
    as_column,
    golden_files,
    golden_path,
    read_golden,
    write_golden,
)
from .report import CheckedGolden, Finding, GateReport

if TYPE_CHECKING:
    import pandas

FIRST_TOLERANCE = Tolerance(absolute=0.01, relative=0.01)
"""Of a first golden file where nothing else is asked for: other processors move soft outputs by less."""
_MEAN_ROUNDING = 1e-9


@dataclass(frozen=True)
class Measurement:
    """A result with its per-image values: rows by sample id, one column for each metric, mean over noise seeds."""

    result: Result
    values: pandas.DataFrame


def regress(
    baseline: str | Path,
    *,
    task: str | None = None,
    model: str | None = None,
    candidate: str | Path | None = None,
    accept: bool = False,
    reason: str = "",
    device: str = "cpu",
    limit: int = 64,
    tolerance: Tolerance = FIRST_TOLERANCE,
) -> GateReport:
    """Compare every golden file of `baseline` with what its model measures now.

    task, model: only the golden files of these, as the files name them. candidate: a folder with results to compare
    instead of evaluating again. accept: write what was measured into the golden files with a finding, with the
    `reason`; a task and a model without a golden file get their first one, on `limit` samples of the stand-in and with
    `tolerance`. Raises UsageError for an unreadable golden file or no golden file.
    """
    if accept and not reason.strip():
        raise UsageError("--accept needs --why TEXT: it is written into the golden files")
    baseline = Path(baseline)
    report = GateReport()
    if accept and task and model and not golden_path(baseline, task, model).is_file():
        made = make_golden(task, model, baseline, limit=limit, tolerance=tolerance, reason=reason.strip())
        report.accepted.append(made)
        return report
    for path, golden in _chosen(baseline, task, model):
        start = time.perf_counter()
        findings, measured = _check_file(golden, baseline, Path(candidate) if candidate else None, device)
        if accept and findings and measured is not None:
            report.accepted.append(write_golden(_accepted(golden, measured, reason.strip()), baseline))
        else:
            report.findings += [replace(finding, file=path) for finding in findings]
        seconds = time.perf_counter() - start
        report.checked.append(CheckedGolden(golden.name, len(golden.ids), len(golden.metrics), seconds))
    return report


def _chosen(baseline: Path, task: str | None, model: str | None) -> list[tuple[Path, Golden]]:
    """The golden files of a task and a model. Raises UsageError when there is none: nothing checked is not green."""
    every = [(path, read_golden(path)) for path in golden_files(baseline)]
    found = [
        (path, golden) for path, golden in every if task in (None, golden.task.name) and model in (None, golden.model)
    ]
    if not found:
        known = ", ".join(golden.name for _, golden in every)
        raise UsageError(
            f"{baseline}: no golden file of {task or 'any task'} and {model or 'any model'}; it has {known}"
        )
    return found


def _check_file(
    golden: Golden, baseline: Path, candidate: Path | None, device: str
) -> tuple[list[Finding], Measurement | None]:
    task = get_task(golden.task.name)
    findings = check_itself(golden, task.metrics)
    if candidate is not None:
        measured = _from_candidate(golden, candidate, task.hash)
        if measured is None:
            message = f"{candidate} holds no result of this task and model with all {len(golden.ids)} images"
            return [*findings, Finding("fail", golden.name, message)], None
    else:
        measured = measure(golden.task.name, golden.model, golden.recipe, baseline, device)
    if golden.task.hash != task.hash:
        message = "made with another protocol (the task card changed); look at the change, then --accept --why TEXT"
        return [*findings, Finding("fail", golden.name, message)], measured
    return [*findings, *compare(golden, measured.values), *compare_corpus(golden, measured.result)], measured


def check_itself(golden: Golden, metrics: Sequence[str]) -> list[Finding]:
    """Findings that need no evaluation: every metric of the task is there, every value is the mean of its own rows."""
    findings = [
        Finding("fail", golden.name, f"{metric}: the golden file has no value of this metric of the task")
        for metric in metrics
        if metric not in golden.metrics
    ]
    for metric, stored in golden.metrics.items():
        if metric in golden.corpus:
            continue
        mean = _mean(golden.values(metric))
        value = math.nan if stored.value is None else stored.value
        if not (_equal(value, mean, _MEAN_ROUNDING)):
            message = f"{metric}: stored value {value:.9g} is not the mean of its own rows, {mean:.9g}"
            findings.append(Finding("fail", golden.name, message))
    return findings


def compare(golden: Golden, values: pandas.DataFrame) -> list[Finding]:
    """Findings from the comparison with per-image values measured now (rows by id, columns by metric)."""
    missing = [i for i in golden.ids if i not in values.index]
    if missing:
        message = f"{len(missing)} of {len(golden.ids)} images were not scored, first {missing[0]}"
        return [Finding("fail", golden.name, message)]
    findings = []
    for metric in golden.metrics:
        if metric in golden.corpus:
            continue
        if metric not in values:
            findings.append(Finding("fail", golden.name, f"{metric}: not measured any more"))
            continue
        finding = _compare_metric(golden, metric, values.loc[list(golden.ids), metric].to_numpy(np.float64))
        findings += [finding] if finding else []
    return findings


def compare_corpus(golden: Golden, result: Result) -> list[Finding]:
    """Findings about metrics of the whole set: only their values can be compared, not single images."""
    findings = []
    for metric in golden.corpus:
        stored, now = golden.metrics[metric], result.metrics.get(metric)
        value = None if now is None else now.value
        change = f"{metric}: {stored.value} -> {value}"
        if stored.value is None or value is None:
            if stored.value is not value:
                level: Literal["fail", "warn"] = "fail" if value is None else "warn"
                findings.append(Finding(level, golden.name, f"{change}; it has a value only once"))
            continue
        fall, allowed = stored.direction * (stored.value - value), golden.tolerance_of(metric).of(stored.value)
        if fall > allowed:
            message = f"{change}, fell by {fall:.3g} (allowed {allowed:.1g})"
            findings.append(Finding("fail", golden.name, message))
        elif fall < -allowed:
            findings.append(Finding("warn", golden.name, f"{change}, rose by {-fall:.3g} (explain it, then --accept)"))
    return findings


def _compare_metric(golden: Golden, metric: str, now: np.ndarray) -> Finding | None:
    stored, then = golden.metrics[metric], golden.values(metric)
    value = math.nan if stored.value is None else stored.value
    allowed = golden.tolerance_of(metric).of(0.0 if math.isnan(value) else value)
    mean = _mean(now)
    fall = stored.direction * (value - mean)
    first = _first_difference(golden, then, now, allowed)
    lost = int((np.isfinite(then) & ~np.isfinite(now)).sum())
    change = f"{metric}: {value:.6g} -> {mean:.6g}"
    if lost:
        return Finding("fail", golden.name, f"{change}; {lost} images lost their value; {first}")
    if fall > allowed:
        gap = paired_difference(stored.direction * then, stored.direction * now)
        verdict = "excludes 0" if gap.low > 0 else "includes 0, yet the stored value lies above what is measured"
        interval = f"paired 95 % interval of the fall [{gap.low:.3g}, {gap.high:.3g}] {verdict}"
        return Finding(
            "fail", golden.name, f"{change}, fell by {fall:.3g} (allowed {allowed:.1g}); {interval}; {first}"
        )
    if first and allowed <= EXACT and not fall < -allowed:
        return Finding("fail", golden.name, f"{change}; the mean holds, but single images changed; {first}")
    if fall < -allowed:
        return Finding("warn", golden.name, f"{change}, rose by {-fall:.3g} (explain it, then --accept); {first}")
    if np.isfinite(now).sum() != np.isfinite(then).sum():
        return Finding("warn", golden.name, f"{change}; more images have a value than before; {first}")
    return None


def _first_difference(golden: Golden, then: np.ndarray, now: np.ndarray, allowed: float) -> str:
    """Names the first image that differs by more than `allowed`, or ''."""
    same = np.isclose(then, now, rtol=0, atol=allowed, equal_nan=True)
    if same.all():
        return ""
    i = int(np.argmin(same))
    return f"first differing image {golden.ids[i]}: {then[i]:.6g} -> {now[i]:.6g} ({int((~same).sum())} differ)"


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else math.nan


def _equal(a: float, b: float, rounding: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or abs(a - b) <= rounding * max(1.0, abs(b))


def measure(task: str, model: str, recipe: GoldenRecipe, baseline: Path, device: str = "cpu") -> Measurement:
    """Evaluate a model as `recipe` says. Nothing is reused from earlier runs, and `OCL_BENCH_DATA` plays no part."""
    from ...evaluation.run import evaluate

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
        return Measurement(result, _per_image(result))


def _per_image(result: Result) -> pandas.DataFrame:
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


def _from_candidate(golden: Golden, folder: Path, task_hash: str) -> Measurement | None:
    """The newest result below `folder` of the golden's task and model that has all its images, or None."""
    found = []
    for one in search([folder], golden.task.name):
        if one.result is None:
            raise UsageError(f"{one.path}: {one.problem}")
        result = one.result
        if result.model.name == _result_name(golden.model) and result.task.hash == task_hash:
            measured = Measurement(result, _per_image(result))
            if set(golden.ids) <= set(measured.values.index):
                found.append(measured)
    return max(found, key=lambda measured: measured.result.identity.created, default=None)


def _result_name(model: str) -> str:
    """How a result names a model: `src/model.py:build` is `model-build`."""
    path, separator, attribute = model.rpartition(".py:")
    return f"{Path(path).name}-{attribute}" if separator else model


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
    """Measure a model and write its golden file anew, the reasons of an earlier one kept; returns the path.

    scenes: data root below `baseline` with stored scenes, empty for the first `limit` scenes of the stand-in.
    """
    recipe = GoldenRecipe(scenes=scenes, limit=limit, noise_seeds=get_task(task).noise_seeds)
    measured = measure(task, model, recipe, Path(baseline))
    limits = _Limits(recipe, tolerance, tolerances or {})
    earlier = golden_path(Path(baseline), measured.result.task.name, model)
    before = read_golden(earlier) if earlier.is_file() else None
    return write_golden(_record(model, limits, measured.result, measured.values, reason, before), Path(baseline))


def _accepted(before: Golden, measured: Measurement, reason: str) -> Golden:
    """The golden file with what was measured on its images, and the reason appended."""
    same_images = set(before.ids) <= set(measured.values.index)
    values = measured.values.loc[list(before.ids)] if same_images else measured.values
    limits = _Limits(before.recipe, before.tolerance, before.tolerances)
    return _record(before.model, limits, measured.result, values, reason, before)


@dataclass(frozen=True)
class _Limits:
    """What a golden file keeps when its numbers are accepted anew."""

    recipe: GoldenRecipe
    tolerance: Tolerance
    tolerances: dict[str, Tolerance]


def _record(
    model: str, limits: _Limits, result: Result, values: pandas.DataFrame, reason: str, before: Golden | None
) -> Golden:
    names = result.task.metrics
    corpus = tuple(name for name in names if not find_metric(name).is_mean)
    means = {name: _mean(values[name].to_numpy()) for name in names}
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
    """Why the numbers changed, and from what to what."""
    old = {name: metric.value for name, metric in before.metrics.items()} if before else {}
    pairs = {name: (old.get(name), metric.value) for name, metric in metrics.items()}
    return Accepted(
        reason=reason,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=git_state()[0][:12],
        changes={name: pair for name, pair in pairs.items() if pair[0] != pair[1]},
    )
