"""Folders of results: find results, read their rows, compute their keys.

A folder of results has one folder for each task. It contains `<model>.json` for committed results and
`<model>/<first 8 characters of the key>.json` for a user's own results. No other module searches these folders.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import UsageError
from ..core.files import digest, file_sha256
from ..core.paths import bundled, results_root
from ..core.stamps import stamp
from ..metrics.catalogue import METRIC_VERSION
from .index import ModelNames
from .record import DataSection, Result, read_result
from .rows import read_rows

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class StoredResult:
    """A result file that `search` found.

    Attributes:
        path: the file.
        source: the path relative to the searched folder, with forward slashes.
        result: its content; None when it cannot be read.
        problem: why it cannot be read; '' when it can.
    """

    path: Path
    source: str
    result: Result | None
    problem: str = ""


def default_folders() -> list[Path]:
    """The folder of committed results, then that of the user's own results."""
    return [bundled("leaderboards") / "results", results_root()]


def search(folders: Iterable[Path], task: str | None = None) -> Iterator[StoredResult]:
    """Yield every result file of a task, or of all tasks for None, including files that cannot be read.

    A file that is reached through several folders is yielded once.
    """
    return (_stored(path, source) for _, path, source in _places(folders, task))


def _places(folders: Iterable[Path], task: str | None) -> Iterator[tuple[Path, Path, str]]:
    """Folder, path and source of every result file, once each."""
    seen = set()
    for folder in folders:
        for path in sorted(_files(folder, task)):
            place = os.path.realpath(path)
            if place not in seen:  # the user's folder may be, or link to, the committed one
                seen.add(place)
                yield folder, path, path.relative_to(folder).as_posix()


def _stored(path: Path, source: str) -> StoredResult:
    try:
        return StoredResult(path, source, read_result(path))
    except UsageError as error:
        return StoredResult(path, source, None, str(error).removeprefix(f"{path}: "))


def of_model(folders: Iterable[Path], task: str, model: str) -> list[Result]:
    """The readable results of a model on a task. model: its name, without a training seed.

    Files that are remembered as another model's are not read (`results.index`).
    """
    named = list(_named(folders, task, model))
    return [result for name, result in named if name == model and result is not None and result.task.name == task]


def model_names_in(folders: Iterable[Path]) -> set[str]:
    """Names, without training seeds, of the models that have a readable result."""
    return {name for name, _ in _named(folders, None, None) if name is not None}


def _named(folders: Iterable[Path], task: str | None, wanted: str | None) -> Iterator[tuple[str | None, Result | None]]:
    """The model of each result file and its content, which is read where it is wanted or nothing is remembered."""
    known: dict[Path, ModelNames] = {}
    try:
        for folder, path, source in _places(folders, task):
            names = known.get(folder) or known.setdefault(folder, ModelNames.load(folder))
            mark = stamp(path)
            name, result = names.of(source, mark), None
            if name is None or name == wanted:
                result = _stored(path, source).result
                name = None if result is None else result.model.name.partition(":")[0]
                if name is not None:
                    names.note(source, mark, name)
            yield name, result
    finally:
        for names in known.values():
            names.keep()


def _files(folder: Path, task: str | None) -> Iterator[Path]:
    """The JSON files of one task, or of all tasks, in one folder of results."""
    for task_folder in [folder / task] if task is not None else tasks_in(folder):
        yield from task_folder.glob("*.json")
        yield from task_folder.glob("*/*.json")


def tasks_in(folder: Path) -> list[Path]:
    """The folders of the tasks in a folder of results, sorted; empty when the folder does not exist."""
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def task_names_in(folders: Iterable[Path]) -> set[str]:
    """Names of the tasks that have at least one result file."""
    return {path.name for folder in folders for path in tasks_in(folder) if any(_files(folder, path.name))}


def find(folders: Iterable[Path], task: str | None = None) -> list[Result]:
    """The readable results of a task, or of all tasks.

    Results that lie in the folder of a different task are left out. Use `search` to also get unreadable files.
    """
    results = (stored.result for stored in search(folders, task) if stored.result is not None)
    return [result for result in results if task is None or result.task.name == task]


