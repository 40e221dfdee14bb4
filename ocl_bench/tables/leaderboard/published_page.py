"""All published rows on one page, `leaderboards/published.md`: those beside task cards and those without a card."""

from __future__ import annotations

from collections.abc import Mapping

from ...results.published import PublishedRow, PublishedTable, PublishedValue
from .board_page import markdown_table

_HEAD = """\
# Published numbers

Every number of a paper, README or list that this suite knows, as printed (mostly percent), with its source. Built by
`ocl-bench leaderboard` from `leaderboards/published/`; do not edit. What the fields mean: `docs/boards.md`.
A row is *comparable* when it may stand beside results of the card on official data. No row is ranked.

Evidence: `paper` a table or the text of a paper, `abstract` its abstract, `readme` a README or project page, `code`
another file of a repository, `secondary` second hand (summary, review, issue, list of results, project brief)."""


def published_page(tables: Mapping[str, PublishedTable]) -> str:
    """The page as Markdown: an overview of the files, then a section for each file.

    Args:
        tables: published rows by the name of their file. The same tables give the same bytes.
    """
    overview = [["file", "what", "rows", "comparable", "evidence"]]
    for name, table in tables.items():
        kinds = sorted({row.evidence for row in table.rows})
        comparable = sum(row.comparable == "yes" for row in table.rows)
        overview.append([f"`{name}`", _title(table), str(len(table.rows)), str(comparable), ", ".join(kinds)])
    sections = [line for name, table in tables.items() for line in _section(name, table)]
    return "\n".join([_HEAD, "", *markdown_table(overview), "", *sections]).rstrip() + "\n"


def _title(table: PublishedTable) -> str:
    return table.title or f"Rows beside the card `{table.task}` v{table.version}"


def _section(name: str, table: PublishedTable) -> list[str]:
    """The rows of one file, with one column for each metric that any of them prints, and its protocols."""
    metrics = list(dict.fromkeys(metric for row in table.rows for metric in row.metrics))
    columns = ("seeds", "supervision", "privilege", "protocol", "card", "comparable", "evidence", "source")
    body = [["model", *(f"`{metric}`" for metric in metrics), *columns]]
    body += [_line(table, row, metrics) for row in table.rows]
    lines = [f"## {name}", "", f"{_title(table)}. Printed number x {table.scale:g} = value.", "", *markdown_table(body)]
    lines += ["", *(f"- `{protocol}`: {text}" for protocol, text in table.protocols.items())]
    lines += [f"- `{measure}`: {entry.describe}" for measure, entry in table.measures.items()]
    return [*lines, *(f"- Left out: {text}" for text in table.left_out), ""]


def _line(table: PublishedTable, row: PublishedRow, metrics: list[str]) -> list[str]:
    cells = [_printed(row.metrics[metric]) if metric in row.metrics else "" for metric in metrics]
    seeds = " ".join(map(str, row.seeds)) or "not stated"
    card, comparable = table.cards.get(row.protocol, "none"), f"{row.comparable}: {row.why}"
    remarks = [row.supervision, row.privilege, row.protocol, card, comparable, row.evidence]
    return [row.model, *cells, seeds, *remarks, f"{row.paper}. {row.source}"]


def _printed(value: PublishedValue) -> str:
    """Value ± spread as printed, with the kind of spread where it is known."""
    # A value with a scale of its own is a count, and is printed without decimals.
    numbers = [f"{x:g}" if value.scale else str(x) for x in (value.value, value.spread) if x is not None]
    kind = "" if value.spread_kind in (None, "unstated") else f" ({str(value.spread_kind).replace('_', ' ')})"
    return " ± ".join(numbers) + kind
