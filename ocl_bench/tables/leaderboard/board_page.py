"""A leaderboard as CSV (every field, one line a row) and as Markdown (to be read)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import astuple, replace
from typing import TYPE_CHECKING

from ...families import find_family
from ...results.published import PublishedRow, PublishedTable
from .facts import Facts

if TYPE_CHECKING:
    from .ranking import Board, Cell, Group, Reference, Row

_HEAD = ("rank", "not_separable_from_best", "model", "data", "revision", "supervision", "privilege", "role")
_TAIL = (
    "training_seeds",
    "noise_seeds",
    "backbone",
    "pretraining",
    "k",
    "input_size",
    "parameters",
    "trained_on",
    "training_steps",
    "training_data",
    "images_per_second",
    "device",
    "checkpoint_sha256",
    "fit",
    "options",
    "signature",
    "task_version",
    "task_hash",
    "suite",
    "command",
    "source",
    "note",
)


def to_csv(board: Board) -> str:
    """All ranked and published rows; fractions with 6 decimals; a missing cell is empty."""
    names = [f"{metric}{part}" for metric in board.task.metrics for part in ("", "_low", "_high", "_sd", "_n_valid")]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*_HEAD, *names, *_TAIL])
    for group, rows in board.groups:
        for row in rows:
            writer.writerow(_result_line(board.task, group, row))
    for published in _sorted_published(board):
        writer.writerow(_published_line(board.task, board.published, published))
    return stream.getvalue()


def _result_line(task: Reference, group: Group, row: Row) -> list[str]:
    tied = {None: "", True: "yes", False: "no"}[row.tied_with_best]
    head = [row.rank, tied, row.model, group.kind, group.revision, group.supervision, row.privilege, row.role]
    cells = [part for metric in task.metrics for part in _cell(row.cells.get(metric))]
    seeds = [" ".join(map(str, row.training_seeds)), " ".join(map(str, row.noise_seeds))]
    provenance = [row.options, row.signature, str(task.version), task.hash[:12], row.version, row.command, row.source]
    return [*head, *cells, *seeds, *astuple(replace(row.facts, fit=group.fit)), *provenance, ""]


def _cell(cell: Cell | None) -> list[str]:
    if cell is None:
        return [""] * 5
    numbers = (cell.value, cell.low, cell.high, cell.sd)
    return [*("" if x is None else fixed(x, 6) for x in numbers), "" if cell.n_valid is None else str(cell.n_valid)]


def fixed(value: float, digits: int) -> str:
    """Fixed decimals, never a negative zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


def _sorted_published(board: Board) -> list[PublishedRow]:
    if board.published is None:
        return []
    rows, main = board.published.rows, board.task.main

    def place(row: PublishedRow) -> tuple[bool, float, str]:
        value = row.metrics[main].value if main in row.metrics else float("-inf")
        return row.comparable == "no", -board.direction * value, row.model

    return sorted(rows, key=place)


def _published_line(task: Reference, table: PublishedTable | None, row: PublishedRow) -> list[str]:
    assert table is not None
    head = ["published", "", row.model, "published", "", row.supervision, row.privilege, "model"]
    cells = []
    for metric in task.metrics:
        printed = row.metrics.get(metric)
        value, spread = (None, None) if printed is None else table.shown(printed)
        cells += [*("" if x is None else f"{x:.6f}" for x in (value, None, None, spread)), ""]
    seeds = [" ".join(map(str, row.seeds)), ""]
    note = f"comparable: {row.comparable}, {row.why}; {row.evidence}; {row.paper}"
    facts = astuple(Facts())
    return [*head, *cells, *seeds, *facts, "", row.protocol, str(table.version), "", "", "", row.source, note]


