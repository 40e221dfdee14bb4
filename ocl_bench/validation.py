"""Is a result what it says? Everything that a result file and its rows can prove, without running the model again.

Schema, hashes, ranges and completeness are checked, every value and interval is computed again from the rows, and a few
samples are scored again where predictions are kept beside the file. Nothing proves what ran: time, device, versions,
commit and the number of parameters are recorded, not checked (`docs/submit.md`).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from .errors import UsageError
from .metrics import find_metric
from .migrations import migrate
from .registry import CARDS, get_card, get_task, model_names, task_names
from .results import Result, digest, read_rows
from .spec import METRIC_VERSION, TaskSpec

if TYPE_CHECKING:
    import pandas

    from .results import MetricValue
    from .spec import ModelCard

ROUNDING = 1e-9
"""Sums in another order, on another processor: what values and (seeded) intervals may differ by, relative above 1."""

Found = Iterator[tuple[str, str]]
"""Field and what is wrong with it."""


@dataclass(frozen=True)
class Problem:
    """Why a result is refused. field: its place in the JSON file, `rows.<column>` or `predictions`."""

    file: str
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}: {self.field}: {self.message}"


@dataclass(frozen=True)
class Validation:
    """What was found about one file. skipped: what could not be checked, and why. rescored: samples scored again."""

    file: str
    problems: tuple[Problem, ...]
    skipped: tuple[str, ...]
    images: int = 0
    metrics: int = 0
    rescored: int = 0

    @property
    def valid(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.problems


def validate(
    path: str | Path, *, predictions: str | Path | None = None, data_root: str | Path | None = None
) -> list[Problem]:
    """All problems of a result file, empty for a valid one; arguments and errors as in `examine`."""
    return list(examine(path, predictions=predictions, data_root=data_root).problems)


def examine(
    path: str | Path, *, predictions: str | Path | None = None, data_root: str | Path | None = None
) -> Validation:
    """Check a result file against its rows, its cards and, where they are kept, its predictions.

    path: the JSON file; its rows lie beside it. predictions: folder with `seed-<n>/...`, by default
    `<stem>.predictions` beside the file. data_root: where official data is, to score predictions again.

    Raises UsageError when the file is no JSON object.
    """
    path = Path(path)
    content = _read_json(path)
    found = list(_not_finite(content))
    result = _parse(content, found)
    skipped: list[str] = []
    images = metrics = rescored = 0
    if result is not None:
        task = _task_card(result, found)
        found += [*_check_task(result, task), *_check_model(result, task), *_check_ranges(result)]
        found += _check_key(result, task, skipped)
        rows = _rows(path, result, found)
        if rows is not None:
            images = len(rows)
            found += [*_check_counts(result, rows), *_check_row_values(rows)]
            metrics = _check_values(result, rows, task, found, skipped)
            rescored = _rescore(path, result, rows, task, predictions, data_root, found, skipped)
    problems = tuple(Problem(str(path), field, message) for field, message in dict.fromkeys(found))
    return Validation(str(path), problems, tuple(skipped), images, metrics, rescored)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UsageError(f"{path}: not a JSON file ({error}); name the .json of a result") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: holds no JSON object; name the .json of a result")
    return content


def _not_finite(value: Any, place: str = "") -> Found:
    """Numbers that JSON does not know, also where the schema allows anything (model options)."""
    if isinstance(value, float) and not math.isfinite(value):
        yield place, f"{value} is not a finite number; a value that is not defined is null"
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _not_finite(item, f"{place}.{key}" if place else str(key))


def _parse(content: dict[str, Any], found: list[tuple[str, str]]) -> Result | None:
    """The result; None, with all problems of the schema, when it is none."""
    try:
        return Result.model_validate(migrate(content))
    except UsageError as error:
        found.append(("schema", str(error)))
    except ValidationError as error:
        known = {field for field, _ in found}
        for one in error.errors():
            field = ".".join(str(part) for part in one["loc"]) or "result"
            if field not in known:
                found.append((field, one["msg"]))
    return None


def _task_card(result: Result, found: list[tuple[str, str]]) -> TaskSpec | None:
    """The bundled card of the task. The name comes from a file: it is never taken for a path."""
    if result.task.name not in task_names():
        found.append(("task.name", f"'{result.task.name}' is no task of this version; see `ocl-bench list tasks`"))
        return None
    return get_task(result.task.name)


def _check_task(result: Result, task: TaskSpec | None) -> Found:
    """The protocol is that of the card."""
    if task is None:
        return
    expected = {
        "version": task.version,
        "hash": task.hash,
        "signature": task.signature(result.model.mask_source),
        "main": task.main,
        "metrics": task.metrics,
    }
    for field, value in expected.items():
        if (now := getattr(result.task, field)) != value:
            yield f"task.{field}", f"{now!r} is not that of the card {task.name} v{task.version}, {value!r}"
    if (task.fit is None) != (result.fit is None):
        yield "fit", f"the card {task.name} fits {task.fit.head if task.fit else 'nothing'}"
    elif task.fit is not None and result.fit is not None and result.fit.head != task.fit.head:
        yield "fit.head", f"'{result.fit.head}' is not that of the card, '{task.fit.head}'"


def _check_model(result: Result, task: TaskSpec | None) -> Found:
    """What the bundled card of the model says, where the result is of one."""
    model = result.model
    base, _, seed = model.name.partition(":")
    if not model.card:
        if (CARDS / f"{Path(base).name}.yaml").is_file():
            yield "model.card", f"is empty, but '{model.name}' is the name of a bundled model"
        return
    try:
        card = get_card(model.card)
    except UsageError as error:
        yield "model.card", str(error)
        return
    if base != card.name:
        yield "model.name", f"'{model.name}' is not of the card '{card.name}'"
    if model.role != card.role:
        yield "model.role", f"'{model.role}' is not that of the card, '{card.role}'"
    if model.supervision != (seen := _supervision(result, card)):
        yield "model.supervision", f"'{model.supervision}' is not that of the card, '{seen}'"
    if task is not None:
        boxes = bool(task.protocol.boxes) and card.privilege == "none"
        if model.privilege != (wanted := "boxes" if boxes else card.privilege):
            yield "model.privilege", f"'{model.privilege}' is not what card and task give, '{wanted}'"
        if task.family not in card.families:
            yield "task.name", f"the card {card.name} does not do {task.family}"
    yield from _check_checkpoint(result, card, seed)


def _supervision(result: Result, card: ModelCard) -> str:
    """What training saw, by the card; of a floor that clusters another model's tokens, what that one saw."""
    encoder = str(result.model.options.get("encoder", "")).partition(":")[0]
    if card.role == "floor" and encoder in model_names():
        return get_card(encoder).supervision
    return card.supervision


