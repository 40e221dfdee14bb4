"""Floors and ceilings to stand beside a result, from results that were computed before on the same data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..core.errors import UsageError
from ..core.paths import bundled
from .record import Result, read_result

CHEAP = ("single-slot", "grid", "kmeans", "patch-oracle")
"""Floors and the ceiling that `eval --floors` computes where no stored result fits."""


def reference_results(result: Result, extra: Iterable[Path] = ()) -> list[Result]:
    """Stored floors and ceilings that stand for the same protocol on the same images: floors first, best last.

    Looks at the committed results, then in the folders `extra` (`<results>/<task>/<model>`).
    """
    committed = sorted((bundled("leaderboards") / "results" / result.task.name).glob("*.json"))
    local = sorted(path for folder in extra for path in (folder / result.task.name).glob("*/*.json"))
    found: dict[str, Result] = {}
    for path in [*committed, *local]:
        try:
            other = read_result(path)
        except UsageError:
            continue  # other JSON files may lie there; only results that can be read are references
        if other.model.role in ("floor", "ceiling") and same_images(result, other):
            found.setdefault(other.model.name, other)
    found.pop(result.model.name, None)
    main = result.task.main
    return sorted(found.values(), key=lambda other: (other.model.role == "ceiling", other.metrics[main].value or 0.0))


def same_images(first: Result, second: Result) -> bool:
    """Whether two results may stand in one table: same task hash, data kind, revision and sample ids, all scored."""
    return (
        first.task.hash == second.task.hash
        and first.data.kind == second.data.kind
        and first.data.revision == second.data.revision
        and first.data.ids_sha256 == second.data.ids_sha256
        and second.identity.status == "complete"
    )
