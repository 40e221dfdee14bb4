"""A leaderboard as cells for a terminal, a pipe or a paper; everything else is on the page and in the CSV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from ...core.text_tables import latex_table
from .board_csv import fixed
from .shown import folded, metrics_first, short_name

if TYPE_CHECKING:
    from .ranking import Board, BoardCell, Group, Row

_BADGES = "https://img.shields.io/badge"

METRICS = 2
"""Metrics of a table, the main one first: more do not fit 80 columns with their intervals."""


def group_tables(board: Board) -> list[tuple[str, list[list[str]]]]:
    """For each group of a board its title and its rows, the head first; single training seeds are folded."""
    metrics = metrics_first(board)[:METRICS]
    head = ["rank", "model", *metrics]
    return [(_title(group), [head, *(_cells(row, metrics) for row in folded(rows))]) for group, rows in board.groups]


def latex_tables(board: Board) -> str:
    """A booktabs table with all metrics for each group of a board, below comments with its title and its protocols."""
    metrics = metrics_first(board)
    lines = [f"% {board.task.name} v{board.task.version}, ranked by {board.task.main}"]
    for group, rows in board.groups:
        signatures = sorted({row.signature.replace("│", "|") for row in rows})
        lines += [f"% {_title(group)}", *(f"% signature: {signature}" for signature in signatures)]
        cells = [_cells(row, metrics) for row in folded(rows)]
        lines += [latex_table([["model", "rank", *metrics], *([name, rank, *others] for rank, name, *others in cells)])]
    return "\n".join(lines)


def badges(board: Board) -> str:
    """Markdown of a badge for each ranked model, for its README: rank, data, supervision and main metric."""
    lines = []
    for group, rows in board.groups:
        ranked = [row for row in folded(rows) if row.rank.isdigit()]
        for row in ranked:
            metric = f"{board.task.main} {_number(row.cells.get(board.task.main)).partition(' ')[0]}"
            rank = f"rank {row.rank} of {len(ranked)}, {metric} ({group.kind} data, supervision: {group.supervision})"
            name = f"ocl-bench {board.task.name} v{board.task.version}"
            lines.append(f"![{short_name(row)}, {name}: {rank}]({_BADGES}/{_part(name)}-{_part(rank)}-blue)")
    return "\n".join(lines)


def _part(text: str) -> str:
    """A text in the address of a badge, where a single dash separates and an underscore is a space."""
    return quote(text.replace("-", "--").replace("_", "__").replace(" ", "_"), safe="")


def best_rows(boards: Sequence[Board]) -> list[list[str]]:
    """The best row of the first group of each board, the head first; a board without ranked results has dashes."""
    rows = [["task", "data", "supervision", "best", "metric", "value"]]
    for board in boards:
        first = [(group, row) for group, ranked in board.groups for row in folded(ranked) if row.rank == "1"][:1]
        about = [[group.kind, group.supervision, short_name(row)] for group, row in first] or [["-", "-", "-"]]
        value = _number(first[0][1].cells.get(board.task.main)) if first else "-"
        rows.append([board.task.name, *about[0], board.task.main, value])
    return rows


def notes(board: Board) -> list[str]:
    """What has to be known to read the tables, a line each."""
    rows = board.published.rows if board.published is not None else ()
    comparable = sum(row.comparable == "yes" for row in rows)
    legend = (
        ["● best, or not separable from the best; [ ] 95 % interval"] if board.groups else ["no ranked results yet"]
    )
    return [*legend, f"not ranked: {len(board.excluded)}; published rows: {len(rows)}, {comparable} of them comparable"]


def _title(group: Group) -> str:
    fit = f", head: {group.fit}" if group.fit else ""
    return f"{group.kind} data, supervision: {group.supervision}, privilege: {group.privilege}{fit}"


def _cells(row: Row, metrics: Sequence[str]) -> list[str]:
    rank = f"{row.rank} ●" if row.tied_with_best else row.rank
    return [rank, short_name(row), *(_number(row.cells.get(metric)) for metric in metrics)]


def _number(cell: BoardCell | None) -> str:
    """Value and interval; the deviation over training seeds is on the page."""
    if cell is None:
        return "-"
    interval = "" if cell.low is None or cell.high is None else f" [{fixed(cell.low, 3)}, {fixed(cell.high, 3)}]"
    return f"{fixed(cell.value, 3)}{interval}"
