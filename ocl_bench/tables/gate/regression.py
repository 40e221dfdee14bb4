"""The gate: measure the golden models again and compare, image by image.

It fails when a metric fell beyond its tolerance (the paired bootstrap interval tells whether by more than chance), when
an exact golden file changed on any image, and when a golden file contradicts itself: a stored value that is not the
mean of its own rows, or one that lies above what is measured. A rise only warns, although an unexplained gain is often
a bug.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ...cards.names import get_task
from ...core.errors import UsageError
from ...metrics.statistics import paired_difference
from ...results.record import Result
from ...results.store import search
from .golden import (
    EXACT,
    Golden,
    Tolerance,
    golden_files,
    golden_path,
    read_golden,
    write_golden,
)
from .recording import Measurement, accepted_golden, evaluate_recipe, make_golden, mean_of, per_image
from .report import CheckedGolden, Finding, GateReport

if TYPE_CHECKING:
    import pandas

FIRST_TOLERANCE = Tolerance(absolute=0.01, relative=0.01)
"""Default tolerance of a first golden file. Other processors move soft outputs by less."""
_MEAN_ROUNDING = 1e-9
"""A stored mean may differ by this much from the mean of its rows: other versions of numpy sum in another order."""


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

    Args:
        baseline: folder with golden files.
        task: only golden files of this task.
        model: only golden files of this model, as the files name it.
        candidate: folder with results to compare instead of evaluating again.
        accept: write the measured values into every golden file with a finding; make the first golden file when
            `task` and `model` have none.
        reason: why the numbers changed; needed with `accept`.
        device: where to evaluate.
        limit: number of stand-in samples of a first golden file.
        tolerance: of a first golden file.

    Raises:
        UsageError: when a golden file cannot be read, or there is none.
    """
    if accept and not reason.strip():
        raise UsageError("--accept needs --why TEXT: it is written into the golden files")
    baseline = Path(baseline)
    report = GateReport()
    if accept and task and model and not golden_path(baseline, task, model).is_file():
        first = make_golden(task, model, baseline, limit=limit, tolerance=tolerance, reason=reason.strip())
        report.accepted.append(first)
        return report
    for path, golden in _matching_files(baseline, task, model):
        start = time.perf_counter()
        findings, measured = _check_file(golden, baseline, Path(candidate) if candidate else None, device)
        if accept and findings and measured is not None:
            report.accepted.append(write_golden(accepted_golden(golden, measured, reason.strip()), baseline))
        else:
            report.findings += [replace(finding, file=path) for finding in findings]
        seconds = time.perf_counter() - start
        report.checked.append(CheckedGolden(golden.name, len(golden.ids), len(golden.metrics), seconds))
    return report


def _matching_files(baseline: Path, task: str | None, model: str | None) -> list[tuple[Path, Golden]]:
    """The golden files of a task and a model, each None for any. Raises UsageError when there is none."""
    files = [(path, read_golden(path)) for path in golden_files(baseline)]
    matching = [
        (path, golden) for path, golden in files if task in (None, golden.task.name) and model in (None, golden.model)
    ]
    if not matching:
        known = ", ".join(golden.name for _, golden in files)
        raise UsageError(
            f"{baseline}: no golden file of {task or 'any task'} and {model or 'any model'}; it has {known}"
        )
    return matching


def _check_file(
    golden: Golden, baseline: Path, candidate: Path | None, device: str
) -> tuple[list[Finding], Measurement | None]:
    """Findings about one golden file, and the measurement that `--accept` would write; None when there is none."""
    task = get_task(golden.task.name)
    findings = check_itself(golden, task.metrics)
    if candidate is not None:
        measured = _from_candidate(golden, candidate, task.hash)
        if measured is None:
            message = f"{candidate} has no result of this task and model with all {len(golden.ids)} images"
            return [*findings, Finding("fail", golden.name, message)], None
    else:
        measured = evaluate_recipe(golden.task.name, golden.model, golden.recipe, baseline, device)
    if golden.task.hash != task.hash:
        message = "made with another protocol (the task card changed); look at the change, then --accept --why TEXT"
        return [*findings, Finding("fail", golden.name, message)], measured
    return [*findings, *compare_images(golden, measured.values), *compare_corpus(golden, measured.result)], measured


