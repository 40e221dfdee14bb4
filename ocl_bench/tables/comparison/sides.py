"""The two sides of a comparison: from names and files to results, and the tasks and data that both sides share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...cards.model import load_model_card
from ...cards.names import get_task, is_task, model_names, name_of_file, suggest
from ...cards.task import TaskSpec
from ...core.errors import UsageError
from ...results.config import read_config
from ...results.record import Result, read_result
from ...results.store import find, model_names_in
from .methods import DataKey, data_key, find_method, is_file, reasons_against, tasks_of

Method = str | Sequence[str] | Sequence[Result]
"""Names and paths of result files, in one text with commas or in several, or results."""

Tasks = str | Path | TaskSpec | Sequence[str | Path | TaskSpec] | None


@dataclass(frozen=True)
class Side:
    """One side: the training seeds of one method.

    Attributes:
        text: as it was given, for messages.
        names: names of methods as results have them, with or without a training seed.
        given: results that were given themselves, or by their files.
    """

    text: str
    names: tuple[str, ...] = ()
    given: tuple[Result, ...] = ()

    @property
    def method(self) -> str:
        """The name of the method, for messages."""
        return self.text if self.names else self.given[0].model.name


def side_of(method: Method) -> Side:
    """One side of a comparison. Raises UsageError when a file cannot be read or there is nothing."""
    texts = [method] if isinstance(method, str) else [one for one in method if isinstance(one, str)]
    results = [] if isinstance(method, str) else [one for one in method if isinstance(one, Result)]
    parts = [part for text in texts for one in text.split(",") if (part := one.strip())]
    results += [read_result(Path(part).expanduser()) for part in parts if is_file(part)]
    names = tuple(_name(part) for part in parts if not is_file(part))
    if not names and not results:
        raise UsageError("no result to compare; give a method's name or result files")
    return Side(",".join(parts), names, tuple(results))


def _name(text: str) -> str:
    """The name that results have of a model as `eval --model` takes it: a name, a Python file or a card."""
    if match := re.fullmatch(r"(?P<path>.+\.py):(?P<attribute>\w+)", text):
        return name_of_file(Path(match["path"]), match["attribute"])
    return load_model_card(Path(text)).name if text.endswith((".yaml", ".yml")) else text


def check_names(sides: Sequence[Side], folders: Sequence[Path]) -> None:
    """Raise UsageError, with a suggestion, for a name that neither a model nor a result has."""
    for side in sides:
        for name in (one.partition(":")[0] for one in side.names):
            known = model_names()
            if name in known:
                continue
            known = sorted({*known, *model_names_in(folders)})
            if name not in known:
                raise UsageError(
                    f"unknown model '{name}': no model and no result has this name; "
                    f"evaluate yours with --name {name}, or name its result files{suggest(name, known)}"
                )


def cards_of(a: Side, b: Side, task: Tasks, folders: Sequence[Path]) -> list[TaskSpec]:
    """The cards to compare on, once each. Raises UsageError when the two share no task."""
    if task is not None:
        tasks = task.split(",") if isinstance(task, str) else [task] if isinstance(task, Path | TaskSpec) else task
        return [_card(name.strip(), folders) if isinstance(name, str) else get_task(name) for name in tasks]
    of_a, of_b = (_tasks(side, folders) for side in (a, b))
    common = [name for name in of_a if name in of_b]
    for side, names in ((a, of_a), (b, of_b)):
        if not names:
            places = ", ".join(map(str, folders))
            raise UsageError(f"{side.text}: none of its results is ranked in {places}; name their files to compare")
    if not common:
        raise UsageError(
            f"{a.method} and {b.method} have no task in common: {', '.join(of_a) or 'none'} against "
            f"{', '.join(of_b) or 'none'} in {', '.join(map(str, folders))}; evaluate both on one task"
        )
    installed = [name for name in common if is_task(name)]
    return [_card(name, folders) for name in installed or common[:1]]


def _card(task: str, folders: Sequence[Path]) -> TaskSpec:
    """The card of a task by its name or path. That of your own task is found by what its results were asked for.

    Raises UsageError for a task whose card is not where it was evaluated.
    """
    results = [] if is_task(task) or is_file(task) else find(folders, task)
    if not results:
        return get_task(task)
    asked = (result.path.with_suffix(".yaml") for result in results if result.path is not None)
    for path in {str(read_config(file).get("task")) for file in asked if file.is_file()}:
        if path.endswith((".yaml", ".yml")) and Path(path).is_file() and (card := get_task(path)).name == task:
            return card
    raise UsageError(f"task {task} is not one of the suite; pass --task with the path of its card")


def _tasks(side: Side, folders: Sequence[Path]) -> list[str]:
    """Names of the tasks on which a side has results, once each."""
    by_name = [tasks_of(folders, name) for name in side.names]
    return list(dict.fromkeys([*(task for tasks in by_name for task in tasks), *(r.task.name for r in side.given)]))


def on_shared_data(a: Side, b: Side, card: TaskSpec, folders: Sequence[Path]) -> tuple[list[Result], list[Result]]:
    """Results of both sides on the best data that they share; if they share none, `pair` reports what differs."""
    of_a, of_b = (_by_data(side, card, folders) for side in (a, b))
    common = [key for key in of_a if key in of_b]
    key_a, key_b = (common[0], common[0]) if common else (next(iter(of_a)), next(iter(of_b)))
    return of_a[key_a], of_b[key_b]


def _by_data(side: Side, card: TaskSpec, folders: Sequence[Path]) -> dict[DataKey, list[Result]]:
    """Results of a side by data, the best data first. Raises UsageError when there is none."""
    found: dict[DataKey, list[Result]] = {}
    for name in side.names:
        by_data = find_method(folders, name, card.name, card.hash)
        if not by_data:
            raise UsageError(_not_found(side, name, card, folders))
        for key, results in by_data.items():
            found.setdefault(key, []).extend(results)
    if side.given:
        # Results of another task are kept when there are no others: `pair` then names the task that differs.
        of_task = [result for result in side.given if result.task.name == card.name] or list(side.given)
        # All of them, also those of other data: leaving files out that were named would compare fewer training seeds.
        found = {data_key(of_task[0]): [*found.get(data_key(of_task[0]), []), *of_task]}
    return found


def _not_found(side: Side, name: str, card: TaskSpec, folders: Sequence[Path]) -> str:
    """The message about a name without a ranked result, with what to run."""
    left_out = reasons_against(folders, name, card.name)
    why = f" (left out: {'; '.join(left_out[:3])})" if left_out else ""
    shown = side.text if len(side.names) == 1 and not side.given else name
    evaluate = f"ocl-bench eval --model {shown} --task {card.name}"
    if name.partition(":")[0] not in model_names() and shown == name:  # only its author knows its file
        base, _, seed = name.partition(":")
        evaluate = f"ocl-bench eval --model FILE.py:build --name {base} --task {card.name}"
        evaluate += f" --training-seed {seed}" if seed else ""
    places = ", ".join(map(str, folders))
    return f"{name}: no ranked result on task '{card.name}' in {places}{why}; run: {evaluate}, or name its result files"
