"""Which task cards have a given protocol, or come closest to it: the way from a paper to a card."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..core.errors import UsageError
from ..core.files import parse_yaml
from .names import get_task, suggest
from .task import TaskSpec

Fields = Mapping[str, Any]
"""Fields of a task card with dotted names, such as `protocol.input`, and their values."""

_CARD = {"family", "data", "protocol", "fit", "main"}
_NOT_PROTOCOL = ("data.stand_in", "data.licence", "data.size", "data.get", "data.folder")
"""Fields about the data that change no number of official data."""


@dataclass(frozen=True)
class Likeness:
    """How a task differs from what is wanted.

    Attributes:
        task: its name.
        differing: for each field the value of the task, and the wanted one. Of a task of another family than a wanted
            card, only fields that both families have.
        other_family: the family of the task, where that of the wanted card is another one; else "".
    """

    task: str
    differing: dict[str, tuple[Any, Any]]
    other_family: str = ""


def closest(wanted: Sequence[str], tasks: Sequence[str]) -> list[Likeness]:
    """The tasks, those of the family of a wanted card first, then those with the fewest differing fields.

    Args:
        wanted: the path of one task card, or fields such as `input=224` or `protocol.void=drop`.
        tasks: names of the tasks that are compared.

    Raises:
        UsageError: for a card that cannot be read, or a field that no task has.
    """
    fields = {name: fields_of(get_task(name)) for name in tasks}
    if len(wanted) == 1 and wanted[0].endswith((".yaml", ".yml")):
        asked = fields_of(get_task(wanted[0]))
        found = [_like_card(name, own, asked) for name, own in fields.items()]
    else:
        asked = _asked(wanted, sorted({name for own in fields.values() for name in own}))
        found = [Likeness(name, _differing(own, asked, asked)) for name, own in fields.items()]
    return sorted(found, key=lambda one: (bool(one.other_family), len(one.differing), one.task))


def _like_card(name: str, own: Fields, asked: Fields) -> Likeness:
    """How a task differs from a card."""
    both = {*own} & {*asked} - {"family", "main"}
    if _differing(own, asked, ["family"]):
        return Likeness(name, _differing(own, asked, both), own["family"])
    return Likeness(name, _differing(own, asked, {*own, *asked}))


def fields_of(task: TaskSpec) -> Fields:
    """The fields of a card that make its protocol. Which metrics it names, but for the main one, is no part of it."""
    flat = _flat("", task.model_dump(mode="json", include=_CARD))
    return {name: value for name, value in flat.items() if not name.startswith(_NOT_PROTOCOL) and value is not None}


def _flat(prefix: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    parts = ((f"{prefix}.{name}" if prefix else name, entry) for name, entry in value.items())
    return {key: leaf for name, entry in parts for key, leaf in _flat(name, entry).items()}


def _differing(own: Fields, asked: Fields, names: Iterable[str]) -> dict[str, tuple[Any, Any]]:
    return {name: (own.get(name), asked.get(name)) for name in sorted(names) if own.get(name) != asked.get(name)}


def _asked(texts: Sequence[str], known: Sequence[str]) -> Fields:
    """The wanted fields by their full names. A short name, such as `input`, must belong to one field only."""
    asked = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator:
            raise UsageError(f"--like {text}: give a task card (.yaml), or fields such as input=224 void=drop")
        full = [one for one in known if one == name or one.endswith(f".{name}")]
        if len(full) != 1:
            short = [one.rpartition(".")[2] for one in known]
            problem = f"is {' or '.join(full)}" if full else f"is no field of a task card{suggest(name, short)}"
            raise UsageError(f"--like {text}: '{name}' {problem}")
        try:
            asked[full[0]] = parse_yaml(value)
        except ValueError as error:
            raise UsageError(f"--like {text}: the value is not YAML ({error})") from error
    return asked
