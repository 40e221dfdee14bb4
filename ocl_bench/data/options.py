"""Checks that readers share: options and splits of cards, lists of names, and annotation files in JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ..core.errors import DataMissingError, UsageError, first_problem
from ..core.files import parse_json, read_text
from .base import Request

Options = TypeVar("Options", bound=BaseModel)

EntryFields = Mapping[str, Mapping[str, Any]]
"""Field of an annotation file -> name and type (or types) of the fields that each of its entries needs."""


def parse_options(kind: type[Options], request: Request) -> Options:
    """The options of a card. Raises UsageError naming the field and what is allowed."""
    try:
        return kind.model_validate(request.data.options)
    except ValidationError as error:
        field, problem = first_problem(error)
        known = ", ".join(kind.model_fields)
        place = ".".join(part for part in ("data.options", field) if part)
        raise UsageError(f"task '{request.task.name}': {place}: {problem}; known options: {known}") from error


def check_split(request: Request, data_set: str, splits: Sequence[str]) -> None:
    """Raise UsageError unless the data set has the split that the request names."""
    if request.split not in splits:
        known = (" and " if len(splits) == 2 else ", ").join(splits)
        raise UsageError(f"task '{request.task.name}': {data_set} has the splits {known}, not '{request.split}'")


def read_lines(path: Path, content: str, remedy: str) -> list[str]:
    """The lines of a text file without spaces around them; empty ones are left out.

    Raises DataMissingError when the file cannot be read; `content` ("list of images") and `remedy` go into its message.
    """
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise DataMissingError(f"{path}: {content} cannot be read ({reason}); {remedy}") from error
    if "\0" in text:
        raise DataMissingError(f"{path}: {content} is not text (it has a NUL byte); {remedy}")
    return [line.strip() for line in text.splitlines() if line.strip()]


def first_repeated(values: Iterable[Any]) -> Any:
    """The first value that occurs a second time; None when all differ."""
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None


def read_json(path: Path, replace: Callable[[dict[str, Any]], Any] | None = None) -> dict[str, Any]:
    """The content of an annotation file, which must be a JSON object.

    Args:
        path: the file; `core.files.read_text` says in which encodings.
        replace: is called with each object of the file as soon as that is parsed; its result takes the object's place.

    Raises:
        DataMissingError: the file cannot be read. UsageError: it is cut, or its content is not an object.
    """
    try:
        # json.loads(bytes) would keep the bytes of a large file in memory while it makes the numbers.
        content = parse_json(read_text(path), object_hook=replace)
    except OSError as error:
        raise DataMissingError(f"{path}: cannot be read ({error.strerror}); see docs/data.md for the layout") from error
    except ValueError as error:
        raise UsageError(f"{path}: is not JSON, perhaps a cut download ({error}); download it again") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: holds a {type(content).__name__}, expected an object; download it again")
    return content


def check_entries(content: dict[str, Any], path: Path, fields: EntryFields) -> None:
    """Raise UsageError unless each field of an annotation file is a list of entries with the fields they need."""
    for field, required in fields.items():
        if not isinstance(content.get(field), list):
            raise UsageError(f"{path}: field '{field}' is missing or not a list; download the file again")
        for position, entry in enumerate(content[field]):
            for name, kind in required.items():
                if not isinstance(entry, dict) or not isinstance(entry.get(name), kind):
                    text = f"{field}[{position}].{name} is missing or of a wrong type"
                    raise UsageError(f"{path}: {text}; download the file again")
