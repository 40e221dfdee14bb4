"""A leaderboard as CSV: every field, one line for each row."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...results.published import PublishedRow, PublishedTable
from .shown import sorted_published

if TYPE_CHECKING:
    from .ranking import Board, Group, Reference, Row


@dataclass(frozen=True)
class ResultLine:
    """What the columns of a result are read from."""

    task: Reference
    group: Group
    row: Row


@dataclass(frozen=True)
class PublishedLine:
    """What the columns of a published row are read from."""

    table: PublishedTable
    row: PublishedRow

    def printed(self, metric: str) -> tuple[float | None, float | None]:
        """Value and spread of a metric as fractions; None where the source prints none."""
        value = self.row.metrics.get(metric)
        return (None, None) if value is None else self.table.shown(value)


@dataclass(frozen=True)
class Column:
    """One column of the CSV: its head, and its text for a result and for a published row (by default empty)."""

    head: str
    of_result: Callable[[ResultLine], str]
    of_published: Callable[[PublishedLine], str] = lambda line: ""


_BEFORE_METRICS = (
    Column("rank", lambda line: line.row.rank, lambda line: "published"),
    Column("not_separable_from_best", lambda line: {None: "", True: "yes", False: "no"}[line.row.tied_with_best]),
    Column("model", lambda line: line.row.model, lambda line: line.row.model),
    Column("data", lambda line: line.group.kind, lambda line: "published"),
    Column("revision", lambda line: line.group.revision),
    Column("supervision", lambda line: line.group.supervision, lambda line: line.row.supervision),
    # The group of a ceiling has privilege "none", the row says what the model really sees.
    Column("privilege", lambda line: line.row.privilege, lambda line: line.row.privilege),
    Column("role", lambda line: line.row.role, lambda line: "model"),
)
_AFTER_METRICS = (
    Column("training_seeds", lambda line: _joined(line.row.training_seeds), lambda line: _joined(line.row.seeds)),
    Column("noise_seeds", lambda line: _joined(line.row.noise_seeds)),
    Column("backbone", lambda line: line.row.facts.backbone),
    Column("pretraining", lambda line: line.row.facts.pretraining),
    Column("k", lambda line: line.row.facts.slots),
    Column("input_size", lambda line: line.row.facts.input_size),
    Column("parameters", lambda line: line.row.facts.parameters),
    Column("trained_on", lambda line: line.row.facts.trained_on),
    Column("training_steps", lambda line: line.row.facts.training_steps),
    Column("training_data", lambda line: line.row.facts.training_data),
    Column("images_per_second", lambda line: line.row.facts.images_per_second),
    Column("device", lambda line: line.row.facts.device),
    Column("checkpoint_sha256", lambda line: line.row.facts.checkpoint),
    # That of the group: an older result takes it from the rows beside it (`build._with_known_fits`).
    Column("fit", lambda line: line.group.fit),
    Column("options", lambda line: line.row.options),
    Column("signature", lambda line: line.row.signature, lambda line: line.row.protocol),
    Column("task_version", lambda line: str(line.task.version), lambda line: str(line.table.version)),
    Column("task_hash", lambda line: line.task.hash[:12]),
    Column("suite", lambda line: line.row.version),
    Column("command", lambda line: line.row.command),
    Column("source", lambda line: line.row.source, lambda line: line.row.source),
    Column("note", lambda line: line.row.remark, lambda line: _published_note(line.row)),
)


def columns_of(metrics: Iterable[str]) -> list[Column]:
    """Columns of the CSV of a task, in order; a new column is one more entry of the tuples above."""
    return [*_BEFORE_METRICS, *(column for metric in metrics for column in _metric_columns(metric)), *_AFTER_METRICS]


def _metric_columns(metric: str) -> list[Column]:
    """Value, interval, deviation over training seeds and number of valid images of one metric."""

    def number(part: str) -> Callable[[ResultLine], str]:
        return lambda line: optional(getattr(line.row.cells.get(metric), part, None))

    def count(line: ResultLine) -> str:
        cell = line.row.cells.get(metric)
        return "" if cell is None or cell.n_valid is None else str(cell.n_valid)

    return [
        Column(metric, number("value"), lambda line: optional(line.printed(metric)[0])),
        Column(f"{metric}_low", number("low")),
        Column(f"{metric}_high", number("high")),
        Column(f"{metric}_sd", number("sd"), lambda line: optional(line.printed(metric)[1])),
        Column(f"{metric}_n_valid", count),
    ]


def to_csv(board: Board) -> str:
    """All ranked and published rows; fractions with 6 decimals; a missing cell is empty."""
    columns = columns_of(board.task.metrics)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([column.head for column in columns])
    for group, rows in board.groups:
        for row in rows:
            line = ResultLine(board.task, group, row)
            writer.writerow([column.of_result(line) for column in columns])
    if board.published is not None:
        for published in sorted_published(board):
            printed = PublishedLine(board.published, published)
            writer.writerow([column.of_published(printed) for column in columns])
    return stream.getvalue()


def _joined(seeds: Iterable[int]) -> str:
    return " ".join(map(str, seeds))


def _published_note(row: PublishedRow) -> str:
    return f"comparable: {row.comparable}, {row.why}; {row.evidence}; {row.paper}"


def optional(value: float | None) -> str:
    """A number with 6 decimals, '' for None."""
    return "" if value is None else fixed(value, 6)


def fixed(value: float, digits: int) -> str:
    """A number with fixed decimals, never a negative zero."""
    # round() can give -0.0, which would print as "-0.000"; adding 0.0 makes it positive.
    return f"{round(value, digits) + 0.0:.{digits}f}"