def only_result(place: Path) -> Path:
    """The file `place` itself, or the only result file of the folder `place`.

    Raises UsageError listing the files when the folder does not have exactly one.
    """
    if not place.is_dir():
        return place
    paths = sorted(place.glob("*.json"))
    if len(paths) != 1:
        names = ", ".join(path.name for path in paths) or "none"
        raise UsageError(f"{place}: holds {len(paths)} result files ({names}); name one of them")
    return paths[0]


def rows_problem(result: Result) -> str:
    """Why the rows file beside a result cannot be used; '' when it is the one that the result recorded."""
    path = result.rows_path
    try:
        if path is None or not path.is_file():
            return "per-image rows are missing"
        same = file_sha256(path) == result.rows.sha256
    except OSError as error:  # the name in the JSON file is too long, or the rows are not readable
        return f"per-image rows cannot be read ({error.strerror})"
    return "" if same else "per-image rows are not those that the result recorded (SHA-256 differs)"


def rows_of(result: Result) -> pandas.DataFrame:
    """Read the per-image rows of a result. Raises UsageError when they are missing or differ from the recorded ones."""
    if problem := rows_problem(result):
        raise UsageError(f"{where(result)}: {problem}; evaluate again")
    assert result.rows_path is not None
    rows = read_rows(result.rows_path)
    if problem := wrong_columns(result, rows):
        raise UsageError(f"{where(result)}: {problem}; evaluate again")
    return rows


def wrong_columns(result: Result, rows: pandas.DataFrame) -> str:
    """Why rows cannot be paired or averaged; '' when they can. Their hash says only that nobody changed them."""
    from pandas.api.types import infer_dtype, is_integer_dtype, is_numeric_dtype

    if "id" not in rows or infer_dtype(rows["id"], skipna=False) not in ("string", "empty"):
        return "per-image rows have no column 'id' of texts"
    if "noise_seed" not in rows or not is_integer_dtype(rows["noise_seed"]):
        return "per-image rows have no column 'noise_seed' of whole numbers"
    if rows.duplicated(["id", "noise_seed"]).any():
        return "per-image rows have a sample twice"
    for name in (name for name in result.metrics if name in rows):
        if not is_numeric_dtype(rows[name]):
            return f"per-image rows have a column '{name}' that does not hold numbers"
        if rows[name].isin([math.inf, -math.inf]).any():
            return f"per-image rows have a column '{name}' that holds infinite numbers"
    return ""


def where(result: Result) -> str:
    """The model of a result and, if it has one, its file: how messages name a result."""
    return f"{result.model.name} ({result.path})" if result.path else result.model.name


def key_of(
    *,
    task_hash: str,
    data: DataSection,
    model: str,
    options: Mapping[str, Any],
    checkpoint_sha256: str,
    source_sha256: str,
    noise_seeds: Sequence[int],
    dtype: str,
    fit: tuple[str, str] | None = None,
    extensions: Mapping[str, str] | None = None,
) -> str:
    """The key of a result: the SHA-256 of everything that can change a number.

    Device, batch size, threads and commit are recorded in the result but are not part of the key.

    Args:
        task_hash: hash of the task card.
        data: the data that are scored.
        model: name of the model.
        options: options that the model was built with.
        checkpoint_sha256: hash of its weights; empty without weights.
        source_sha256: hash of a user's own file with the model; empty for a bundled model.
        noise_seeds: seeds of the slots' initial noise.
        dtype: dtype of the model's arithmetic.
        fit: revision and hash of the ids of the split on which the head is fitted, for a task with a head.
        extensions: parts of the task (reader, metrics, family) that other packages provide, with the hash of their
            source.
    """
    content: dict[str, Any] = {
        "task": task_hash,
        "metric_version": METRIC_VERSION,
        "data": [data.kind, data.revision, data.ids_sha256, data.limit],
        "split": [data.split, data.stand_in_seed],
        "model": [model, dict(options), checkpoint_sha256],
        "source": source_sha256,
        "noise_seeds": list(noise_seeds),
        "dtype": dtype,
    }
    # Absent rather than null, so that keys from before these fields existed stay valid.
    if fit is not None:
        content["fit"] = list(fit)
    # A list is never ranked: without it here, it could be taken out of the file, or be found as a run of all samples.
    if data.listed is not None:
        content["listed"] = data.listed
    if extensions:
        content["extensions"] = dict(extensions)
    return digest(content)
