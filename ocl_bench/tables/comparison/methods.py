"""Find the results of a method by its name.

`dias` means all its training seeds and `dias:1` means one of them. Paths of result files are accepted in place of a
name.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...cards.names import CARDS
from ...core.errors import UsageError
from ...core.files import digest
from ...evaluation.examination.refusals import why_not_ranked
from ...results.ranks_with import Reason
from ...results.record import Result
from ...results.store import of_model, tasks_in

DataKey = tuple[str, str, str]
"""Kind, revision and hash of the sample ids. Results are joined image by image only when all three are equal."""

_STRENGTH = ("official", "supplied", "embedded")
"""Kinds of data, the strongest evidence first."""


def is_file(name: str) -> bool:
    """Whether `name` is a path of a result file rather than the name of a method."""
    return name.endswith(".json")


def tasks_of(folders: Sequence[Path], name: str) -> list[str]:
    """Names of the tasks on which a method has a result that `find_method` would use."""
    names = sorted({path.name for folder in folders for path in tasks_in(folder)})
    return [task for task in names if any(_usable(result, name) for result in _results(folders, task, name))]


def reasons_against(folders: Sequence[Path], name: str, task: str) -> list[str]:
    """Why `find_method` leaves out results of a method: one line `<path>: <reason>` for each such file."""
    results = [result for result in _results(folders, task, name) if _is_of(result, name)]
    return [f"{result.path}: {reason.message}" for result in results for reason in _reasons(result)[:1]]


def find_method(
    folders: Sequence[Path], name: str, task: str, card_hash: str | None = None
) -> dict[DataKey, list[Result]]:
    """Find the results of a method on a task: one result for each training seed, grouped by data.

    Only results that can be ranked are used (`why_not_ranked`); other results can be compared by naming their files.
    When one model was evaluated several times, the run with the most noise seeds is used, and among those the newest.

    Args:
        folders: folders of results to search.
        name: `name` for all training seeds or `name:seed` for one.
        task: name of the task.
        card_hash: hash of the preferred version of the task card. Results of other versions are used only when no
            result has this hash.

    Returns:
        Results by data, official data first, each list in the order of the training seeds; empty when there is none.

    Raises:
        UsageError: one training seed has results with different options, checkpoints, dtypes or card versions.
    """
    grouped: dict[DataKey, dict[int | None, list[Result]]] = {}
    usable = [result for result in _results(folders, task, name) if _usable(result, name)]
    for result in [result for result in usable if result.task.hash == card_hash] or usable:
        seeds = grouped.setdefault(data_key(result), {})
        seeds.setdefault(result.model.training_seed, []).append(result)
    for seeds in grouped.values():
        if len(seeds) > 1:  # a result without a number beside numbered trainings: one of them, or from before them
            seeds.pop(None, None)
    keys = sorted(grouped, key=lambda key: (_STRENGTH.index(key[0]), key))
    return {key: [_only(name, grouped[key][seed]) for seed in _in_order(grouped[key])] for key in keys}


def data_key(result: Result) -> DataKey:
    """The `DataKey` of a result."""
    return result.data.kind, result.data.revision, result.data.ids_sha256


def _results(folders: Sequence[Path], task: str, name: str) -> list[Result]:
    """The results of all training seeds of a method `name` or `name:seed`."""
    return of_model(folders, task, name.partition(":")[0])


def _usable(result: Result, name: str) -> bool:
    return _is_of(result, name) and not _reasons(result)


def _reasons(result: Result) -> list[Reason]:
    """Why a result is not ranked. A different version of the card does not count here: `find_method` handles it."""
    return [reason for reason in why_not_ranked(result) if reason.field != "task.hash"]


def _is_of(result: Result, name: str) -> bool:
    """Whether a result belongs to the method `name` or `name:seed`."""
    base, _, seed = name.partition(":")
    # A model without training seeds counts as seed 0.
    seed_matches = not seed or str(result.model.training_seed or 0) == seed
    # A user's model that has the name of a bundled one (of an older version) is another method.
    own = bool(result.model.card) or not (CARDS / f"{base}.yaml").is_file()
    return seed_matches and own and result.model.name.partition(":")[0] == base


def _in_order(seeds: dict[int | None, list[Result]]) -> list[int | None]:
    """The training seeds in ascending order, None (no seed) first."""
    return sorted(seeds, key=lambda seed: -1 if seed is None else seed)


def _only(name: str, candidates: Sequence[Result]) -> Result:
    """The result to use among those of one training seed. Raises UsageError when they are not runs of one model."""
    newest = sorted(candidates, key=lambda result: (len(result.seeds.noise), result.identity.created), reverse=True)
    # Two files of one training seed may be repeats of one evaluation. With other options or weights they are different
    # models, and picking the newest would compare whatever was run last.
    variants = {digest(_variant(result)): result for result in reversed(newest)}
    if len(variants) > 1:
        files = " or ".join(sorted(str(result.path) for result in variants.values()))
        raise UsageError(f"{name}: several results with different options, checkpoints or cards; name one: {files}")
    return newest[0]


def _variant(result: Result) -> list[object]:
    """What makes two results of one name and training seed results of different models or cards."""
    model = result.model
    return [result.task.hash, model.options, model.weights, model.code_sha256, result.setup.dtype]
