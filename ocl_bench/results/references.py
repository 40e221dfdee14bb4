"""Stored results of floors and ceilings to print beside a result on the same data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..core.paths import bundled
from .ranks_with import same_images
from .record import Result
from .store import find

CHEAP = ("single-slot", "grid", "kmeans", "patch-oracle", "majority", "question-only")
"""Models that `eval --floors` evaluates, as far as they fit the task, when no stored result fits."""


def reference_results(result: Result, extra: Iterable[Path] = ()) -> list[Result]:
    """Find stored floors and ceilings of the same protocol on the same images.

    Args:
        result: the result beside which they are printed. Its own model is left out.
        extra: folders of results that are searched after the committed ones.

    Returns:
        One result for each model: floors before ceilings, each in ascending order of the main metric.
    """
    by_model: dict[str, Result] = {}
    for reference in find([bundled("leaderboards") / "results", *extra], result.task.name):
        if reference.model.role in ("floor", "ceiling") and same_images(result, reference):
            by_model.setdefault(reference.model.name, reference)  # a committed result wins over a user's own
    by_model.pop(result.model.name, None)
    main = result.task.main
    return sorted(by_model.values(), key=lambda row: (row.model.role == "ceiling", row.metrics[main].value or 0.0))
