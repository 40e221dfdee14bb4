"""A board split into strata, as CSV (one line for each row and stratum) and as Markdown."""

from __future__ import annotations

import csv
import io

from ...cards.families import unit_of
from .board_csv import optional
from .board_page import cell_text, group_heading, markdown_table
from .strata import StratifiedBoard

_HEAD = ("model", "role", "rank", "data", "revision", "supervision", "privilege", "fit", "metric")
_TAIL = ("by", "stratum", "images", "value", "low", "high", "sd", "n_valid")


def to_csv(strata: StratifiedBoard) -> str:
    """One line for each row and stratum, with the number of images of the stratum; a missing number is empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*_HEAD, *_TAIL])
    for group, counts, rows in strata.groups:
        for stratified in rows:
            row = stratified.row
            where = [group.kind, group.revision, group.supervision, row.privilege, group.fit]
            head = [row.model, row.role, row.rank, *where, strata.board.task.main]
            for stratum, count, cell in zip(strata.split.strata, counts, stratified.cells, strict=True):
                numbers = (None,) * 4 if cell is None else (cell.value, cell.low, cell.high, cell.sd)
                valid = "" if cell is None else str(cell.n_valid)
                writer.writerow([*head, strata.split.name, stratum.label, count, *map(optional, numbers), valid])
    return stream.getvalue()


def to_markdown(strata: StratifiedBoard) -> str:
    """A table for each group with one column for each stratum, then the results that are left out."""
    task, split = strata.board.task, strata.split
    units = unit_of(task.card.family) if task.card is not None else "images"
    lines = [
        f"# {task.name} v{task.version} by {split.name}",
        "",
        f"`{task.main}` on the {units} of each stratum, split by {split.text} (`{split.column}` of the rows). Brackets "
        f"hold the 95 % bootstrap interval over the {units} of the stratum, ± is the sample deviation over training "
        f"seeds. Rows stand in the order of all {units}; nothing is ranked or tested within a stratum.",
        "",
    ]
    for group, counts, rows in strata.groups:
        heads = [f"{stratum.label} (n = {count})" for stratum, count in zip(split.strata, counts, strict=True)]
        table = [["rank", "model", "role", *heads]]
        for stratified in rows:
            cells = [
                cell_text(cell) + (f" (n = {cell.n_valid})" if cell is not None and cell.n_valid != count else "")
                for cell, count in zip(stratified.cells, counts, strict=True)
            ]
            table.append([stratified.row.rank, stratified.row.model, stratified.row.role, *cells])
        lines += [*group_heading(group), *markdown_table(table), ""]
    if strata.excluded:
        lines += ["Left out:", ""]
        lines += [f"- {entry.model}: {entry.reason} (`{entry.source}`)" for entry in strata.excluded]
    return "\n".join(lines).rstrip() + "\n"
