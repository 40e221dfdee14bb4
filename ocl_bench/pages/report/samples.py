"""All samples of a report: their numbers as columns, and their pictures one by one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ...core.errors import OclBenchError
from ...core.log import progress_bar
from ...metrics import find_metric
from ...metrics.mistakes import WRONG
from .run import Run
from .views import VIEWS
from .views.base import Saved

if TYPE_CHECKING:
    import pandas

PROPERTIES = {"n_objects": "objects", "object_size": "size", "object_contact": "contact"}
"""Columns of the rows by which samples are filtered, with their names on the page."""


def columns(runs: Sequence[Run], *, by_value: bool = False) -> dict[str, Any]:
    """The numbers of all samples.

    Args:
        runs: one run, or two on the same samples.
        by_value: order the samples by the first metric, the worst first, instead of that of the rows.

    Returns:
        `ids` of the first run's samples, the failed ones last; `errors` of those that failed in any run; `properties`
        by name, without those that are the same for all samples; and `metrics`: for each metric that all runs have, its
        name, direction, meaning and, for each run, a value for each sample. Values that do not exist are None.
    """
    failed = {failure.id: failure.error for run in reversed(runs) for failure in run.result.counts.failed}
    scored = [str(one) for one in runs[0].rows.index]
    measured = [run.sample_values for run in runs]
    if by_value and measured[0]:
        name, values = next(iter(measured[0].items()))
        scored = [str(one) for one in (find_metric(name).direction * values).sort_values(kind="stable").index]
    ids = [*scored, *(one.id for one in runs[0].result.counts.failed)]
    shared = [name for name in measured[0] if all(name in one for one in measured)]
    return {
        "ids": ids,
        "errors": {sample_id: error for sample_id, error in failed.items() if sample_id in set(ids)},
        "properties": {
            name: _values(runs[0].rows[column], ids)
            for column, name in PROPERTIES.items()
            if runs[0].has_numbers(column) and runs[0].rows[column].nunique() > 1
        },
        "metrics": [
            {
                "name": name,
                "direction": find_metric(name).direction,
                "meaning": find_metric(name).meaning,
                "values": [_values(one[name], ids) for one in measured],
            }
            for name in shared
        ],
    }


def _values(values: pandas.Series, ids: Sequence[str]) -> list[float | None]:
    """Values in the order of `ids`, rounded to 4 digits; None where there is no finite one."""
    listed = values.reindex(list(ids)).tolist()
    return [round(float(value), 4) if math.isfinite(value) else None for value in listed]


def mistake_columns(ids: Sequence[str], saved: Sequence[Saved | None]) -> list[dict[str, Any]]:
    """Shares of wrong pixels of each kind, in the form of `metrics`; empty without predictions."""
    if not any(one and one.shares for one in saved):
        return []
    return [
        {
            "name": f"{kind} pixels",
            "direction": -1,
            "meaning": f"share of the annotated pixels that are {kind}",
            "values": [
                [one.shares.get(sample_id, {}).get(kind) if one else None for sample_id in ids] for one in saved
            ],
        }
        for kind in WRONG
    ]


def pictures(
    runs: Sequence[Run],
    ids: Sequence[str],
    saved: Sequence[Saved | None],
    floor: Saved | None = None,
    *,
    progress: bool = True,
) -> Iterator[dict[str, Any] | None]:
    """The pictures of each sample, in order; None where there are none, and `error` where one cannot be made.

    saved: predictions of each run, None for a run without them; floor: of a floor, which are counted and not shown.
    Their tallies are filled.
    """
    first = runs[0]
    if first.data is None or first.task is None or first.family.view not in VIEWS:
        yield from (None for _ in ids)
        return
    view = VIEWS[first.family.view](first.task, first.data, first.root)
    position = {sample_id: index for index, sample_id in enumerate(first.data.ids)}
    with progress_bar("pictures", len(ids), progress, first.family.unit) as advance:
        for sample_id in ids:
            yield _picture(view, first.data.reader, position.get(sample_id), saved, floor)
            advance(1)


def _picture(
    view: Any, reader: Any, position: int | None, saved: Sequence[Saved | None], floor: Saved | None
) -> dict[str, Any]:
    if position is None:
        return {"error": "this sample is not in the data"}
    try:
        sample = reader[position]
        scene = view.scene(sample)
    except OclBenchError as error:
        return {"error": str(error)}
    _answer(view, sample, floor)
    return {**scene, "runs": [_answer(view, sample, one) for one in saved]}


def _answer(view: Any, sample: Any, saved: Saved | None) -> dict[str, Any] | None:
    if saved is None:
        return None
    try:
        answer: dict[str, Any] = view.answer(sample, saved)
    except OclBenchError as error:
        return {"error": str(error)}
    return answer
