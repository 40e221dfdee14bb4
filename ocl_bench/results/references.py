"""Floors and ceilings to stand beside a result, from results that were computed before on the same data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..core.paths import bundled
from .ranks_with import same_images
from .record import Result
from .store import find

CHEAP = ("single-slot", "grid", "kmeans", "patch-oracle")
"""Floors and the ceiling that `eval --floors` computes where no stored result fits."""


def reference_results(result: Result, extra: Iterable[Path] = ()) -> list[Result]:
    """Stored floors and ceilings that stand for the same protocol on the same images: floors first, best last.

    Looks at the committed results, then in the folders `extra` (`<results>/<task>/<model>`).
    """
    found: dict[str, Result] = {}
    for other in find([bundled("leaderboards") / "results", *extra], result.task.name):
        if other.model.role in ("floor", "ceiling") and same_images(result, other):
            found.setdefault(other.model.name, other)
    found.pop(result.model.name, None)
    main = result.task.main
    return sorted(found.values(), key=lambda other: (other.model.role == "ceiling", other.metrics[main].value or 0.0))