def _check_checkpoint(result: Result, card: ModelCard, seed: str) -> Found:
    """Training seed and checkpoint belong together: the bundled seed has the bundled weights."""
    model = result.model
    bundled = card.training.seed if card.training else None
    allowed = (int(seed),) if seed.isdigit() else (None, bundled)
    if model.training_seed not in allowed:
        yield "model.training_seed", f"{model.training_seed} does not belong to '{model.name}'"
    same = not seed and bundled is not None and model.training_seed == bundled
    if same and card.sha256 and model.checkpoint_sha256 != card.sha256:
        yield "model.checkpoint_sha256", f"is not that of the bundled weights {card.weights}, {card.sha256[:16]}..."


def _check_key(result: Result, task: TaskSpec | None, skipped: list[str]) -> Found:
    """The key is the hash of what the file says (`evaluate.Plan.key`)."""
    data, model, fit = result.data, result.model, result.fit
    content: dict[str, Any] = {
        "task": result.task.hash,
        "metric_version": METRIC_VERSION,
        "data": [data.kind, data.revision, data.ids_sha256, data.limit],
        "split": [data.split, data.stand_in_seed],
        "model": [model.name, model.options, model.checkpoint_sha256],
        "source": "",
        "noise_seeds": list(result.seeds.noise),
        "dtype": result.setup.dtype,
    }
    if fit is not None:
        if fit.revision is None or fit.ids_sha256 is None:
            skipped.append("identity.key: format 1 did not record the data that the head was fitted on")
            return
        content["fit"] = [fit.revision, fit.ids_sha256]
    if digest(content) == result.identity.key:
        return
    if not model.card:
        skipped.append("identity.key: the source of a user's own model is part of it and not recorded")
        return
    yield "identity.key", "is not the hash of task, data, model, seeds and dtype in this file; one of them was changed"


