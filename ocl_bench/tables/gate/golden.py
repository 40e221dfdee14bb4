"""Golden files: the accepted values of a model, image by image, and how to measure them again.

A golden file is `<baseline>/<task>/<model>.json`. Scenes that are stored as images lie below `<baseline>/scenes` in
their official layout.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ...core.errors import UsageError, first_problem
from ...core.files import parse_json, read_text, write_atomically

EXACT = 1e-6
"""A tolerance up to this one allows rounding only; every single image is then checked, not only the mean."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Tolerance(_Section):
    """A metric may fall by the larger of `absolute` and `relative` times the stored value."""

    absolute: float = Field(ge=0)
    relative: float = Field(default=0, ge=0)

    def of(self, value: float) -> float:
        """The allowed fall of a stored value."""
        return max(self.absolute, self.relative * abs(value))


class GoldenTask(_Section):
    """The task card of the numbers; numbers of a card with another hash cannot be compared."""

    name: str
    version: int
    hash: str


class GoldenRecipe(_Section):
    """How to measure again. scenes: data root below the baseline folder; empty: the rendered stand-in."""

    scenes: str = Field(default="", pattern=r"^[\w-]*$")
    split: str | None = None
    limit: int = Field(gt=0)
    noise_seeds: tuple[int, ...] = Field(min_length=1)
    batch_size: int = Field(default=16, gt=0)


class Made(_Section):
    """The data, weights and versions that the stored numbers were measured with."""

    data_revision: str
    checkpoint_sha256: str
    suite_version: str
    commit: str
    versions: dict[str, str]


class GoldenMetric(_Section):
    """The accepted value of one metric. direction: 1 when larger is better, -1 when smaller is."""

    value: float | None
    direction: Literal[1, -1]


class Accepted(_Section):
    """One deliberate change of the numbers: why, when, and [old, new] of every metric that changed."""

    reason: str = Field(min_length=1)
    created: str
    commit: str
    changes: dict[str, tuple[float | None, float | None]]


class Golden(_Section):
    """One golden file.

    Attributes:
        tolerance: for every metric without an entry in `tolerances`.
        metrics: the accepted values.
        ids: sample ids, the order of all rows.
        rows: values of each metric, one for each id; null where the metric is not valid.
        corpus: metrics that are not averages over images. Their rows may all be null.
        accepted: every deliberate change, the oldest first.
    """

    schema_: Literal[1] = Field(alias="schema", default=1)
    task: GoldenTask
    model: str
    recipe: GoldenRecipe
    made: Made
    tolerance: Tolerance
    tolerances: dict[str, Tolerance] = {}
    metrics: dict[str, GoldenMetric] = Field(min_length=1)
    ids: tuple[str, ...] = Field(min_length=1)
    rows: dict[str, tuple[float | None, ...]]
    corpus: tuple[str, ...] = ()
    accepted: tuple[Accepted, ...] = Field(min_length=1)

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)

    @model_validator(mode="after")
    def _rows_fit(self) -> Golden:
        if set(self.rows) != set(self.metrics):
            raise ValueError(f"rows has {sorted(self.rows)}, metrics has {sorted(self.metrics)}")
        for name, values in self.rows.items():
            if len(values) != len(self.ids):
                raise ValueError(f"rows.{name} has {len(values)} values for {len(self.ids)} ids")
        if len(set(self.ids)) != len(self.ids):
            raise ValueError("ids holds an id twice")
        return self

    @property
    def name(self) -> str:
        """`<task>/<model>`, as findings print it."""
        return f"{self.task.name}/{self.model}"

    def tolerance_of(self, metric: str) -> Tolerance:
        """The tolerance of a metric: from `tolerances`, else that of the file."""
        return self.tolerances.get(metric, self.tolerance)

    def values(self, metric: str) -> np.ndarray:
        """Values of a metric, (N,) float64 in the order of `ids`, NaN where it is not valid."""
        return as_array(self.rows[metric])


def as_array(values: tuple[float | None, ...]) -> np.ndarray:
    """An array with NaN for None."""
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def as_column(values: np.ndarray) -> tuple[float | None, ...]:
    """Floats with None for NaN, as a golden file stores them: JSON has no NaN."""
    return tuple(float(value) if math.isfinite(value) else None for value in values)


def read_golden(path: Path) -> Golden:
    """Read one golden file. Raises UsageError that names the file and the field."""
    try:
        return Golden.model_validate(parse_json(read_text(path)))
    except ValidationError as error:  # before ValueError, which it is too
        field, problem = first_problem(error, "file")
        raise UsageError(f"{path}: field '{field}': {problem}; restore the committed file") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as JSON ({error})") from error


def golden_files(baseline: Path) -> list[Path]:
    """All golden files of a baseline, sorted.

    Raises:
        UsageError: when there is none. A gate that checks nothing must not be green.
    """
    files = sorted(path for path in baseline.glob("*/*.json") if path.parent.name != "scenes")
    if not files:
        raise UsageError(f"{baseline}: no golden file <task>/<model>.json; name another folder with --baseline")
    return files


def golden_path(baseline: Path, task: str, model: str) -> Path:
    """Path `<baseline>/<task>/<model>.json`, with `dias-1` for `dias:1` and `src-model.py-build` for a path."""
    return baseline / task / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', model).strip('.-')}.json"


def write_golden(golden: Golden, baseline: Path) -> Path:
    """Write a golden file atomically and return its path; the rows of each metric stand on one line."""
    text = _readable(golden.model_dump(mode="json", by_alias=True))
    path = golden_path(baseline, golden.task.name, golden.model)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda target: target.write_text(text, encoding="utf-8"))
    return path


def _readable(content: Mapping[str, Any]) -> str:
    """Indented JSON with each list on one line; the diff of a changed golden file stays readable."""
    # json.dumps has no such layout: lists are replaced by markers, which are replaced by their text at the end.
    lists: list[str] = []

    def fold(value: Any) -> Any:
        if isinstance(value, list) and not any(isinstance(item, dict) for item in value):
            lists.append(json.dumps(value))
            return f"@list{len(lists) - 1}@"
        if isinstance(value, dict):
            return {key: fold(item) for key, item in value.items()}
        return [fold(item) for item in value] if isinstance(value, list) else value

    text = json.dumps(fold(content), indent=1, allow_nan=False)
    for index, line in enumerate(lists):
        text = text.replace(f'"@list{index}@"', line)
    return text + "\n"
