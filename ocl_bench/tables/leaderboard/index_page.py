"""The page that leads to every board, `leaderboards/README.md`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...cards.families import PROTOCOLS
from .board_csv import fixed
from .board_page import markdown_table
from .shown import folded, folded_published, short_name

if TYPE_CHECKING:
    from .ranking import Board

FAMILY_TITLES = {"knn": "k-NN", "": "Other tasks"}
"""Headings of families; those of others are their names."""
_HEAD = """\
# Leaderboards

One board for each task, built from result files and published rows only; its CSV has every column. *Published* is the
best number of a paper, a README or a list that is comparable with the task on official data. *Embedded* is measured
here on rendered scenes in the official layout: it ranks models of this suite against each other, not against papers.
A number is that of the main metric; no mean over tasks exists. Built by `ocl-bench leaderboard`; do not edit."""


def index_page(boards: Sequence[Board], *, committed: bool = False) -> str:
    """The page as Markdown: a table of tasks for each family.

    Args:
        boards: boards of all tasks, in the order of the page.
        committed: whether the page will lie among the committed boards: then it links documents.
    """
    lines = [_HEAD, ""]
    if committed:
        links = "[how rows rank, and every column](../docs/boards.md) · [what the papers claim](claims.md)"
        lines += [f"[All published numbers](published.md) · {links} · [submit a result](../docs/submit.md)", ""]
    else:
        lines += ["[All published numbers](published.md)", ""]
    families = [*PROTOCOLS, ""]
    for family in families:
        own = [board for board in boards if _family(board) == family]
        if own:
            lines += [f"## {FAMILY_TITLES.get(family, family.capitalize())}", "", *_table(own), ""]
    return "\n".join(lines).rstrip() + "\n"


def _family(board: Board) -> str:
    return board.task.card.family if board.task.card is not None else ""


def _table(boards: Sequence[Board]) -> list[str]:
    body = [["task", "main metric", "official and published", "embedded", "rows"]]
    for board in boards:
        task = f"[{board.task.name}]({board.task.name}.md) v{board.task.version}: {board.task.title}"
        official, published, embedded = row_counts(board)
        numbers = {"official": official, "published": published, "embedded": embedded}
        counts = ", ".join(f"{number} {kind}" for kind, number in numbers.items() if number)
        body.append(
            [
                task,
                f"`{board.task.main}`",
                _best_text(best_reported(board)),
                _best_text(best_measured(board, "embedded")),
                counts,
            ]
        )
    return markdown_table(body)


def row_counts(board: Board) -> tuple[int, int, int]:
    """Rows on official data, published rows, rows on embedded data; training seeds count once."""
    kinds = [group.kind for group, rows in board.groups for _ in folded(rows)]
    return kinds.count("official"), len(folded_published(board)), kinds.count("embedded")


@dataclass(frozen=True)
class Best:
    """The best row of a kind in the main metric; remark: what it saw, where that is not nothing, or its data."""

    name: str
    value: str
    remark: str = ""


def best_measured(board: Board, kind: str) -> Best | None:
    """The best ranked row of the least supervised group on such data."""
    for group, rows in board.groups:
        best = next((row for row in rows if row.rank == "1"), None)
        if group.kind == kind and best is not None:
            remark = "" if group.supervision == "none" else f"supervision: {group.supervision}"
            return Best(short_name(best), fixed(best.cells[board.task.main].value, 3), remark)
    return None


def best_reported(board: Board) -> Best | None:
    """The best row on official data, else the best comparable published row."""
    if measured := best_measured(board, "official"):
        return measured
    main, table = board.task.main, board.published
    rows = [row for row, _ in folded_published(board) if row.comparable == "yes" and main in row.metrics]
    if not rows or table is None:
        return None
    return Best(rows[0].model, f"{table.shown(rows[0].metrics[main])[0]:.3f}", "published")


def _best_text(best: Best | None) -> str:
    if best is None:
        return ""
    return f"{best.value} {best.name}" + (f" ({best.remark})" if best.remark not in ("", "published") else "")
