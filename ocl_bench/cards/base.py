"""The base of all cards: frozen fields, unknown fields are errors, read from YAML."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ..core.errors import UsageError, first_problem
from ..core.files import parse_yaml, read_text

_EXAMPLE = "`ocl-bench show NAME` prints the fields of a bundled card"


class Card(BaseModel):
    """A frozen mapping of fields; an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


CardType = TypeVar("CardType", bound=BaseModel)


def load_card(path: Path, kind: type[CardType]) -> CardType:
    """Read a card of the given kind from YAML. Raises UsageError naming the file and the field."""
    try:
        content = parse_yaml(read_text(Path(path)))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UsageError(f"{path}: not a YAML file ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: a card is a YAML mapping; {_EXAMPLE}")
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        field, message = first_problem(error, "card")
        unknown = error.errors()[0]["type"] == "extra_forbidden"
        remedy = "remove it" if unknown else _EXAMPLE
        # The message of a field of another family ends with its own remedy.
        remedy = "" if message.endswith("remove it") else f"; {remedy}"
        raise UsageError(f"{path}: field '{field}': {message}{remedy}") from error
