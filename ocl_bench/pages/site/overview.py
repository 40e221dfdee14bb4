"""The index of all tasks, and the matrix of models and tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...cards.families import PROTOCOLS
from ...tables.leaderboard.index_page import FAMILY_TITLES, best_measured, best_reported, row_counts
from ...tables.leaderboard.ranking import Board
from .rows import Line, tabs_of
from .task_page import task_address
from .thumbnails import thumbnail

_ROLES = {
    "Models": ("model",),
    "Controls and encoders": ("control", "encoder"),
    "Floors": ("floor",),
    "Ceilings": ("ceiling",),
}
"""Blocks of the matrix with the roles in each."""


def family_of(board: Board) -> str:
    """Family of the card of a board, '' where no card is installed."""
    return board.task.card.family if board.task.card is not None else ""


def by_family(boards: Sequence[Board]) -> list[Board]:
    """Boards in the order of their families, in which the index and all lists show them."""
    order = [*PROTOCOLS, ""]
    return sorted(boards, key=lambda board: order.index(family_of(board)))


def index_content(boards: Sequence[Board], *, pictures: bool = True) -> dict[str, Any]:
    """What the template of the index needs."""
    counts = [row_counts(board) for board in boards]
    official, published, embedded = (sum(column) for column in zip(*counts, strict=True)) if counts else (0, 0, 0)
    families = []
    for family in [*PROTOCOLS, ""]:
        own = [_task(board, pictures) for board in boards if family_of(board) == family]
        if own:
            families.append({"title": FAMILY_TITLES.get(family, family.capitalize()), "tasks": own})
    totals = [(len(boards), "tasks"), (official, "rows on official data"), (published, "published rows on boards")]
    return {"title": "Tasks", "totals": [*totals, (embedded, "rows on embedded data")], "families": families}


def _task(board: Board, pictures: bool) -> dict[str, Any]:
    return {
        "name": board.task.name,
        "version": board.task.version,
        "title": board.task.title,
        "main": board.task.main,
        "address": task_address(board.task),
        "reported": best_reported(board),
        "measured": best_measured(board, "embedded"),
        "counts": row_counts(board),
        "picture": thumbnail(board.task.card) if pictures and board.task.card is not None else "",
    }


def matrix_content(boards: Sequence[Board]) -> dict[str, Any]:
    """What the template of the matrix needs: bundled models with a result on embedded data, by role."""
    found: dict[str, dict[str, Line]] = {}
    for board in boards:
        for line in tabs_of(board)[1].lines:
            if line.card and line.kind == "embedded" and board.task.main in line.values:
                found.setdefault(line.card, {}).setdefault(board.task.name, line)
    boards = by_family(boards)
    groups = []
    for title, roles in _ROLES.items():
        own = [(name, lines) for name, lines in sorted(found.items()) if _role(lines) in roles]
        if own:
            groups.append({"title": title, "models": [_model(name, lines, boards) for name, lines in own]})
    tasks = [
        {"name": board.task.name, "main": board.task.main, "address": task_address(board.task)} for board in boards
    ]
    return {"title": "Models and tasks", "tasks": tasks, "groups": groups}


def _role(lines: dict[str, Line]) -> str:
    return next(iter(lines.values())).role


def _model(name: str, lines: dict[str, Line], boards: Sequence[Board]) -> dict[str, Any]:
    cells = []
    for board in boards:
        line = lines.get(board.task.name)
        value = line.values[board.task.main] if line is not None else None
        shown = {"text": value.text, "digits": value.digits, "best": line.tied} if value and line else None
        cells.append(shown)
    seen = {line.supervision for line in lines.values()} - {"none"}
    return {
        "name": name,
        "address": f"models/{name}.html",
        "role": _role(lines),
        "supervision": ", ".join(sorted(seen)),
        "cells": cells,
    }
