"""What a board shows to a reader, whatever draws it: order of published rows, folded seeds, first metrics, links."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...results.papers import Paper, find_paper, source_address
from ...results.published import PublishedRow
from .facts import find_card

if TYPE_CHECKING:
    from .ranking import Board, Group, Row

KIND_TEXTS = {"embedded": "Embedded data", "official": "Official data", "supplied": "Supplied data"}


_EVIDENCE = {"paper": "table", "readme": "README", "code": "file", "secondary": "second hand"}


@dataclass(frozen=True)
class Link:
    """A word and where it leads; address '' is a word without a link."""

    text: str
    address: str


def sorted_published(board: Board) -> list[PublishedRow]:
    """Published rows: comparable ones first, best first in the main metric, then by name."""
    if board.published is None:
        return []
    main = board.task.main

    def place(row: PublishedRow) -> tuple[bool, float, str]:
        value = row.metrics[main].value if main in row.metrics else float("-inf")
        return row.comparable == "no", -board.direction * value, row.model

    return sorted(board.published.rows, key=place)


def folded_published(board: Board) -> list[tuple[PublishedRow, tuple[PublishedRow, ...]]]:
    """Published rows of a board in their order, with folded training seeds."""
    return fold_seeds(sorted_published(board))


def fold_seeds(rows: Sequence[PublishedRow]) -> list[tuple[PublishedRow, tuple[PublishedRow, ...]]]:
    """Rows in their order, each with the rows of its single training seeds, which get no place."""
    seeds = [tuple(other for other in rows if _is_seed_of(other, row)) for row in rows]
    folded = {id(seed) for own in seeds for seed in own}
    return [(row, own) for row, own in zip(rows, seeds, strict=True) if id(row) not in folded]


def _is_seed_of(row: PublishedRow, mean: PublishedRow) -> bool:
    """Whether `row` is one training seed of the row `mean`: "DIAS (seed 42)" of "DIAS"."""
    if len(row.seeds) != 1 or row.protocol != mean.protocol or row.seeds[0] not in mean.seeds:
        return False
    return len(mean.seeds) > 1 and row.model == f"{mean.model} (seed {row.seeds[0]})"


def folded(rows: Iterable[Row]) -> list[Row]:
    """Rows of a group without the single training seeds; those of a mean are its `seeds`."""
    return [row for row in rows if row.rank != "seed"]


def short_name(row: Row) -> str:
    """The name of a row, with the number of training seeds that it is the mean of."""
    count = len(row.seeds)
    return row.model.replace(f"(mean of {count} training seeds)", f"({count} seeds)") if count else row.model


def metrics_first(board: Board, present: Iterable[str] | None = None) -> list[str]:
    """Metrics of the board with the main one first.

    Args:
        board: any board.
        present: metrics that have a value; others are left out. By default all stay.
    """
    have = set(board.task.metrics if present is None else present)
    return [name for name in dict.fromkeys([board.task.main, *board.task.metrics]) if name in have]


GroupRows = tuple["Group", tuple["Row", ...]]
"""A group and its rows."""


def groups_by_place(board: Board) -> tuple[list[GroupRows], list[GroupRows]]:
    """Groups on official data, and all others."""
    official = [(group, rows) for group, rows in board.groups if group.kind == "official"]
    return official, [(group, rows) for group, rows in board.groups if group.kind != "official"]


def paper_of_row(row: Row) -> Paper | None:
    """The paper of a bundled model, from its card; None for any other."""
    card = find_card(row.card)
    return find_paper(card.paper) if card is not None else None


def links_of_paper(paper: Paper | None) -> Iterator[Link]:
    """Links to a paper and to the code of its authors, as far as they are known."""
    if paper is not None and paper.url:
        yield Link("paper", paper.url)
    if paper is not None and paper.code:
        yield Link("code", paper.code)


def source_link(row: PublishedRow) -> Link:
    """Where the number of a published row was read; "file" is another file of the repository."""
    return Link(_EVIDENCE.get(row.evidence, row.evidence), source_address(row))
