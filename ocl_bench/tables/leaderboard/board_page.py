"""A leaderboard as Markdown, for the width of a page on GitHub: at most six columns; everything else is in the CSV."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ...cards.families import unit_of
from ...results.papers import find_paper
from ...results.published import PublishedRow, PublishedTable
from .board_csv import fixed
from .shown import (
    KIND_TEXTS,
    Link,
    folded,
    folded_published,
    groups_by_place,
    links_of_paper,
    metrics_first,
    paper_of_row,
    short_name,
    source_link,
)

if TYPE_CHECKING:
    from .ranking import Board, BoardCell, Group, Row

COMMITTED_RESULTS = "results"
"""Where the committed results lie, from the committed boards."""


def to_markdown(board: Board, *, committed: bool = False) -> str:
    """The board as a page: official data and published numbers, then other data, then what is not ranked.

    The page says nothing of when it was built, because the committed pages are compared byte by byte.

    Args:
        board: any board.
        committed: whether the page will lie among the committed boards: then it links result files and documents.
    """
    task = board.task
    official, others = groups_by_place(board)
    lines = [
        f"# {task.name} v{task.version}",
        "",
        *([task.title + ".", ""] if task.title else []),
        f"Ranked by `{task.main}`. All metrics, training seeds, protocols, costs and commands: "
        f"[{task.name}.csv]({task.name}.csv).{_documents(committed)}",
        "",
        f"Task hash `{task.hash[:12]}`. Built by `ocl-bench leaderboard`; do not edit.",
        "",
        "## Official data and published numbers",
        "",
    ]
    for group, rows in official:
        lines += [*_group_section(board, group, rows, committed), ""]
    if not official:
        lines += ["No result on official data has been handed in yet.", ""]
    lines += [*_published_sections(board), ""]
    for kind in dict.fromkeys(group.kind for group, _ in others):
        lines += [f"## {KIND_TEXTS[kind]}", ""]
        for group, rows in others:
            if group.kind == kind:
                lines += [*_group_section(board, group, rows, committed), ""]
    if not board.groups:
        lines += ["No ranked results yet.", ""]
    if board.excluded:
        lines += ["---", "", "Not ranked:", ""]
        lines += [f"- {escaped(f'{e.model}: {e.reason}')} (`{e.source}`)" for e in board.excluded] + [""]
    lines += _signatures(board)
    return "\n".join(lines).rstrip() + "\n"


def _documents(committed: bool) -> str:
    """Links to other pages, where these lie beside the board."""
    if not committed:
        return ""
    pages = {"All boards": "README.md", "how rows rank": "../docs/boards.md", "submit a result": "../docs/submit.md"}
    return " " + " · ".join(f"[{text}]({address})" for text, address in pages.items())


def _group_section(board: Board, group: Group, rows: Sequence[Row], committed: bool) -> list[str]:
    """Heading, table and the line that explains its marks."""
    metrics = metrics_first(board)[:2]
    table = [["rank", "model", *(f"`{metric}`" for metric in metrics), "supervision", "source"]]
    shown = folded(rows)
    for row in shown:
        rank = f"{row.rank} ●" if row.tied_with_best else row.rank
        cells = [cell_text(row.cells.get(metric)) for metric in metrics]
        sees = group.supervision + (f", {row.privilege} at inference" if row.privilege != "none" else "")
        links = [*links_of_paper(paper_of_row(row)), *_result_links(row, committed)]
        table.append([rank, short_name(row), *cells, sees, _linked(links)])
    remarks = [f"- {escaped(row.model)}: {row.remark}" for row in rows if row.remark]
    heading = f"### supervision: {group.supervision}, privilege: {group.privilege}"
    data = f"Revision `{group.revision}`." + (f" Head: {group.fit}." if group.fit else "")
    lines = [heading, "", data, "", *markdown_table(table), "", _legend(board, shown)]
    return [*lines, *(["", *remarks] if remarks else [])]


def _legend(board: Board, rows: Sequence[Row]) -> str:
    """One line on marks, brackets and counts of a table of results."""
    task = board.task
    units = unit_of(task.card.family) if task.card is not None else "images"
    counts = sorted({cell.n_valid for row in rows if (cell := row.cells.get(task.main)) and cell.n_valid is not None})
    number = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else "".join(map(str, counts))
    return (
        f"● best, or not separable from the best (paired bootstrap over {units}); floor, ceiling: shown, not ranked; "
        f"[ ] 95 % interval over {number} {units}; ± over training seeds."
    )


def _result_links(row: Row, committed: bool) -> list[Link]:
    """The result files of a row: its own, or those of its training seeds by their number."""
    single = [(str(one.training_seeds[0]), one.source) for one in sorted(row.seeds, key=lambda one: one.training_seeds)]
    files = single or [("result", row.source)]
    return [Link(text, f"{COMMITTED_RESULTS}/{source}" if committed else "") for text, source in files]


def _linked(links: Iterable[Link]) -> str:
    return " · ".join(f"[{link.text}]({link.address})" if link.address else link.text for link in links)


def group_heading(group: Group) -> list[str]:
    """Lines above the table of a group: what its rows share."""
    heading = f"## {KIND_TEXTS[group.kind]} (revision {group.revision}), supervision: {group.supervision}"
    fitted = [f"Head: {group.fit}.", ""] if group.fit else []
    return [f"{heading}, privilege: {group.privilege}", "", *fitted]


def cell_text(cell: BoardCell | None) -> str:
    """Value, deviation over training seeds and interval, with three decimals; '' for a missing cell."""
    if cell is None:
        return ""
    spread = "" if cell.sd is None else f" ± {fixed(cell.sd, 3)}"
    interval = "" if cell.low is None or cell.high is None else f" [{fixed(cell.low, 3)}, {fixed(cell.high, 3)}]"
    return f"{fixed(cell.value, 3)}{spread}{interval}"


def _published_sections(board: Board) -> list[str]:
    """A table of the comparable rows, one of the others, and what the protocols are."""
    table = board.published
    if table is None or not table.rows:
        sentence = "None: no paper's number has been sourced for this protocol yet"
        place = f"`leaderboards/published/{board.task.name}.yaml`"
        return ["### Published numbers", "", f"{sentence} (they would stand in {place})."]
    entries = folded_published(board)
    lines = []
    for comparable, heading in (
        ("yes", "### Published, comparable with official data"),
        ("no", "### Published, under other protocols"),
    ):
        chosen = [(row, seeds) for row, seeds in entries if row.comparable == comparable]
        if chosen:
            lines += [heading, "", *_published_table(board, table, chosen), ""]
    lines += [
        "A published number has no rank: without values per image nothing can be tested. "
        "± as the source prints it; a word in the last column says where the number was read.",
        "",
        "<details><summary>Protocols of the published rows, and why a row is comparable or not</summary>",
        "",
        *(f"- `{name}`: {text}" for name, text in table.protocols.items()),
        *_reasons(row for row, _ in entries),
        *(f"- Left out: {text}" for text in table.left_out),
        "",
        "</details>",
    ]
    return lines


def _reasons(rows: Iterable[PublishedRow]) -> list[str]:
    """Why rows are comparable or not, each reason once with the models that share it."""
    models: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        models.setdefault((row.comparable, row.why), []).append(row.model)
    return [f"- {', '.join(names)}: {comparable}: {why}" for (comparable, why), names in models.items()]


def _published_table(
    board: Board, table: PublishedTable, entries: Sequence[tuple[PublishedRow, Sequence[PublishedRow]]]
) -> list[str]:
    """The rows with the first two metrics that any of them prints."""
    metrics = metrics_first(board, {metric for row, _ in entries for metric in row.metrics})[:2]
    body = [["rank", "model", *(f"`{metric}`" for metric in metrics), "supervision", "source"]]
    for row, _ in entries:
        seeds = f" ({len(row.seeds)} seeds)" if len(row.seeds) > 1 else ""
        cells = [_published_text(row, metric, table) for metric in metrics]
        sees = row.supervision + (f", {row.privilege} at inference" if row.privilege != "none" else "")
        links = [*links_of_paper(find_paper(row.paper)), source_link(row)]
        body.append(["–", f"{row.model}{seeds}", *cells, sees, f"{_linked(links)}; `{row.protocol}`"])
    return markdown_table(body)


def _published_text(row: PublishedRow, metric: str, table: PublishedTable) -> str:
    """Value ± spread as fractions, whatever the source prints; '' for a metric that it does not have."""
    if metric not in row.metrics:
        return ""
    value, spread = table.shown(row.metrics[metric])
    return f"{value:.3f}" if spread is None else f"{value:.3f} ± {spread:.3f}"


def _signatures(board: Board) -> list[str]:
    """The protocols of the ranked rows in one line each, with the models that they belong to."""
    models: dict[str, list[str]] = {}
    for _, rows in board.groups:
        for row in folded(rows):
            models.setdefault(row.signature, []).append(row.base)
    lines = [f"- `{text}`: {escaped(', '.join(dict.fromkeys(names)))}" for text, names in models.items()]
    return ["## Signatures", "", *lines] if lines else []


def escaped(text: str) -> str:
    """Text that Markdown does not take for an HTML tag: names of models are written by others."""
    return text.replace("<", "&lt;")


def markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table.

    Args:
        rows: the head first; every row has as many cells as the head. Pipes, line breaks and tags are escaped.
    """
    plain = [[escaped(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    head, *body = (f"| {' | '.join(row)} |" for row in plain)
    return [head, f"|{'---|' * len(rows[0])}", *body]