def _check_ranges(result: Result) -> Found:
    """Each value and interval lies where its metric can be; counts and cost are not negative."""
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
    counted = {
        "model.parameters": result.model.parameters,
        "cost.seconds_total": result.cost.seconds_total,
        "cost.seconds_model": result.cost.seconds_model,
        "cost.peak_memory_mb": result.cost.peak_memory_mb,
    }
    for field, number in counted.items():
        if number < 0:
            yield field, f"{number!r} is negative"


def _rows(path: Path, result: Result, found: list[tuple[str, str]]) -> pandas.DataFrame | None:
    """The rows beside the file, if they are there; their name is never taken for a path."""
    name = result.rows.file
    rows = path.parent / name
    if not name or Path(name).name != name or not rows.is_file():
        found.append(("rows.file", f"'{name}' is no file beside {path.name}"))
        return None
    sha256 = hashlib.sha256(rows.read_bytes()).hexdigest()
    if sha256 != result.rows.sha256:
        found.append(("rows.sha256", f"{name} has {sha256}, the result says {result.rows.sha256}"))
    try:
        table = read_rows(rows)
    except UsageError as error:
        found.append(("rows.file", str(error)))
        return None
    missing = [column for column in ("id", "noise_seed", "n_objects") if column not in table]
    found += [(f"rows.{column}", f"{name} has no such column") for column in missing]
    return None if missing else table


def _check_counts(result: Result, rows: pandas.DataFrame) -> Found:
    """Every image is there, once for each noise seed, and what is counted is what the rows hold."""
    from .evaluate import ids_hash

    counts, seeds = result.counts, result.seeds.noise
    ids, failed = set(rows["id"].astype(str)), [failure.id for failure in counts.failed]
    twice = rows.duplicated(["id", "noise_seed"])
    if twice.any():
        yield "rows.id", f"{int(twice.sum())} rows stand twice, first {rows.loc[twice, 'id'].iloc[0]}"
    if set(rows["noise_seed"].tolist()) != set(seeds) or len(set(seeds)) != len(seeds):
        yield "seeds.noise", f"{list(seeds)} are not those of the rows, {sorted(set(rows['noise_seed'].tolist()))}"
    each = rows.loc[~twice].groupby("id").size()
    if (each != len(seeds)).any():
        short = int((each != len(seeds)).sum())
        yield "rows.noise_seed", f"{short} images do not have a row for each noise seed, first {each.idxmin()}"
    if len(set(failed)) != len(failed) or ids & set(failed):
        yield "counts.failed", "names a sample twice, or one that has a row"
    if ids_hash([*ids, *failed]) != result.data.ids_sha256:
        yield "data.ids_sha256", f"is not the hash of the {len(ids)} ids of the rows and {len(failed)} failed ones"
    if counts.scored != len(ids):
        yield "counts.scored", f"{counts.scored}, but the rows are of {len(ids)} images"
    if counts.attempted != len(ids) + len(failed):
        yield "counts.attempted", f"{counts.attempted}, but {len(ids)} have rows and {len(failed)} failed"
    if result.data.limit is not None and counts.attempted > result.data.limit:
        yield "data.limit", f"{result.data.limit} is below the {counts.attempted} images that were attempted"
    if result.identity.status != (status := "failed samples" if failed else "complete"):
        yield "identity.status", f"'{result.identity.status}', but counts.failed says '{status}'"
    share = float((rows.drop_duplicates("id")["n_objects"] == 1).mean())
    if not _same(counts.single_object_share, share):
        yield "counts.single_object_share", f"{counts.single_object_share!r}, but the rows give {share!r}"
    images = float(rows["n_frames"].sum()) if "n_frames" in rows else float(len(rows))
    speed = images / result.cost.seconds_total if result.cost.seconds_total > 0 else None
    if not _same(result.cost.images_per_second, speed):
        yield "cost.images_per_second", f"{result.cost.images_per_second!r}, but rows and seconds give {speed!r}"


