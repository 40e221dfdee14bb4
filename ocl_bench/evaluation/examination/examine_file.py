"""What the JSON file and the rows of a result say by themselves, against the cards that they name."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ...cards.names import get_task, is_task
from ...cards.task import TaskSpec
from ...core.errors import UsageError
from ...core.files import parse_json, read_text
from ...metrics import find_metric
from ...results.migrations import migrate
from ...results.record import Result
from ...results.store import key_of
from ..extensions import extensions_of
from .model_section import check_model
from .rows import ROUNDING, FieldProblems, check_counts, check_row_values, check_values, find_rows

if TYPE_CHECKING:
    import pandas

LARGEST_RESULT = 5_000_000
"""Most bytes of a result file. 50 000 failed samples fit; a file from a stranger cannot fill the memory."""


@dataclass
class Examined:
    """What the JSON file and the rows of a result say by themselves.

    Attributes:
        result: the result; None when the file breaks the schema.
        card: the card against which it was checked; None without one.
        rows: its rows; None when they cannot be used.
        problems: fields and what is wrong with them.
        skipped: what could not be checked, and why.
        metrics: number of metrics that were computed again.
    """

    result: Result | None
    card: TaskSpec | None = None
    rows: pandas.DataFrame | None = None
    problems: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    skipped: list[str] = dataclasses.field(default_factory=list)
    metrics: int = 0


def examine_file(path: Path, given: TaskSpec | None) -> Examined:
    """Check a result file against its rows and its cards; saved predictions are not looked at.

    Args:
        path: the JSON file; its rows lie beside it.
        given: card of the result, when it is not a bundled one.

    Raises:
        UsageError: when the file is not a JSON object.
    """
    content = _read_json(path)
    problems = list(_not_finite(content))
    result = _parse(path, content, problems)
    found = Examined(result, problems=problems)
    # Checks go on after a problem, because all problems of a submission should be reported at once.
    if result is not None:
        card = found.card = _task_card(result, given, problems)
        problems += [
            *_check_time(result),
            *_check_task(result, card),
            *check_model(result, card),
            *_check_ranges(result),
            *_check_key(result, card, found.skipped),
        ]
        rows = found.rows = find_rows(path, result, problems)
        if rows is not None:
            problems += [*check_counts(result, rows), *check_row_values(rows)]
            found.metrics = check_values(result, rows, card, problems, found.skipped)
    return found


def _read_json(path: Path) -> dict[str, Any]:
    """The content of a file that may come from a stranger. Raises UsageError when it is not a JSON object."""
    if path.is_symlink():
        raise UsageError(f"{path}: is a symbolic link; name the file itself")
    try:
        if (size := path.stat().st_size) > LARGEST_RESULT:
            raise UsageError(f"{path}: has {size / 1e6:.1f} MB, a result at most {LARGEST_RESULT / 1e6:g}")
        content = parse_json(read_text(path), object_pairs_hook=_unique_names)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UsageError(f"{path}: not a JSON file ({error}); name the .json of a result") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: is not a JSON object; name the .json of a result")
    return content


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises ValueError for a repeated name, because programs disagree about which value counts."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"an object has the name {next(name for name in names if names.count(name) > 1)!r} twice")
    return content


def _not_finite(value: Any, place: str = "") -> FieldProblems:
    """Problems: NaN and infinities, which JSON does not know. The schema cannot see them in model options."""
    if isinstance(value, float) and not math.isfinite(value):
        yield place, f"{value} is not a finite number; a value that is not defined is null"
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _not_finite(item, f"{place}.{key}" if place else str(key))


def _parse(path: Path, content: dict[str, Any], problems: list[tuple[str, str]]) -> Result | None:
    """The result, or None after all violations of the schema have been added to `problems`.

    Parsing is strict: text that looks like a number, or a truth value, is not a number, although `read_result` takes it
    for one.
    """
    try:
        result = Result.model_validate_json(json.dumps(migrate(content)), strict=True)
        result._path = path
        return result
    except UsageError as error:
        problems.append(("schema", str(error)))
    except ValidationError as error:
        known = {field for field, _ in problems}  # a NaN is reported already, with a clearer message
        for violation in error.errors():
            field = ".".join(str(part) for part in violation["loc"]) or "result"
            if field not in known:
                problems.append((field, violation["msg"]))
    return None


def _check_time(result: Result) -> FieldProblems:
    """Problems of the time. A board shows the newest of equal runs: a time in the future would win for ever."""
    try:
        created = datetime.fromisoformat(result.identity.created)
    except ValueError:
        yield "identity.created", f"'{result.identity.created}' is not a time; write it as ISO 8601"
        return
    if created.tzinfo is None or created > datetime.now(UTC) + timedelta(days=1):
        yield "identity.created", f"{result.identity.created} has no time zone or lies in the future"


def _task_card(result: Result, given: TaskSpec | None, problems: list[tuple[str, str]]) -> TaskSpec | None:
    """The card that was given, or the bundled card of the task; None with a problem."""
    if given is not None:
        if result.task.name != given.name:
            problems.append(("task.name", f"'{result.task.name}' is not the task of the given card, '{given.name}'"))
        return given
    # `get_task` also reads paths. This name comes from a stranger and must not open one.
    if not is_task(result.task.name):
        text = f"'{result.task.name}' is not a task of this version; see `ocl-bench list tasks`, or pass --task CARD"
        problems.append(("task.name", text))
        return None
    return get_task(result.task.name)


def _check_task(result: Result, task: TaskSpec | None) -> FieldProblems:
    """Differences from the task card, and embedded data that is passed off as other data."""
    if task is None:
        return
    embedded, card = result.data.revision.startswith("embedded-r"), task.data.stand_in
    # Masks that `score` reads are of supplied data, also where they are of the stand-in.
    if result.data.kind not in (("embedded", "supplied") if embedded else ("official", "supplied")):
        yield "data.kind", f"'{result.data.kind}' is not that of revision '{result.data.revision}'"
    elif embedded and not (card and result.data.revision.startswith(f"embedded-r{card.revision}-")):
        yield "data.revision", f"'{result.data.revision}' is not of the stand-in of the card"
    expected = {
        "version": task.version,
        "hash": task.hash,
        "signature": task.signature(result.model.mask_source),
        "main": task.main,
        "metrics": task.metrics,
    }
    for field, value in expected.items():
        if (stored := getattr(result.task, field)) != value:
            yield f"task.{field}", f"{stored!r} is not that of the card {task.name} v{task.version}, {value!r}"
    fit = task.fitted(result.model.mask_source)
    if (fit is None) != (result.fit is None):
        yield "fit", f"the card {task.name} fits {fit.head if fit else 'nothing'}"
    elif fit is not None and result.fit is not None and result.fit.head != fit.head:
        yield "fit.head", f"'{result.fit.head}' is not that of the card, '{fit.head}'"


def _check_key(result: Result, task: TaskSpec | None, skipped: list[str]) -> FieldProblems:
    """A problem when the key is not the hash of the fields of the file (`results.store.key_of`)."""
    data, model, fit = result.data, result.model, result.fit
    if fit is not None and (fit.revision is None or fit.ids_sha256 is None):
        skipped.append("identity.key: format 1 did not record the data that the head was fitted on")
        return
    key = key_of(
        task_hash=result.task.hash,
        data=data,
        model=model.name,
        options=model.options,
        checkpoint_sha256=model.checkpoint_sha256,
        source_sha256="",
        noise_seeds=result.seeds.noise,
        dtype=result.setup.dtype,
        fit=(str(fit.revision), str(fit.ids_sha256)) if fit is not None else None,
        extensions=extensions_of(task) if task is not None else {},
    )
    if key == result.identity.key:
        return
    if task is None:
        skipped.append("identity.key: packages that the task stands on are part of it; that needs the card")
        return
    if extensions_of(task):
        skipped.append("identity.key: another version of a package that the task stands on may be installed here")
        return
    if not model.card or model.state:
        skipped.append("identity.key: the source of a user's own model is part of it and not recorded")
        return
    yield "identity.key", "is not the hash of task, data, model, seeds and dtype in this file; one of them was changed"


def _check_ranges(result: Result) -> FieldProblems:
    """Values and intervals outside the range of their metric, and negative counts and costs."""
    for name, metric in result.metrics.items():
        field = f"metrics.{name}"
        try:
            known = find_metric(name)
        except UsageError as error:
            yield field, str(error)
            continue
        numbers = {"value": metric.value}
        numbers |= {f"ci95.{index}": bound for index, bound in enumerate(metric.ci95 or ())}
        for part, number in numbers.items():
            if number is not None and not known.low - ROUNDING <= number <= known.high + ROUNDING:
                yield f"{field}.{part}", f"{number!r} is outside [{known.low}, {known.high}], the range of {name}"
        if metric.se is not None and metric.se < 0:
            yield f"{field}.se", f"{metric.se!r} is negative"
        if metric.direction != known.direction:
            yield f"{field}.direction", f"{metric.direction}, but that of {name} is {known.direction}"
    not_negative = {
        "model.parameters": result.model.parameters,
        "cost.seconds_total": result.cost.seconds_total,
        "cost.seconds_model": result.cost.seconds_model,
        "cost.peak_memory_mb": result.cost.peak_memory_mb,
    }
    for field, number in not_negative.items():
        if number < 0:
            yield field, f"{number!r} is negative"
    for field, count in (("setup.threads", result.setup.threads), ("setup.batch_size", result.setup.batch_size)):
        if count < 1:
            yield field, f"{count} is below 1"