def check_itself(golden: Golden, metrics: Sequence[str]) -> list[Finding]:
    """Findings that need no evaluation: a metric of the task is missing, or a value is not the mean of its rows."""
    findings = [
        Finding("fail", golden.name, f"{metric}: the golden file has no value of this metric of the task")
        for metric in metrics
        if metric not in golden.metrics
    ]
    for metric, stored in golden.metrics.items():
        if metric in golden.corpus:
            continue
        mean = mean_of(golden.values(metric))
        value = math.nan if stored.value is None else stored.value
        if not _equal(value, mean, _MEAN_ROUNDING):
            message = f"{metric}: stored value {value:.9g} is not the mean of its own rows, {mean:.9g}"
            findings.append(Finding("fail", golden.name, message))
    return findings


def compare_images(golden: Golden, values: pandas.DataFrame) -> list[Finding]:
    """Findings about the metrics that are averages over images.

    Args:
        golden: the accepted values.
        values: what is measured now; index sample id, one column for each metric.
    """
    missing = [sample_id for sample_id in golden.ids if sample_id not in values.index]
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
    """Findings about metrics of the whole set, of which only the values can be compared and not single images."""
    findings = []
    for metric in golden.corpus:
        stored, now = golden.metrics[metric], result.metrics.get(metric)
        value = None if now is None else now.value
        change = f"{metric}: {stored.value} -> {value}"
        if stored.value is None or value is None:
            if stored.value is not value:
                level: Literal["fail", "warn"] = "fail" if value is None else "warn"
                findings.append(Finding(level, golden.name, f"{change}; only one of the two has a value"))
            continue
        fall, allowed = stored.direction * (stored.value - value), golden.tolerance_of(metric).of(stored.value)
        if fall > allowed:
            message = f"{change}, fell by {fall:.3g} (allowed {allowed:.1g})"
            findings.append(Finding("fail", golden.name, message))
        elif fall < -allowed:
            findings.append(Finding("warn", golden.name, f"{change}, rose by {-fall:.3g} (explain it, then --accept)"))
    return findings


def _compare_metric(golden: Golden, metric: str, now: np.ndarray) -> Finding | None:
    """The most serious finding about one metric, or None. now: (N,) values measured now, in the order of the ids."""
    stored, then = golden.metrics[metric], golden.values(metric)
    value = math.nan if stored.value is None else stored.value
    allowed = golden.tolerance_of(metric).of(0.0 if math.isnan(value) else value)
    mean = mean_of(now)
    fall = stored.direction * (value - mean)
    first = _first_difference(golden, then, now, allowed)
    lost = int((np.isfinite(then) & ~np.isfinite(now)).sum())
    change = f"{metric}: {value:.6g} -> {mean:.6g}"
    if lost:
        return Finding("fail", golden.name, f"{change}; {lost} images lost their value; {first}")
    if fall > allowed:
        gap = paired_difference(stored.direction * then, stored.direction * now)
        # The mean fell but the images did not: then the stored value was edited by hand.
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
    """Text that names the first image that differs by more than `allowed`, or ''."""
    same = np.isclose(then, now, rtol=0, atol=allowed, equal_nan=True)
    if same.all():
        return ""
    i = int(np.argmin(same))  # False is the smallest value: the first image that is not the same
    return f"first differing image {golden.ids[i]}: {then[i]:.6g} -> {now[i]:.6g} ({int((~same).sum())} differ)"


def _equal(a: float, b: float, rounding: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or abs(a - b) <= rounding * max(1.0, abs(b))


def _from_candidate(golden: Golden, folder: Path, task_hash: str) -> Measurement | None:
    """The newest result below `folder` with the task, the model and all images of the golden file, or None."""
    measurements = []
    for file in search([folder], golden.task.name):
        if file.result is None:
            raise UsageError(f"{file.path}: {file.problem}")
        result = file.result
        if result.model.name == _result_name(golden.model) and result.task.hash == task_hash:
            measured = Measurement(result, per_image(result))
            if set(golden.ids) <= set(measured.values.index):
                measurements.append(measured)
    return max(measurements, key=lambda measured: measured.result.identity.created, default=None)


def _result_name(model: str) -> str:
    """The name that a result gives to a model: `model-build` for `src/model.py:build`."""
    path, separator, attribute = model.rpartition(".py:")
    return f"{Path(path).name}-{attribute}" if separator else model
