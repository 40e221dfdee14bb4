"""`--config FILE`: options of a verb from a YAML file, below those of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..cards.names import suggest
from ..core.errors import UsageError
from ..results.config import read_config
from ..training.follow_up import flags

NAME = "--config"


def with_config(args: Sequence[str], parameters: Sequence[Any]) -> list[str]:
    """The arguments of a verb with the options of its file in front, so that those that are typed win.

    Args:
        args: arguments of the verb, which has `--config`.
        parameters: of the verb, as typer declares them.

    Raises:
        UsageError: the file cannot be read, or has a key that is no option or a value that an option cannot have.
    """
    path, others = _taken_out(args)
    if path is None:
        return others
    known = {one.name: one for one in parameters if one.name not in ("config", "help")}
    arguments: list[str] = []
    for name, value in read_config(path).items():
        if name not in known:
            close = suggest(name, list(known))
            raise UsageError(f"{path}: '{name}' is no option{close or '; there are ' + ', '.join(known)}")
        if value is not None:
            arguments += _spelled(known[name], value, f"{path}: {name}")
    return [*arguments, *others]


def _taken_out(args: Sequence[str]) -> tuple[Path | None, list[str]]:
    """The file of `--config` and the other arguments. Raises UsageError for a second file or a missing name."""
    files: list[str] = []
    others: list[str] = []
    rest = iter(args)
    for argument in rest:
        if argument == NAME:
            files.append(next(rest, ""))
        elif argument.startswith(f"{NAME}="):
            files.append(argument.removeprefix(f"{NAME}="))
        else:
            others.append(argument)
    if files and (len(files) > 1 or not files[0]):
        raise UsageError(f"{NAME}: name one YAML file")
    return (Path(files[0]) if files else None), others


def _spelled(parameter: Any, value: Any, place: str) -> list[str]:
    """One option as it is typed. A mapping gives `key=value` for each key, and a list several values with commas."""
    option = max(parameter.opts, key=len)
    if parameter.is_flag:
        if not isinstance(value, bool):
            raise UsageError(f"{place}: is {value!r}, expected true or false")
        return [option] if value else list(parameter.secondary_opts[:1])
    if isinstance(value, dict) != parameter.multiple:
        expected = "a mapping such as {slots: 11}" if parameter.multiple else "one value"
        raise UsageError(f"{place}: is {value!r}, expected {expected}")
    if isinstance(value, dict):
        return flags(option.removeprefix("--"), value)
    return [option, ",".join(map(str, value)) if isinstance(value, list) else str(value)]
