"""From the name of a method to its results: `dias` is all its training seeds, `dias:1` one, or result files by path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..core.errors import UsageError
from ..core.files import digest
from .ranks_with import Reason, reasons_against_ranking
from .record import Result, read_result
from .store import find, tasks_in

DataKey = tuple[str, str, str]
"""What results must share to be joined: kind, revision and sample ids of the data."""

_STRENGTH = ("official", "supplied", "embedded")


def is_file(name: str) -> bool:
    """Whether this names result files and not a method."""
    return name.endswith(".json")


def read_files(names: str) -> list[Result]:
    """Results from paths with commas between them. Raises UsageError naming the file that cannot be read."""
    return [read_result(Path(name.strip()).expanduser()) for name in names.split(",") if name.strip()]


def tasks_of(folders: Sequence[Path], name: str) -> list[str]:
    """Tasks on which a method has a result that `find_method` would take."""
    names = sorted({path.name for folder in folders for path in tasks_in(folder)})
    return [task for task in names if any(_usable(result, name) for result in find(folders, task))]


def reasons_against(folders: Sequence[Path], name: str, task: str) -> list[str]:
    """Why results of a method do not take part when it is named: one line for each file that is left out."""
    results = [result for result in find(folders, task) if _is_of(result, name)]
    return [f"{result.path}: {reason.message}" for result in results for reason in _reasons(result)[:1]]


def find_method(
    folders: Sequence[Path], name: str, task: str, card_hash: str | None = None
) -> dict[DataKey, list[Result]]:
    """Results of a method (`name` or `name:seed`) on a task, one for each training seed, by data, official data first.

    Only results that can be ranked take part (`ranks_with`); name the files of others to compare them. Of equal runs
    the one with most noise seeds counts, then the newest; results of another version than `card_hash` only where there
    is no other.
    Empty where there is none. Raises UsageError where a training seed has results with several options or checkpoints.
    """
    grouped: dict[DataKey, dict[int | None, list[Result]]] = {}
    usable = [result for result in find(folders, task) if _usable(result, name)]
    for result in [one for one in usable if one.task.hash == card_hash] or usable:
        seeds = grouped.setdefault(data_key(result), {})
        seeds.setdefault(result.model.training_seed, []).append(result)
    keys = sorted(grouped, key=lambda key: (_STRENGTH.index(key[0]), key))
    return {key: [_only(name, grouped[key][seed]) for seed in _in_order(grouped[key])] for key in keys}


def data_key(result: Result) -> DataKey:
    """Kind, revision and sample ids of the data of a result."""
    return result.data.kind, result.data.revision, result.data.ids_sha256


def _usable(result: Result, name: str) -> bool:
    return _is_of(result, name) and not _reasons(result)


def _reasons(result: Result) -> list[Reason]:
    """Why a result is not ranked; another version of the card is no reason here, `find_method` looks at it."""
    return [reason for reason in reasons_against_ranking(result) if reason.field != "task.hash"]


def _is_of(result: Result, name: str) -> bool:
    base, _, seed = name.partition(":")
    wanted = not seed or str(result.model.training_seed or 0) == seed
    return wanted and result.model.name.partition(":")[0] == base


def _in_order(seeds: dict[int | None, list[Result]]) -> list[int | None]:
    return sorted(seeds, key=lambda seed: -1 if seed is None else seed)


def _only(name: str, candidates: Sequence[Result]) -> Result:
    """The result that counts among those of one training seed. Raises UsageError when they are of different models."""
    newest = sorted(candidates, key=lambda one: (len(one.seeds.noise), one.identity.created), reverse=True)
    kinds = {
        digest([one.task.hash, one.model.options, one.model.checkpoint_sha256, one.setup.dtype]): one
        for one in reversed(newest)
    }
    if len(kinds) > 1:
        files = " or ".join(sorted(str(one.path) for one in kinds.values()))
        raise UsageError(f"{name}: several results with different options, checkpoints or cards; name one: {files}")
    return newest[0]
