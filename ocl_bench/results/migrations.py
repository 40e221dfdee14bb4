"""From older formats of the result file to today's: one pure function, dict to dict, for each step.

Files stay as they were written; they are migrated whenever they are read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from ..core.errors import UsageError

SCHEMA: Final = 2
"""Number of the result format. A change of the format raises it and adds a step to `MIGRATIONS`."""


def add_fit(content: dict[str, Any]) -> dict[str, Any]:
    """Format 1 to 2: `fit`, what the task's head was fitted on, stands after `data`.

    Format 1 recorded it only as part of the key. That there is a head is in the signature, and a head for embedded data
    is always fitted on embedded data; the rest is null, which means not recorded.
    """
    head = re.search(r"│head:([a-z]+)(│|$)", str(_section(content, "task").get("signature")))
    embedded = _section(content, "data").get("kind") == "embedded"
    unknown = dict.fromkeys(("split", "revision", "ids_sha256", "samples", "left_out", "chosen"))
    fit = {"head": head[1], "kind": "embedded" if embedded else None, **unknown} if head else None
    migrated = {}
    for name, value in content.items():
        migrated[name] = value
        if name == "data":
            migrated["fit"] = fit
    return migrated


def _section(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A section, empty where the file is so damaged that it is none: the check of all fields names it later."""
    section = content.get(name)
    return section if isinstance(section, Mapping) else {}


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: add_fit}
"""Step from format n to n + 1, by n."""


def migrate(content: Mapping[str, Any], migrations: Mapping[int, Any] | None = None, to: int = SCHEMA) -> dict:
    """Bring the content of an older result file to the format `to`. Raises UsageError for an unknown format."""
    steps = MIGRATIONS if migrations is None else migrations
    migrated = dict(content)
    number = migrated.get("schema")
    if type(number) is not int or number > to:  # True is an int, too
        raise UsageError(f"field 'schema': {number!r} is not a format of this version (up to {to}); update ocl-bench")
    for step in range(number, to):
        if step not in steps:
            raise UsageError(f"field 'schema': no migration from format {step}")
        migrated = {**steps[step](migrated), "schema": step + 1}
    return migrated
