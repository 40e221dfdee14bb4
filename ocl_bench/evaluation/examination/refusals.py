"""Why a result is not ranked: the rules of ranking, and whatever `validate` refuses.

A JSON file can be edited by hand in every field. Computing all intervals again takes minutes for a whole board, so a
file that passed is remembered in the cache by its content, its cards and the sources of this package.
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

from ...cards.names import CARDS, get_task, is_task
from ...cards.task import TaskSpec
from ...core.errors import UsageError
from ...core.files import digest, file_sha256
from ...core.paths import cache_root
from ...core.remembered import sources_hash
from ...results.ranks_with import Reason, Reference, reasons_against_ranking
from ...results.record import Result
from ...results.store import rows_of, where, wrong_columns
from ..extensions import extensions_of

_OF_CARD = re.compile(r"task\..*|fit(\..*)?|data\.revision|metrics\.[^.]+")
"""Fields that only the card with which a result was made can judge."""


def why_not_ranked(result: Result, reference: Reference | None = None) -> list[Reason]:
    """Reasons why a result that was read is not ranked, the most important first; empty for a ranked one.

    Args:
        result: a result with a file.
        reference: the protocol that is ranked, by default that of the result's task.
    """
    reasons = reasons_against_ranking(result, reference)
    # Results of another version of the card are compared with each other, so they are examined, too.
    if any(reason.field != "task.hash" for reason in reasons):
        return reasons
    refused = refusal(result, reference.card if reference is not None else None)
    return reasons if refused is None else [*reasons, refused]


def refusal(result: Result, card: TaskSpec | None = None) -> Reason | None:
    """The first problem that `validate` has with the file of a result; None for a valid one.

    Without the card of the result (another package's, or another version), what needs it is not checked.
    """
    if result.path is None:
        return None
    if card is None and is_task(result.task.name):
        card = get_task(result.task.name)
    try:
        passed = mark_of(result.path, card)
        if passed.is_file():
            return None
        problem = _problem(result, card)
    except (UsageError, OSError, LookupError, TypeError, ValueError) as error:  # files of a stranger's making
        return Reason("rows.file", unusable_rows(result, error))
    if problem is None:
        _remember(passed)
    return problem


def unusable_rows(result: Result, error: Exception) -> str:
    """The message about rows that cannot be read or averaged, without the name of the result."""
    return f"rows cannot be used: {' '.join(str(error).removeprefix(f'{where(result)}: ').split())}"


def _problem(result: Result, card: TaskSpec | None) -> Reason | None:
    """The first problem of a file that is not remembered. An edited value comes first: it says most."""
    from ...families.summary import edited_value  # slow to import, and most files are remembered
    from .examine_file import examine_file

    assert result.path is not None
    same = card is not None and card.hash == result.task.hash
    found = examine_file(result.path.resolve(), card)
    rows = rows_of(result) if found.rows is None else found.rows
    if wrong := wrong_columns(result, rows):
        return Reason("rows.file", f"rows cannot be used: {wrong}; evaluate again")
    problems = [
        Reason(field, f"{field}: {message}")
        for field, message in found.problems
        if same or not _OF_CARD.fullmatch(field)
    ]
    # Without the card its metrics were not computed again.
    edited = edited_value(result, rows, card if same else None) if problems or not same else None
    return edited or next(iter(problems), None)


def mark_of(path: Path, card: TaskSpec | None) -> Path:
    """The empty file that says that a result passed, made from its content, where its rows stand with their hash."""
    parts = [os.fsencode(path.name).hex(), file_sha256(path), _sources()]  # a name need not be UTF-8
    if card is not None:
        parts += [card.hash, digest(extensions_of(card))]
    return cache_root() / "examined" / digest(parts)


def _remember(mark: Path) -> None:
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError:  # a full or read-only cache: the file is examined again next time
        return


@cache
def _sources() -> str:
    """Hash of what decides: the sources of all checks and the cards of the models. A file passes each version anew."""
    rooms = ("core", "metrics", "cards", "results", "families", "evaluation/examination")
    names = ("models/declared.py", "models/backbone_names.py")
    return sources_hash(*rooms, *names, data=tuple(CARDS.glob("*.yaml")))
