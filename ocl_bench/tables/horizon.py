"""Metrics of visual prediction step by step: of a run, and of the floors and ceilings of its model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..metrics.definitions.dynamics import STEPS
from ..results.record import Result

if TYPE_CHECKING:
    import pandas

CURVES = ("position_error", "slot_mse_rel", "fg_ari_future")
"""Metrics that are drawn over the horizon."""


@dataclass(frozen=True)
class Curve:
    """A metric of one model at each predicted step.

    name: of the model. role: `run`, or that of a reference. values: (steps,), NaN where no clip has a value.
    """

    name: str
    role: str
    values: np.ndarray


def curves(tables: Sequence[tuple[str, str, pandas.DataFrame]]) -> dict[str, list[Curve]]:
    """The curves of each metric that has any.

    Args:
        tables: name, role and rows of each model.
    """
    found: dict[str, list[Curve]] = {}
    for name, role, rows in tables:
        for metric, values in _of_rows(rows).items():
            found.setdefault(metric, []).append(Curve(name, role, values))
    return found


def of_the_model(references: Iterable[Result], models: Iterable[str]) -> list[Result]:
    """The floors and ceilings that predict slots of one of these models, and those that have slots of their own."""
    wanted = {None, *models}
    return [reference for reference in references if reference.model.options.get("model") in wanted]


def _of_rows(rows: pandas.DataFrame) -> dict[str, np.ndarray]:
    """Metric -> value at each step. A mean is over the clips with a value; `slot_mse_rel` is a ratio of sums."""
    values = {
        name: _mean(steps)
        for name in ("position_error", "fg_ari_future", "slot_error", "copy_error")
        if (steps := _steps(rows, name)) is not None
    }
    if "slot_error" in values and "copy_error" in values:
        above, below = values.pop("slot_error"), values.pop("copy_error")
        values["slot_mse_rel"] = np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)
    return {metric: values[metric] for metric in CURVES if metric in values and np.isfinite(values[metric]).any()}


def _steps(rows: pandas.DataFrame, name: str) -> np.ndarray | None:
    """Values (clips, steps) of a column; None for rows without it, which an older version wrote."""
    column = rows.get(f"{STEPS}{name}")
    lists = [] if column is None else [np.asarray(one, float) for one in column if one is not None and np.ndim(one)]
    return np.stack(lists) if lists else None


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean (steps,) of values (clips, steps) that are not NaN; NaN without any."""
    known = np.isfinite(values)
    number = known.sum(axis=0)
    return np.divide(np.where(known, values, 0).sum(0), number, out=np.full(len(number), np.nan), where=number > 0)
