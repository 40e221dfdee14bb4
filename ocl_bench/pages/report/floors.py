"""The floor that stands beside the diagnosis of a run: the best one whose predictions were kept."""

from __future__ import annotations

from collections.abc import Iterable

from ...metrics import find_metric
from ...results.record import Result
from ...results.store import rows_of
from .run import Run, mean_over_seeds, predictions_of


def best_floor(run: Run, references: Iterable[Result], without: Iterable[str]) -> Run | None:
    """The best floor on the samples of a run whose predictions lie beside its result.

    Args:
        run: what is diagnosed.
        references: floors and ceilings on the same samples.
        without: names of models that are no floor here, as they are diagnosed themselves.

    Returns:
        None without such a floor.
    """
    main = run.result.task.main
    left_out = set(without)
    found = [
        result
        for result in references
        if result.model.role == "floor" and result.model.name not in left_out
        if predictions_of(result) is not None and result.metrics[main].value is not None
    ]
    if not found:
        return None
    direction = find_metric(main).direction
    best = max(found, key=lambda result: direction * (result.metrics[main].value or 0.0))
    return Run(best, mean_over_seeds(rows_of(best)), run.family, predictions=predictions_of(best))
