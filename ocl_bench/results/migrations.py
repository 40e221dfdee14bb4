"""Migrations from older formats of the result file to the current one: one pure function from dict to dict per step.

Files on disk are never rewritten; they are migrated each time they are read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from ..core.errors import UsageError

SCHEMA: Final = 2
"""Number of the result format. A change of the format raises it and adds a step to `MIGRATIONS`."""


def add_fit(content: dict[str, Any]) -> dict[str, Any]:
    """Format 1 to 2: add the section `fit` (the data on which the task's head was fitted) after `data`.

    Format 1 recorded this only inside the key, which is a hash. The signature tells whether there is a head, and a
    head for embedded data is always fitted on embedded data. Everything else becomes null, which means "not recorded".
    """
    head = re.search(r"│head:([a-z]+)(│|$)", str(_section(content, "task").get("signature")))
    embedded = _section(content, "data").get("kind") == "embedded"
    unknown = dict.fromkeys(("split", "revision", "ids_sha256", "samples", "left_out", "chosen"))
    fit = {"head": head[1], "kind": "embedded" if embedded else None, **unknown} if head else None
    migrated = {}  # rebuilt in order, since the order of the fields is part of the written format
    for name, value in content.items():
        migrated[name] = value
        if name == "data":
            migrated["fit"] = fit
    return migrated


def _section(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A section of the file, or an empty one if it is not an object: the later check of all fields reports it."""
    section = content.get(name)
    return section if isinstance(section, Mapping) else {}


def without_declaration(content: dict[str, Any]) -> dict[str, Any]:
    """Results of users' own models from before `undeclared` existed say `none` also where nobody had declared it.

    They are those of format 2 without `model.input_size`, which was recorded from then on. Null there means that
    nobody knows what the model saw; such a result must not rank as one without supervision.
    """
    model = _section(content, "model")
    if model.get("card") != "" or model.get("supervision") != "none" or "input_size" in model:
        return content
    return {**content, "model": {**model, "supervision": "undeclared"}}


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: add_fit}
"""The step from format n to format n + 1, by n."""


def migrate(content: Mapping[str, Any], migrations: Mapping[int, Any] | None = None, to: int = SCHEMA) -> dict:
    """Bring the content of a result file to the format `to`.

    Args:
        content: the parsed JSON object of any known format.
        migrations: steps by the format that they start from; by default `MIGRATIONS`.
        to: number of the format to return.

    Returns:
        A new dictionary; `content` is not changed.

    Raises:
        UsageError: the field `schema` is missing, newer than `to`, or there is no step from it.
    """
    steps = MIGRATIONS if migrations is None else migrations
    migrated = dict(content)
    number = migrated.get("schema")
    if type(number) is not int or number > to:  # isinstance would accept True
        raise UsageError(f"field 'schema': {number!r} is not a format of this version (up to {to}); update ocl-bench")
    for step in range(number, to):
        if step not in steps:
            raise UsageError(f"field 'schema': no migration from format {step}; evaluate again")
        migrated = {**steps[step](migrated), "schema": step + 1}
    return without_declaration(migrated) if migrations is None else migrated