def _check_row_values(rows: pandas.DataFrame) -> Found:
    """No infinity, and each image's value of a metric lies in the range of the metric (NaN: not valid there)."""
    if rows["id"].isna().any():
        yield "rows.id", f"{int(rows['id'].isna().sum())} rows have no id"
    for column in rows.select_dtypes("number").columns:
        values = rows[column].to_numpy(np.float64)
        low, high = -math.inf, math.inf
        if column not in ("noise_seed", "n_objects"):
            try:
                known = find_metric(column)
                low, high = known.low - ROUNDING, known.high + ROUNDING
            except UsageError:
                pass  # a sum or a count from which a metric of the whole set is computed
        wrong = np.isinf(values) | (values < low) | (values > high)
        if wrong.any():
            first = int(np.argmax(wrong))
            text = f"{values[first]} of {rows['id'].iloc[first]} is infinite or outside [{low:.6g}, {high:.6g}]"
            yield f"rows.{column}", f"{text} ({int(wrong.sum())} such values)"


def _check_values(
    result: Result,
    rows: pandas.DataFrame,
    task: TaskSpec | None,
    found: list[tuple[str, str]],
    skipped: list[str],
) -> int:
    """Compute every metric from the rows again and compare; returns how many were."""
    if task is None or task.hash != result.task.hash:
        skipped.append("metrics: without the card of the task they cannot be computed from the rows")
        return 0
    from .adapters import get_adapter

    try:
        with np.errstate(invalid="ignore"):  # infinities among the rows are named elsewhere
            computed = get_adapter(task).summarise(rows, task, result.model.mask_source)
    except (UsageError, KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        found.append(("rows", f"the metrics cannot be computed from them ({type(error).__name__}: {error})"))
        return 0
    for name in sorted({*computed, *result.metrics}):
        if name not in computed or name not in result.metrics:
            found.append((f"metrics.{name}", "is " + ("missing" if name in computed else "no metric of the task")))
            continue
        found += _compare(f"metrics.{name}", result.metrics[name], computed[name])
    return len(computed)


def _compare(field: str, stored: MetricValue, computed: MetricValue) -> Found:
    for part in ("value", "se", "n_valid", "signature"):
        now, then = getattr(computed, part), getattr(stored, part)
        if not _same(then, now):
            yield f"{field}.{part}", f"{then!r}, but the rows give {now!r}"
    low, high = stored.ci95 or (None, None)
    if not all(map(_same, (low, high), computed.ci95 or (None, None))):
        yield f"{field}.ci95", f"{stored.ci95}, but the rows give {computed.ci95}"


def _same(a: Any, b: Any) -> bool:
    """Equal up to rounding."""
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) <= ROUNDING * max(1.0, abs(b))
    return bool(a == b)


def _rescore(
    path: Path,
    result: Result,
    rows: pandas.DataFrame,
    task: TaskSpec | None,
    predictions: str | Path | None,
    data_root: str | Path | None,
    found: list[tuple[str, str]],
    skipped: list[str],
) -> int:
    """Score a few samples again from their saved predictions; returns how many."""
    folder = Path(predictions) if predictions is not None else path.with_suffix(".predictions")
    if not folder.is_dir():
        if predictions is not None:
            found.append(("predictions", f"{folder} is not a folder"))
        skipped.append("samples were not scored again: no predictions are attached")
        return 0
    if task is None or task.hash != result.task.hash:
        skipped.append("samples were not scored again: without the card of the task they cannot be")
        return 0
    from .rescoring import Rescored, rescore

    outcome = rescore(result, rows, task, folder, Path(data_root) if data_root is not None else None)
    if not isinstance(outcome, Rescored):
        skipped.append(f"samples were not scored again: {outcome}")
        return 0
    found += outcome.problems
    return outcome.samples
