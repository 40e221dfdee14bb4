"""The head of a report: what was evaluated, its numbers beside floors and ceilings, and how the run was made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...core.numbers import axis_ends
from ...evaluation.examination.refusals import why_not_ranked
from ...metrics import find_metric
from ...metrics.of_set import Total
from ...results.record import NOT_DETERMINISTIC, MetricValue, Result
from .run import Run
from .signature import terms


def head(runs: Sequence[Run], references: Sequence[Result]) -> dict[str, Any]:
    """The head as plain data: title, what was evaluated, warnings, tiles and facts."""
    result = runs[0].result
    card = runs[0].task
    return {
        "names": [run.name for run in runs],
        "task": {
            "name": result.task.name,
            "version": result.task.version,
            "title": card.title if card is not None else "",
            "unit": runs[0].family.unit,
        },
        "data": _data(result),
        "signature": terms(result.metrics[result.task.main].signature),
        "warnings": [warning for run in runs for warning in _warnings(run, len(runs) > 1)],
        "notes": list(dict.fromkeys(note for run in runs for note in run.notes)),
        "tiles": [_tile(name, runs, references) for name in _order(result)],
        "runs": [
            {"name": run.name, "facts": _facts(run.result), "command": run.result.identity.command} for run in runs
        ],
    }


def _order(result: Result) -> list[str]:
    """Metrics, the main one first."""
    return [result.task.main, *(name for name in result.metrics if name != result.task.main)]


def _data(result: Result) -> dict[str, str]:
    section, counts = result.data, result.counts
    parts = [section.revision]
    if section.split:
        parts.append(f"split {section.split}")
    if section.limit is not None:
        parts.append(f"first {section.limit}")
    if section.stand_in_seed is not None:
        parts.append(f"seed {section.stand_in_seed}")
    meaning = {
        "embedded": "scenes rendered by ocl-bench in the official layout; never ranked with official data",
        "official": "the official data set",
        "supplied": "brought by the user",
    }
    scored = f"{counts.scored} of {counts.attempted} scored"
    return {"kind": section.kind, "meaning": meaning[section.kind], "detail": ", ".join(parts), "scored": scored}


def _warnings(run: Run, named: bool) -> list[str]:
    """Why the run is not ranked, and what else to know before its numbers are used."""
    begin = f"{run.name}: " if named else ""
    reasons = [f"{begin}Not ranked: {reason.message}." for reason in why_not_ranked(run.result)]
    if run.result.identity.deterministic is False:
        reasons.append(f"{begin}Not deterministic: {NOT_DETERMINISTIC.partition(': ')[2]}.")
    return reasons


def _tile(name: str, runs: Sequence[Run], references: Sequence[Result]) -> dict[str, Any]:
    """One metric: values with intervals, and the floors and ceilings on the same axis."""
    metric = find_metric(name)
    values = [_value(run.result.metrics.get(name)) for run in runs]
    known = [
        {"name": one.model.name, "role": one.model.role, "value": one.metrics[name].value}
        for one in references
        if name in one.metrics and one.metrics[name].value is not None
    ]
    numbers = [number for value in values if value for number in (value["value"], value["low"], value["high"])]
    numbers += [float(one["value"] or 0.0) for one in known]
    low, high = axis_ends(numbers, metric.low, metric.high)
    return {
        "name": name,
        "main": name == runs[0].result.task.main,
        "meaning": metric.meaning,
        "direction": metric.direction,
        "values": values,
        "references": known,
        "low": low,
        "high": high,
        "whole": isinstance(metric.of_set, Total),
    }


def _value(metric: MetricValue | None) -> dict[str, Any] | None:
    """Value and interval; the interval is the value itself where there is none."""
    if metric is None or metric.value is None:
        return None
    low, high = metric.ci95 or (metric.value, metric.value)
    return {"value": metric.value, "low": low, "high": high, "interval": metric.ci95 is not None, "n": metric.n_valid}


def _facts(result: Result) -> list[dict[str, str]]:
    """What made the numbers, as pairs of a label and a text."""
    model, cost, setup = result.model, result.cost, result.setup
    rate = f", {cost.images_per_second:.1f} images/s" if cost.images_per_second else ""
    options = ", ".join(f"{key}={value}" for key, value in model.options.items())
    pairs = [
        ("Role", model.role),
        ("Supervision in training", model.supervision),
        ("Privilege at inference", model.privilege),
        ("Output scored", model.mask_source),
        ("Parameters", f"{model.parameters:,}"),
        ("Checkpoint", model.checkpoint_sha256 and f"sha256 {model.checkpoint_sha256}"),
        ("Options", options),
        ("Training seed", "" if model.training_seed is None else str(model.training_seed)),
        ("Noise seeds", ", ".join(map(str, result.seeds.noise))),
        ("Cost", f"{cost.seconds_total:.1f} s, {cost.seconds_model:.1f} s of it in the model{rate}"),
        ("Peak memory", f"{cost.peak_memory_mb:.0f} MB"),
        ("Machine", f"{setup.device}, {setup.threads} threads, batches of {setup.batch_size}, {setup.dtype}"),
        ("Made", f"{result.identity.created}, ocl-bench {result.identity.suite_version}, commit {_commit(result)}"),
        ("Key", result.identity.key),
    ]
    return [{"name": name, "value": value} for name, value in pairs if value]


def _commit(result: Result) -> str:
    identity = result.identity
    return (identity.commit[:8] or "unknown") + (" with changes" if identity.dirty else "")
