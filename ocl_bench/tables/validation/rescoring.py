"""Score a few samples of a result again from their saved predictions, and compare them with the stored rows."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...cards.task import TaskSpec
from ...core import paths
from ...core.errors import OclBenchError
from ...families import find_family
from ...results.record import Result, read_rows

if TYPE_CHECKING:
    import pandas

SAMPLES = 20
"""Samples that are scored again: enough to notice replaced predictions, few enough for a continuous check."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Rescored:
    """Number of samples that were scored again, and (field, message) of each difference."""

    samples: int
    problems: list[tuple[str, str]]


def draw(ids: list[str], key: str, count: int = SAMPLES) -> list[str]:
    """Draw the ids of the samples to score again, sorted.

    Args:
        ids: sample ids in any order, repeats allowed.
        key: of the result. It seeds the draw, and the author of a result cannot choose the samples.
        count: most ids to draw.
    """
    ordered = sorted(set(ids))
    random = np.random.default_rng(int(key[:16], 16))
    return sorted(random.choice(ordered, size=min(count, len(ordered)), replace=False).tolist())


def rescore(
    result: Result, rows: pandas.DataFrame, task: TaskSpec, folder: Path, data_root: Path | None
) -> Rescored | str:
    """Score up to 20 samples again and compare them with the stored rows, up to rounding (1e-9).

    Args:
        result: the result.
        rows: its rows.
        task: its card.
        folder: saved predictions, `seed-<n>/...`.
        data_root: where official data is.

    Returns:
        What differs, or the reason why nothing could be scored. A missing or damaged prediction is a difference.
    """
    from ...core.files import ids_hash
    from ...data import open_data, subset
    from ...evaluation.run import run
    from ...evaluation.supplied.score import saved_plan

    if not find_family(task.family).replayable(task):
        return f"predictions of {task.name} mean nothing without its head"
    section, embedded = result.data, result.data.kind == "embedded"
    if not embedded and data_root is None and paths.data_root() is None:
        return f"the data are not there ({section.kind}); pass --data-root"
    try:
        data = open_data(
            task,
            data_root=None if embedded else data_root,
            limit=section.limit,
            split=section.split,
            stand_in_seed=section.stand_in_seed,
            embedded=embedded,
        )
    except OclBenchError as error:
        return f"the data are not there ({error})"
    if section.listed is not None:
        scored = {*rows["id"].astype(str), *(failure.id for failure in result.counts.failed)}
        data = subset(data, [position for position, sample_id in enumerate(data.ids) if sample_id in scored])
    if data.revision != section.revision or ids_hash(data.ids) != section.ids_sha256:
        there = f"{section.kind} {section.revision}"
        return f"the data here differ from those of the result: {data.kind} {data.revision} here, {there} there"
    chosen = draw(rows["id"].astype(str).tolist(), result.identity.key)
    positions = [position for position, sample_id in enumerate(data.ids) if sample_id in set(chosen)]
    try:
        plan = saved_plan(result, task, subset(data, positions), folder)
        with tempfile.TemporaryDirectory() as scratch:
            again = run(plan, results=scratch, progress=False)
            now = read_rows(again.path) if again.path else rows.iloc[:0]
    except OclBenchError as error:
        return Rescored(0, [("predictions", str(error))])
    problems = [("predictions", failure.error) for failure in again.counts.failed]
    return Rescored(len(positions), problems + _differences(rows, now))


def _differences(rows: pandas.DataFrame, now: pandas.DataFrame) -> list[tuple[str, str]]:
    """One problem for each column that differs, with the first sample that does."""
    keys = ["id", "noise_seed"]
    stored = rows.drop_duplicates(keys).set_index(keys)
    problems = []
    for column in [name for name in now.columns if name in stored.columns]:
        values = zip(now[keys].itertuples(index=False, name=None), now[column], strict=True)
        differing = [
            f"{key[0]} (noise seed {key[1]})"
            for key, value in values
            if key in stored.index and not _equal(stored.at[key, column], value)
        ]
        if differing:
            text = f"{len(differing)} rows are not what the saved predictions give, first {differing[0]}"
            problems.append((f"rows.{column}", text))
    return problems


def _equal(a: Any, b: Any) -> bool:
    """Whether two numbers or lists of numbers are equal up to rounding; None and NaN are equal to themselves."""
    if a is None or b is None:
        return a is b
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    return first.shape == second.shape and np.allclose(first, second, rtol=_ROUNDING, atol=_ROUNDING, equal_nan=True)
