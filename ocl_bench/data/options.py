"""What readers ask of cards and annotation files, with one line when the answer is no."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ..core.errors import DataMissingError, UsageError, first_problem
from .base import Request

Options = TypeVar("Options", bound=BaseModel)


def parse_options(kind: type[Options], request: Request) -> Options:
    """The options of a card. Raises UsageError naming the field and what is allowed."""
    try:
        return kind.model_validate(request.data.options)
    except ValidationError as error:
        field, problem = first_problem(error)
        known = ", ".join(kind.model_fields)
        place = ".".join(part for part in ("data.options", field) if part)
        raise UsageError(f"task '{request.task.name}': {place}: {problem}; known options: {known}") from error


def read_json(path: Path, replace: Callable[[dict[str, Any]], Any] | None = None) -> dict[str, Any]:
    """An annotation file. Raises DataMissingError when it is not there, UsageError when it is cut or no object.

    replace: is given each object of the file as soon as it is parsed; what it returns takes that object's place.
    """
    try:
        # Decoded here, so that the bytes of a large file are gone before its numbers come.
        content = json.loads(path.read_bytes().decode("utf-8-sig"), object_hook=replace)
    except OSError as error:
        raise DataMissingError(f"{path}: cannot be read ({error.strerror}); see docs/data.md for the layout") from error
    except ValueError as error:
        raise UsageError(f"{path}: is no JSON, perhaps a cut download ({error}); download it again") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: holds a {type(content).__name__}, expected an object; download it again")
    return content
