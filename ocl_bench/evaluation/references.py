"""Stored results of floors and ceilings to print beside a result on the same data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..cards.task import TaskSpec
from ..core.log import logger
from ..core.paths import bundled
from ..results.ranks_with import same_images
from ..results.record import Result
from ..results.store import find, where
from .examination.refusals import refusal

CHEAP = ("single-slot", "grid", "kmeans", "patch-oracle", "majority", "question-only")
"""Models that `eval --floors` evaluates, as far as they fit the task, when no stored result fits."""


def stored_references(result: Result, extra: Iterable[Path] = (), card: TaskSpec | None = None) -> list[Result]:
    """Every stored floor and ceiling of the same protocol on the same images that `validate` does not refuse.

    Args:
        result: the result beside which they stand.
        extra: folders of results that are searched after the committed ones.
        card: card of the task, when it is not an installed one.
    """
    found = []
    for reference in find([bundled("leaderboards") / "results", *extra], result.task.name):
        if reference.model.role not in ("floor", "ceiling") or not same_images(result, reference):
            continue
        if (refused := refusal(reference, card)) is not None:
            logger.warning("%s is left out: %s", where(reference), refused.message)
            continue
        found.append(reference)
    return found


def one_of_each(references: Iterable[Result], without: Iterable[str]) -> list[Result]:
    """One result for each model: floors before ceilings, each in ascending order of the main metric.

    Args:
        references: as `stored_references` gives them: a committed result wins over a user's own.
        without: names of models that are left out.
    """
    by_model: dict[str, Result] = {}
    for reference in references:
        by_model.setdefault(reference.model.name, reference)
    kept = [reference for name, reference in by_model.items() if name not in set(without)]
    return sorted(kept, key=lambda one: (one.model.role == "ceiling", one.metrics[one.task.main].value or 0.0))


def reference_results(result: Result, extra: Iterable[Path] = (), card: TaskSpec | None = None) -> list[Result]:
    """`one_of_each` of the `stored_references` of a result, without its own model."""
    return one_of_each(stored_references(result, extra, card), [result.model.name])
