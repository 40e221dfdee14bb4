"""Results in folders: how they are found, which rows are theirs, and what their key is. Nothing else opens them.

A folder has a folder for each task, and in it `<model>.json` (committed results) or `<model>/<key>.json` (a user's).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import UsageError
from ..core.files import digest, file_sha256
from ..core.paths import bundled, results_root
from ..metrics.catalogue import METRIC_VERSION
from .record import DataSection, Result, read_result
from .rows import read_rows

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Found:
    """A result file. source: its path below the folder in which it was found. problem: why it cannot be read, or ''."""

    path: Path
    source: str
    result: Result | None
    problem: str = ""


def default_folders() -> list[Path]:
    """The committed results, then the user's own."""
    return [bundled("leaderboards") / "results", results_root()]


def search(folders: Iterable[Path], task: str | None = None) -> Iterator[Found]:
    """Every result file of a task (None: of all tasks), each once, with what it holds or why it cannot be read."""
    seen = set()
    for folder in folders:
        for path in sorted(_files(folder, task)):
            if path.resolve() in seen:
                continue
            seen.add(path.resolve())
            source = path.relative_to(folder).as_posix()
            try:
                yield Found(path, source, read_result(path))
            except UsageError as error:
                yield Found(path, source, None, str(error).removeprefix(f"{path}: "))


def _files(folder: Path, task: str | None) -> Iterator[Path]:
    for place in [folder / task] if task is not None else tasks_in(folder):
        yield from place.glob("*.json")
        yield from place.glob("*/*.json")


def tasks_in(folder: Path) -> list[Path]:
    """The folders of tasks in a folder of results."""
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def task_names_in(folders: Iterable[Path]) -> set[str]:
    """Names of the tasks of which there is a result file."""
    return {place.name for folder in folders for place in tasks_in(folder) if any(_files(folder, place.name))}


def find(folders: Iterable[Path], task: str | None = None) -> list[Result]:
    """The readable results of a task, or of all tasks.

    A file that lies in the folder of another task than its own does not count; `search` also gives what is unreadable.
    """
    found = [one.result for one in search(folders, task) if one.result is not None]
    return [result for result in found if task is None or result.task.name == task]


def only_result(place: Path) -> Path:
    """A result file: the path itself, or the only one of a folder. Raises UsageError naming those to choose from."""
    if not place.is_dir():
        return place
    found = sorted(place.glob("*.json"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise UsageError(f"{place}: holds {len(found)} result files ({names}); name one of them")
    return found[0]


def rows_problem(result: Result) -> str:
    """Why the rows beside a result are not those that it recorded; '' where they are."""
    path = result.rows_path
    try:
        if path is None or not path.is_file():
            return "per-image rows are missing"
        same = file_sha256(path) == result.rows.sha256
    except OSError as error:  # a name in the file that is none, or rows that cannot be read
        return f"per-image rows cannot be read ({error.strerror})"
    return "" if same else "per-image rows are not those that the result recorded (SHA-256 differs)"


def rows_of(result: Result) -> pandas.DataFrame:
    """The per-image rows of a result. Raises UsageError when they are missing or are not those that it recorded."""
    if problem := rows_problem(result):
        raise UsageError(f"{where(result)}: {problem}; evaluate again")
    assert result.rows_path is not None
    return read_rows(result.rows_path)


def where(result: Result) -> str:
    """A result by its model and its file, for messages."""
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
    """SHA-256 of everything that can change a number. Device, batch size, threads and commit are only recorded.

    Args:
        task_hash: of the task card.
        data: what was scored.
        model: its name. options: those it was built with.
        checkpoint_sha256: of its weights. source_sha256: of a user's own file; both empty where there is none.
        noise_seeds: of the slots. dtype: of the arithmetic.
        fit: revision and hash of the ids of the split on which the head was fitted, for a task that has one.
        extensions: what other packages add to the task (reader, metrics, family), with the hash of their source.
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
    if fit is not None:
        content["fit"] = list(fit)
    if extensions:
        content["extensions"] = dict(extensions)
    return digest(content)
