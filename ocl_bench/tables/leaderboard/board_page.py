"""A leaderboard as CSV (every field, one line for each row) and as Markdown (to be read)."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...families import find_family
from ...results.published import PublishedRow, PublishedTable

if TYPE_CHECKING:
    from .ranking import Board, BoardCell, Group, Reference, Row


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
        for published in _sorted_published(board):
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


def _sorted_published(board: Board) -> list[PublishedRow]:
    """Published rows: comparable ones first, best first in the main metric, then by name."""
    if board.published is None:
        return []
    rows, main = board.published.rows, board.task.main

    def place(row: PublishedRow) -> tuple[bool, float, str]:
        value = row.metrics[main].value if main in row.metrics else float("-inf")
        return row.comparable == "no", -board.direction * value, row.model

    return sorted(rows, key=place)


def to_markdown(board: Board) -> str:
    """The board as a page: a table for each group, then results that are not ranked, published rows, models, commands.

    The page says nothing of when it was built, because the committed pages are compared byte by byte.
    """
    task = board.task
    units = find_family(task.card.family).unit if task.card is not None else "images"
    lines = [
        f"# {task.name} v{task.version}",
        "",
        *([task.title + ".", ""] if task.title else []),
        f"Sorted by `{task.main}`. Brackets hold the 95 % bootstrap interval over {units}; ± is the sample deviation "
        f"over training seeds. ● marks the best row of a group and every row that the paired bootstrap over {units} "
        "cannot separate from it. Floors and ceilings (which see the truth) are shown but not ranked; a single "
        "training seed stands below the mean of its method. Rows rank only within one table.",
        "",
        f"Task hash `{task.hash[:12]}`. Built by `ocl-bench leaderboard`; do not edit.",
        "",
    ]
    signatures: dict[str, str] = {}
    for group, rows in board.groups:
        lines += [*_group_section(task, group, rows, signatures), ""]
    if not board.groups:
        lines += ["No ranked results yet.", ""]
    if board.excluded:
        lines += ["---", "", "Not ranked:", ""]
        lines += [f"- {e.model}: {e.reason} (`{e.source}`)" for e in board.excluded] + [""]
    lines += [*_published_section(board), ""]
    if signatures:
        lines += ["## Models", "", *_models_section(board), ""]
        lines += ["## Signatures", ""] + [f"- {letter}: `{text}`" for text, letter in signatures.items()] + [""]
        lines += ["## Commands", "", *_commands(board), ""]
    return "\n".join(lines).rstrip() + "\n"


def _group_section(task: Reference, group: Group, rows: Sequence[Row], signatures: dict[str, str]) -> list[str]:
    """The table of a group. signatures: letter of each signature so far; new ones are added to it."""
    metrics = [f"`{metric}`" for metric in task.metrics]
    table = [["rank", "model", "role", *metrics, "n", "training seeds", "noise seeds", "signature"]]
    for row in rows:
        letter = signatures.setdefault(row.signature, _letter(len(signatures)))
        rank = f"{row.rank} ●" if row.tied_with_best else row.rank
        cells = [cell_text(row.cells.get(metric)) for metric in task.metrics]
        seeds = [_joined(row.training_seeds), _joined(row.noise_seeds)]
        table.append([rank, row.model, row.role, *cells, _counts(task, row), *seeds, letter])
    remarks = [f"- {row.model}: {row.remark}" for row in rows if row.remark]
    return [*group_heading(group), *markdown_table(table), *(["", *remarks] if remarks else [])]


def group_heading(group: Group) -> list[str]:
    """Lines above the table of a group: what its rows share."""
    words = {"embedded": "Embedded data", "official": "Official data", "supplied": "Supplied data"}
    heading = f"## {words[group.kind]} (revision {group.revision}), supervision: {group.supervision}"
    fitted = [f"Head: {group.fit}.", ""] if group.fit else []
    return [f"{heading}, privilege: {group.privilege}", "", *fitted]


def _models_section(board: Board) -> list[str]:
    """A table of the measured models, one row for each result; a fact that is not known is an empty cell."""
    head = ["model", "supervision", "backbone", "pretraining", "K", "input", "parameters", "trained on", "images/s"]
    table = [[*head, "checkpoint", "suite"]]
    for group, rows in board.groups:
        for row in rows:
            if row.seeds:  # a mean over training seeds: the rows of the seeds follow and have facts of their own
                continue
            facts = row.facts
            trained = [facts.trained_on, facts.training_steps and f"{facts.training_steps} steps", facts.training_data]
            network = [facts.backbone, facts.pretraining, facts.slots, facts.input_size, facts.parameters]
            speed = f"{facts.images_per_second} ({facts.device})" if facts.images_per_second else ""
            checkpoint = f"`{facts.checkpoint[:12]}`" if facts.checkpoint else ""
            model = [row.model, group.supervision]
            table.append([*model, *network, ", ".join(filter(None, trained)), speed, checkpoint, row.version])
    return markdown_table(table)


def cell_text(cell: BoardCell | None) -> str:
    """Value, deviation over training seeds and interval, with three decimals; '' for a missing cell."""
    if cell is None:
        return ""
    spread = "" if cell.sd is None else f" ± {fixed(cell.sd, 3)}"
    interval = "" if cell.low is None or cell.high is None else f" [{fixed(cell.low, 3)}, {fixed(cell.high, 3)}]"
    return f"{fixed(cell.value, 3)}{spread}{interval}"


def _counts(task: Reference, row: Row) -> str:
    """Number of valid images of the main metric, then of each metric whose number differs."""
    counts = {metric: cell.n_valid for metric, cell in row.cells.items()}
    main = counts.get(task.main)
    others = [f"{metric} {n}" for metric, n in counts.items() if n != main]
    return ", ".join([str(main), *others])


def _letter(index: int) -> str:
    """a to z, then s26, s27, ..."""
    return chr(ord("a") + index) if index < 26 else f"s{index}"


def _published_section(board: Board) -> list[str]:
    """The published rows with the metrics that any of them prints, and what their protocols are."""
    lines = ["## Published numbers", ""]
    table = board.published
    if table is None or not table.rows:
        name = board.task.name
        sentence = "None: no paper's number has been sourced for this protocol yet"
        return [*lines, f"{sentence} (they would stand in `leaderboards/published/{name}.yaml`)."]
    lines += ["Never ranked: no per-image values, so nothing can be tested. Compare with official data only.", ""]
    present = [metric for metric in board.task.metrics if any(metric in row.metrics for row in table.rows)]
    body = [["model", *(f"`{metric}`" for metric in present), "training seeds", "protocol", "comparable", "source"]]
    for row in _sorted_published(board):
        cells = [_published_text(row, metric, table) for metric in present]
        comparable = f"{row.comparable}: {row.why}"
        seeds = _joined(row.seeds) or "not stated"
        body.append([row.model, *cells, seeds, row.protocol, comparable, f"{row.paper}. {row.source}; {row.evidence}"])
    lines += markdown_table(body)
    lines += ["", *(f"- `{name}`: {text}" for name, text in table.protocols.items())]
    return [*lines, *(f"- Left out: {text}" for text in table.left_out)]


def _published_text(row: PublishedRow, metric: str, table: PublishedTable) -> str:
    """Value ± spread as fractions, whatever the source prints; '' for a metric that it does not have."""
    if metric not in row.metrics:
        return ""
    value, spread = table.shown(row.metrics[metric])
    return f"{value:.3f}" if spread is None else f"{value:.3f} ± {spread:.3f}"


def _commands(board: Board) -> Iterable[str]:
    """A list item with the command for each row; a mean over training seeds has no command."""
    for _, rows in board.groups:
        for row in rows:
            if row.command:
                yield f"- {row.model}: `{row.command}` (ocl-bench {row.version}; `{row.source}`)"


def markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table.

    Args:
        rows: the head first; every row has as many cells as the head. Pipes and line breaks are escaped.
    """
    plain = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    head, *body = (f"| {' | '.join(row)} |" for row in plain)
    return [head, f"|{'---|' * len(rows[0])}", *body]