def to_markdown(board: Board) -> str:
    """The board as a page: one table for each group, then what is not ranked, published rows, signatures, commands."""
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
    metrics = [f"`{metric}`" for metric in task.metrics]
    table = [["rank", "model", "role", *metrics, "n", "training seeds", "noise seeds", "signature"]]
    for row in rows:
        letter = signatures.setdefault(row.signature, _letter(len(signatures)))
        rank = f"{row.rank} ●" if row.tied_with_best else row.rank
        cells = [cell_text(row.cells.get(metric)) for metric in task.metrics]
        seeds = [" ".join(map(str, own)) for own in (row.training_seeds, row.noise_seeds)]
        table.append([rank, row.model, row.role, *cells, _counts(task, row), *seeds, letter])
    return [*group_heading(group), *markdown_table(table)]


def group_heading(group: Group) -> list[str]:
    """Lines above the table of a group: what its rows share."""
    words = {"embedded": "Embedded data", "official": "Official data", "supplied": "Supplied data"}
    heading = f"## {words[group.kind]} (revision {group.revision}), supervision: {group.supervision}"
    fitted = [f"Head: {group.fit}.", ""] if group.fit else []
    return [f"{heading}, privilege: {group.privilege}", "", *fitted]


def _models_section(board: Board) -> list[str]:
    """What was measured, result by result; where it and the card of its checkpoint say nothing, a cell is empty."""
    head = ["model", "supervision", "backbone", "pretraining", "K", "input", "parameters", "trained on", "images/s"]
    table = [[*head, "checkpoint", "suite"]]
    for group, rows in board.groups:
        for row in rows:
            if row.seeds:  # a mean: its training seeds follow
                continue
            facts = row.facts
            trained = [facts.trained_on, facts.training_steps and f"{facts.training_steps} steps", facts.training_data]
            network = [facts.backbone, facts.pretraining, facts.slots, facts.input_size, facts.parameters]
            speed = f"{facts.images_per_second} ({facts.device})" if facts.images_per_second else ""
            checkpoint = f"`{facts.checkpoint[:12]}`" if facts.checkpoint else ""
            own = [row.model, group.supervision, *network, ", ".join(filter(None, trained)), speed, checkpoint]
            table.append([*own, row.version])
    return markdown_table(table)


def cell_text(cell: Cell | None) -> str:
    """Value, deviation over training seeds, interval, with three decimals; '' for a missing cell."""
    if cell is None:
        return ""
    spread = "" if cell.sd is None else f" ± {fixed(cell.sd, 3)}"
    interval = "" if cell.low is None or cell.high is None else f" [{fixed(cell.low, 3)}, {fixed(cell.high, 3)}]"
    return f"{fixed(cell.value, 3)}{spread}{interval}"


def _counts(task: Reference, row: Row) -> str:
    """Valid images of the main metric, then of each metric that has another number."""
    counts = {metric: cell.n_valid for metric, cell in row.cells.items()}
    main = counts.get(task.main)
    others = [f"{metric} {n}" for metric, n in counts.items() if n != main]
    return ", ".join([str(main), *others])


def _letter(index: int) -> str:
    return chr(ord("a") + index) if index < 26 else f"s{index}"


def _published_section(board: Board) -> list[str]:
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
        seeds = " ".join(map(str, row.seeds)) or "not stated"
        body.append([row.model, *cells, seeds, row.protocol, comparable, f"{row.paper}. {row.source}; {row.evidence}"])
    lines += markdown_table(body)
    lines += ["", *(f"- `{name}`: {text}" for name, text in table.protocols.items())]
    return [*lines, *(f"- Left out: {text}" for text in table.left_out)]


def _published_text(row: PublishedRow, metric: str, table: PublishedTable) -> str:
    if metric not in row.metrics:
        return ""
    value, spread = table.shown(row.metrics[metric])
    return f"{value:.3f}" if spread is None else f"{value:.3f} ± {spread:.3f}"


def _commands(board: Board) -> Iterable[str]:
    for _, rows in board.groups:
        for row in rows:
            if row.command:
                yield f"- {row.model}: `{row.command}` (ocl-bench {row.version}; `{row.source}`)"


def markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table whose first row is the head."""
    plain = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    head, *body = (f"| {' | '.join(row)} |" for row in plain)
    return [head, f"|{'---|' * len(rows[0])}", *body]
