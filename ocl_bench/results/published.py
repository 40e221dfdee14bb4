"""Numbers printed in papers, with their source, evidence and protocol.

They are stored in `leaderboards/published/`: `<task>.yaml` holds rows to print beside a task's results, and
`other/<name>.yaml` with `task: null` holds rows of protocols that have no task card. `docs/boards.md` describes
the fields.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..cards.model import Privilege, Supervision
from ..cards.task import load_task
from ..core.errors import UsageError, first_problem
from ..core.files import parse_yaml, read_text
from ..core.paths import bundled

Evidence = Literal["paper", "abstract", "readme", "code", "secondary"]
"""Where the number was read.

paper: a table or the text of the paper. abstract: the abstract of the paper. readme: a README or project page of the
authors. code: another file of their repository (log, spreadsheet, picture of a table, comment in a configuration).
secondary: any second-hand source (summary, review, issue, list of results).
"""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_strip_whitespace=True)


class PublishedValue(_Strict):
    """One printed number.

    Attributes:
        value: the number exactly as printed.
        spread: the number printed after ±, in the same units.
        spread_kind: what the spread is; `unstated` when the source does not say.
        scale: factor from the printed to the shown number, by default `PublishedTable.scale`.
    """

    value: float
    spread: float | None = Field(default=None, ge=0)
    spread_kind: Literal["sample_sd", "population_sd", "standard_error", "unstated"] | None = None
    scale: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _spread_has_a_kind(self) -> PublishedValue:
        if (self.spread is None) != (self.spread_kind is None):
            raise ValueError("spread and spread_kind come together; write spread_kind: unstated if unknown")
        return self


class PublishedRow(_Strict):
    """One row of a paper's table.

    Attributes:
        model: name of the model.
        paper: the paper that introduced the model.
        source: where the number was read, as precisely as possible.
        evidence: kind of that source.
        protocol: a key of `PublishedTable.protocols`.
        seeds: training seeds, empty when the source does not state them.
        supervision: annotations that training used, pretraining of the encoder included.
        privilege: annotations that the model receives at inference.
        metrics: printed numbers by metric.
        comparable: whether the numbers may stand beside results of this task on official data.
        why: the reason for `comparable`.
    """

    model: str = Field(min_length=1)
    paper: str = Field(min_length=1)
    source: str = Field(min_length=1)
    evidence: Evidence
    protocol: str
    seeds: tuple[int, ...] = ()
    supervision: Supervision = "none"
    privilege: Privilege = "none"
    metrics: dict[str, PublishedValue] = Field(min_length=1)
    comparable: Literal["yes", "no"]
    why: str = Field(min_length=1)

    @field_validator("comparable", mode="before")
    @classmethod
    def _yaml_says_true(cls, value: object) -> object:
        # YAML 1.1 reads a bare yes or no as a boolean.
        return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


class Measure(_Strict):
    """Description of a printed number that is not a metric of this suite.

    Attributes:
        describe: what the number measures.
        low: smallest possible value * scale, or None.
        high: largest possible value * scale, or None.
    """

    describe: str = Field(min_length=1)
    low: float | None = 0.0
    high: float | None = 1.0


class PublishedTable(_Strict):
    """The published rows of one file.

    Attributes:
        task: the task beside whose results the rows are printed, or None.
        version: version of its card.
        title: title of the rows; required when there is no task.
        scale: factor from printed to shown numbers. Shown numbers are fractions, except for counts.
        protocols: description of each protocol by its name.
        cards: the task card that has a protocol, by the protocol's name. A protocol that is not listed has no card.
        measures: printed numbers that are not metrics of this suite; only in files without a task.
        left_out: numbers that were found and deliberately not made rows, each with the reason.
        rows: the rows.
    """

    task: str | None
    version: int | None = Field(default=None, ge=1)
    title: str = ""
    scale: float = Field(gt=0)
    protocols: dict[str, str]
    cards: dict[str, str] = {}
    measures: dict[str, Measure] = {}
    left_out: tuple[str, ...] = ()
    rows: tuple[PublishedRow, ...]

    def shown(self, printed: PublishedValue) -> tuple[float, float | None]:
        """The value and the spread (or None) of a printed number, both multiplied by its scale."""
        scale = self.scale if printed.scale is None else printed.scale
        return printed.value * scale, None if printed.spread is None else printed.spread * scale


def published_folder() -> Path:
    """The bundled folder of published rows."""
    return bundled("leaderboards") / "published"


def load_published(task: str, folder: Path | None = None) -> PublishedTable | None:
    """Read the published rows of a task; None when the folder has no file `<task>.yaml`.

    Raises UsageError naming the file and the field when the file is not valid.
    """
    path = (folder or published_folder()) / f"{task}.yaml"
    return _load(path, task) if path.is_file() else None


def load_all(folder: Path | None = None) -> dict[str, PublishedTable]:
    """Read every file: first those of tasks, by task, then those without a task, by `other/<name>`.

    Raises UsageError naming the file and the field when a file is not valid.
    """
    root = folder or published_folder()
    with_card = {path.stem: _load(path, path.stem) for path in sorted(root.glob("*.yaml"))}
    return with_card | {f"other/{path.stem}": _load(path, None) for path in sorted((root / "other").glob("*.yaml"))}


def _load(path: Path, task: str | None) -> PublishedTable:
    """Read and check one file. task: the value that its field `task` must have."""
    try:
        table = PublishedTable.model_validate(parse_yaml(read_text(path)))
    except ValidationError as error:
        field, problem = first_problem(error, "file")
        raise UsageError(f"{path}: field '{field}': {problem}; see docs/boards.md") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UsageError(f"{path}: not a YAML file ({str(error).splitlines()[0]})") from error
    if table.task != task:
        remedy = "rename the file or the field" if task else "files in other/ have task: null"
        raise UsageError(f"{path}: field 'task': '{table.task}' is not '{task}'; {remedy}")
    for field, problem in (*_wrong_head(table), *_wrong_rows(table)):
        raise UsageError(f"{path}: field '{field}': {problem}; see docs/boards.md")
    return table


def _wrong_head(table: PublishedTable) -> Iterator[tuple[str, str]]:
    """(field, problem) for each field outside the rows that contradicts another one."""
    if (table.task is None) != (table.version is None):
        yield "version", "a file with a task needs the version of its card, a file without a task has no version"
    if table.task is None and not table.title:
        yield "title", "a file without a task needs a title"
    if table.task is not None and table.measures:
        yield "measures", "only a file without a task may define measures; a file with a task uses its card's metrics"
    for name, measure in table.measures.items():
        if _metric_range(name) is not None:
            yield f"measures.{name}", "is the name of a metric of this suite; choose another name or drop the measure"
        if measure.low is not None and measure.high is not None and measure.low >= measure.high:
            yield f"measures.{name}.low", f"{measure.low:g} is not below high"
    for protocol, card in table.cards.items():
        if protocol not in table.protocols:
            yield f"cards.{protocol}", "this protocol is not described in protocols"
        # A user's own file may belong to a task that is not bundled.
        if card != table.task and not _card(card).is_file():
            yield f"cards.{protocol}", f"'{card}' is not a task card"


def _wrong_rows(table: PublishedTable) -> Iterator[tuple[str, str]]:
    """(field, problem) for each row that contradicts the other fields of the file or another row."""
    seen = set()
    card = load_task(_card(table.task)).metrics if table.task and _card(table.task).is_file() else None
    for place, row in enumerate(table.rows):
        field = f"rows.{place}"
        if row.protocol not in table.protocols:
            yield f"{field}.protocol", f"protocol '{row.protocol}' is not described in protocols"
        if (row.model, row.protocol) in seen:
            yield f"{field}.model", f"model '{row.model}' has two rows of protocol '{row.protocol}'"
        seen.add((row.model, row.protocol))
        if row.comparable == "yes" and (table.task is None or table.cards.get(row.protocol) != table.task):
            yield f"{field}.comparable", f"is yes, but field cards does not map '{row.protocol}' to this task"
        if len(set(row.seeds)) < len(row.seeds):
            yield f"{field}.seeds", "a training seed is listed twice"
        for name, printed in row.metrics.items():
            if card is not None and name not in card:
                yield f"{field}.metrics.{name}", f"is not a metric of the card {table.task} ({', '.join(card)})"
            elif problem := _wrong_value(table, name, printed):
                yield f"{field}.metrics.{name}", problem


def _wrong_value(table: PublishedTable, name: str, printed: PublishedValue) -> str:
    """Why a printed number cannot be a value of the metric `name`; '' when it can."""
    measure = table.measures.get(name)
    bounds = _metric_range(name) if measure is None else (measure.low, measure.high)
    if bounds is None:
        return "is not a metric of this suite" + ("" if table.task else " and is not described in measures")
    value, spread = table.shown(printed)
    low, high = (-math.inf if bounds[0] is None else bounds[0]), (math.inf if bounds[1] is None else bounds[1])
    # The tolerance absorbs the rounding of value * scale.
    if not low - 1e-9 <= value <= high + 1e-9:
        return f"{value:g} (value * scale) is outside the metric's range {low:g} to {high:g}"
    if spread is not None and spread > high - low:
        return f"the spread {spread:g} is larger than the metric's range {low:g} to {high:g}"
    return ""


def _card(task: str) -> Path:
    """Where the bundled card of a task would be."""
    return bundled("tasks") / f"{task}.yaml"


def _metric_range(name: str) -> tuple[float | None, float | None] | None:
    """Lowest and highest value of a metric of this suite; None for a name that is not a metric."""
    from ..metrics import find_metric

    try:
        metric = find_metric(name)
    except UsageError:
        return None
    return metric.low, metric.high
