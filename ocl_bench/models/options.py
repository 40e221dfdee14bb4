"""Checks of the options that cards and callers give to model factories."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from ..cards.names import suggest
from ..cards.protocols import LARGEST_SIDE
from ..core.errors import UsageError
from ..core.files import parse_yaml

_LEADING_ZERO = re.compile(r"[-+]?0[0-9][0-9_]*")
"""A whole number that begins with zeros, such as a sample id; YAML would read it as an octal number."""


_LARGEST = {
    "iterations": 1000,
    "first_iterations": 1000,
    "merge_iterations": 1000,
    "restarts": 1000,
    "depth": 100,
    "decoder_layers": 100,
    "slots": 4096,
    "clusters": 4096,
    "prototypes": 4096,
    "rows": LARGEST_SIDE,
    "columns": LARGEST_SIDE,
    "grid": LARGEST_SIDE,
    "input_size": LARGEST_SIDE,
    "dim": 8192,
    "slot_dim": 8192,
    "hidden": 16_384,
    "width": 8192,
}
"""Largest value of an option of a bundled model, by name: far above any use, and before memory or hours are lost."""

_LARGEST_NUMBER, _MOST_ENTRIES = 65_536, 1000
"""The same for other whole numbers, such as DINO's 65,536 prototypes, and for the length of lists."""


class TypedOptions(dict[str, Any]):
    """Options of the command line by name, their values read as YAML.

    Attributes:
        texts: what was typed, for options that are texts.
    """

    def __init__(self, texts: Mapping[str, str]) -> None:
        super().__init__({key: option_value(f"--option {key}=", text) for key, text in texts.items()})
        self.texts = dict(texts)


def option_value(option: str, text: str) -> Any:
    """A text as a YAML value; a whole number with leading zeros stays the text that it is.

    Raises UsageError, whose message begins with `option`, for a text that is not YAML.
    """
    if _LEADING_ZERO.fullmatch(text):
        return text
    try:
        return parse_yaml(text)
    except ValueError as error:
        shown = text if len(text) <= 80 else f"{text[:80]}..."
        raise UsageError(f"{option}{shown}: is not a YAML value such as 3, true or [1, 2]") from error


def as_declared(factory: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options for a factory: where its parameter is a text, the text as it was typed, such as `3` or `no`."""
    values = dict(options)
    if not isinstance(options, TypedOptions) or not callable(factory):
        return values
    parameters = _parameters(factory)
    for key, text in options.texts.items():
        parameter = parameters.get(key)
        if parameter is not None and not isinstance(values[key], str) and _takes_text(parameter, values[key]):
            values[key] = text
    return values


Factory = TypeVar("Factory", bound=Callable[..., Any])


def also_takes(*names: str) -> Callable[[Factory], Factory]:
    """Say that a factory takes these of its `**options` itself, beside those that it hands to the class it returns."""

    def mark(factory: Factory) -> Factory:
        factory.also_takes = names  # type: ignore[attr-defined]
        return factory

    return mark


def known_options(factory: Callable[..., Any], of_card: Mapping[str, Any]) -> list[str]:
    """Names of the options of a factory.

    They are its parameters, and where it has `**options`, what it takes of them and the keywords of the class it
    returns. Required keywords of the class count only if they are among the options `of_card`: a factory sets others,
    such as the size of a grid, itself.
    """
    parameters = _parameters(factory)
    names = [name for name, one in parameters.items() if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        names += [*of_card, *getattr(factory, "also_takes", ())]
        for kind in getattr(get_type_hints(factory).get("return"), "__mro__", ()):
            named = _parameters(kind.__init__).items() if "__init__" in vars(kind) else ()
            names += [name for name, one in named if one.default is not one.empty]
    return list(dict.fromkeys(names))


def unknown_option(model: str, factory: Callable[..., Any], of_card: Mapping[str, Any], name: str) -> UsageError:
    """The error for an option that a factory does not take; it lists those that it takes."""
    known = [one for one in known_options(factory, of_card) if one != name]
    return UsageError(
        f"model {model}: option '{name}' is unknown; options are: {', '.join(known) or 'none'}{suggest(name, known)}"
    )


def _parameters(factory: Any) -> Mapping[str, inspect.Parameter]:
    """The parameters of a factory, with annotations as types where they can be found."""
    for evaluate in (True, False):
        try:
            return inspect.signature(factory, eval_str=evaluate).parameters
        except Exception:  # postponed annotations run the user's text
            continue
    return {}


def _takes_text(parameter: inspect.Parameter, value: Any) -> bool:
    """Whether a parameter is declared as a text, by its annotation or else by its default."""
    kind = parameter.annotation
    if kind is inspect.Parameter.empty:
        return isinstance(parameter.default, str)
    kinds = [kind] if get_origin(kind) is Literal else list(get_args(kind) or (kind,))
    if value is None and type(None) in kinds:
        return False  # `null` means None where that is allowed
    texts = [part for part in kinds if part is not type(None)]
    return all(part in (str, "str") or _is_literal_text(part) for part in texts)


def _is_literal_text(kind: Any) -> bool:
    return get_origin(kind) is Literal and all(isinstance(choice, str) for choice in get_args(kind))


def check_sizes(options: Mapping[str, Any], place: str = "") -> None:
    """Raise UsageError for a number in the options of a bundled model that would take all memory, or hours."""
    for name, value in options.items():
        entries = value if isinstance(value, list | tuple) else [value]
        if len(entries) > _MOST_ENTRIES:
            raise UsageError(f"option {place}{name}: has {len(entries)} entries; give at most {_MOST_ENTRIES}")
        largest = _LARGEST.get(name, _LARGEST_NUMBER)
        for entry in entries:
            if isinstance(entry, Mapping):
                check_sizes(entry, f"{place}{name}.")
            elif isinstance(entry, int) and entry > largest:
                raise UsageError(f"option {place}{name}: {_short(entry)} is too large; use at most {largest}")


def _short(number: int) -> str:
    """The number, or its order of magnitude where its digits would fill the line (or cannot be printed at all)."""
    return str(number) if number.bit_length() < 100 else f"a number of {number.bit_length()} bits"


def check_choice(option: str, value: object, allowed: tuple[object, ...]) -> None:
    """Raise UsageError naming the option if its value is not one of those allowed."""
    if value not in allowed:
        raise UsageError(f"option {option}: {value!r} is unknown; use {' or '.join(map(str, allowed))}")


def check_range(option: str, value: object, valid: bool, expected: str) -> None:
    """Raise UsageError naming the option if `valid` is false; `expected` says what would be valid."""
    if not valid:
        raise UsageError(f"option {option}: {value!r} is invalid; use {expected}")


def check_distance(option: str, value: object) -> None:
    """Raise UsageError naming the option if its value is neither a cosine distance nor None (for no merging)."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (number and 0 <= value <= 2):  # type: ignore[operator]
        raise UsageError(f"option {option}: {value} is not a cosine distance; use 0 to 2, or null for no merging")
