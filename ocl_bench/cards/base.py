"""The base of all cards: frozen fields, unknown fields are errors, read from YAML."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from ..core.errors import UsageError, first_problem

_EXAMPLE = "`ocl-bench show NAME` prints the fields of a bundled card"


class Card(BaseModel):
    """A frozen mapping of fields; an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Loader(yaml.SafeLoader):
    """The safe loader, which also refuses a key that is written twice: of the two values one would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value]
        for place, (key, _) in enumerate(node.value):
            if key.value in keys[:place]:
                where = f"line {key.start_mark.line + 1}"
                raise yaml.YAMLError(f"{where}: '{key.value}' is written twice; keep one")
        return super().construct_mapping(node, deep)


CardType = TypeVar("CardType", bound=BaseModel)


def load_card(path: Path, kind: type[CardType]) -> CardType:
    """Read a card of the given kind from YAML. Raises UsageError naming the file and the field."""
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
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
