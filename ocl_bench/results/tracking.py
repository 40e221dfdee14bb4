"""Results for experiment trackers (`eval --log`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core.files import path_name
from ..core.trackers import MakeTracker, finite, tracked
from .record import Result


def track_results(results: Sequence[Result], make_tracker: MakeTracker) -> None:
    """Give each result to a tracker, as a run of its own without steps; files go beside the result."""
    for result in results:
        name = f"{result.task.name}-{path_name(result.model.name)}-{result.identity.key[:8]}"
        folder = result.path.parent if result.path else Path()
        with tracked(make_tracker(name, folder), _settings(result)) as summary:
            summary |= _numbers(result)


def _settings(result: Result) -> dict[str, Any]:
    """What the numbers are of."""
    return {
        "model": result.model.name,
        "options": result.model.options,
        "training_seed": result.model.training_seed,
        "task": result.task.name,
        "version": result.task.version,
        "signature": result.task.signature,
        "data": {"kind": result.data.kind, "revision": result.data.revision, "limit": result.data.limit},
        "noise_seeds": list(result.seeds.noise),
        "key": result.identity.key,
    }


def _numbers(result: Result) -> dict[str, float]:
    """Values of the metrics, the ends of their 95 % intervals as `NAME_low` and `NAME_high`, and the speed."""
    numbers: dict[str, float | None] = {"images_per_second": result.cost.images_per_second}
    for name, metric in result.metrics.items():
        low, high = metric.ci95 or (None, None)
        numbers |= {name: metric.value, f"{name}_low": low, f"{name}_high": high}
    return finite(numbers)
