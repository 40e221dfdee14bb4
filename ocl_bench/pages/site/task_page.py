"""The page of one task: its two tables, their plots, and what stands beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...cards.families import unit_of
from ...results.ranks_with import Reference
from ...tables.leaderboard.index_page import FAMILY_TITLES
from ...tables.leaderboard.ranking import Board
from ...tables.leaderboard.shown import Link
from ..report.signature import terms
from .plots import WHISKER, Scale, any_width, axis, band, history, interval_plot, scatter, whisker
from .rows import FACTS, Line, Meaning, Section, Tab, Value, meaning_of, tabs_of
from .strata_plots import strata_plots

ROOT = "../"
"""From the folder of the page to the root of the site."""


@dataclass(frozen=True)
class Cell:
    """One number as a table draws it. mark: its whisker; None without an axis, and for a ceiling beyond it."""

    value: Value
    mark: dict[str, Any] | None
    bands: list[dict[str, Any]]


@dataclass(frozen=True)
class Entry:
    """A row as a table draws it. address: of the page of its model or paper, '' for none."""

    line: Line
    address: str
    links: list[Link]
    cells: dict[str, Cell | None]
    seeds: tuple[Entry, ...] = ()


def task_address(task: Reference) -> str:
    """The address of a board, which stays the same as long as its protocol does."""
    return f"tasks/{task.name}-v{task.version}.html"


def entry_address(line: Line) -> str:
    """The page of the bundled model of a row, or of the paper of a published one; '' for neither."""
    if line.card:
        return f"models/{line.card}.html"
    return f"papers/{line.paper.key}.html" if line.paper is not None and line.kind == "published" else ""


def entry_links(line: Line, reports: Mapping[str, str]) -> list[Link]:
    """Links of a row, with the address of its copied result file and of its report, if it has one.

    Args:
        line: any row; a mean has the links of its training seeds.
        reports: address of a report, from the root of the site, by the source of the row.
    """
    links = line.links
    if line.kind == "published":
        return links
    links = links[:-1]
    for one in line.seeds or (line,):
        seed = f"seed {one.training_seeds}" if line.seeds else ""
        links.append(Link(seed or "result", f"{ROOT}results/{one.source.address}"))
        if one.source.address in reports:
            links.append(Link(f"report of {seed}" if seed else "report", ROOT + reports[one.source.address]))
    return links


def task_content(board: Board, reports: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the template and the script of a task need. reports: as for `entry_links`."""
    task = board.task
    meanings = {metric: meaning_of(metric) for metric in task.metrics}
    units = unit_of(task.card.family) if task.card is not None else "images"
    tabs = tabs_of(board)
    family = task.card.family if task.card is not None else ""
    papers = {line.paper.key: line.paper for tab in tabs for line in tab.lines if line.paper is not None}
    drawn = list(strata_plots(board))
    content = {
        "title": f"{task.name} v{task.version}",
        "task": {"name": task.name, "version": task.version, "title": task.title, "hash": task.hash[:12]},
        "family": FAMILY_TITLES.get(family, family.capitalize()),
        "reference": task.card.reference if task.card is not None else "",
        # Where the masks come from differs by row, see the column "protocol".
        "signature": terms(task.card.signature("any", task.main)) if task.card is not None else (),
        "main": task.main,
        "meanings": meanings,
        "facts": tuple(FACTS.items()),
        "size": WHISKER,
        "tabs": [
            {**_tab(tab, meanings, units, reports), "lines": [plot for plot in drawn if plot["tab"] == tab.key]}
            for tab in tabs
        ],
        "excluded": board.excluded,
        "left_out": board.published.left_out if board.published is not None else (),
    }
    return content, {"bibtex": {key: paper.bibtex for key, paper in papers.items() if paper.bibtex}}


def _tab(tab: Tab, meanings: dict[str, Meaning], units: str, reports: Mapping[str, str]) -> dict[str, Any]:
    """A table as the template draws it."""
    lines = list(tab.lines)
    # A ceiling is often far above everything else, and would press the intervals of the models together.
    bounded = [line for line in lines if line.role != "ceiling"]
    # Numbers without any interval need no axis: the digits say it all.
    drawn = [metric for metric in tab.metrics if any_width(lines, metric)]
    scales = {metric: axis(bounded, metric, 3, WHISKER[0] - 3) for metric in drawn}
    main = tab.metrics[0]
    shown = {*tab.metrics[:2], "supervision", *(["year"] if tab.key == "official" else [])}
    columns = [*((metric, metric) for metric in tab.metrics), ("supervision", "supervision"), ("year", "year")]
    columns += [*FACTS.items(), ("seeds", "training seeds"), ("protocol", "protocol"), ("command", "command")]
    empty = {
        "official": "No result on official data and no published number yet: hand one in.",
        "embedded": "Nothing has been measured on embedded data yet.",
    }
    return {
        "key": tab.key,
        "title": tab.title,
        "count": len(lines),
        "ranked": any(line.rank for line in lines),
        "empty": empty[tab.key],
        "metrics": tab.metrics,
        "scales": {metric: f"{scale.low:g} to {scale.high:g}" for metric, scale in scales.items()},
        "sections": [
            {
                "section": section,
                "entries": [_entry(line, section, tab.metrics, scales, meanings, reports) for line in section.lines],
            }
            for section in tab.sections
        ],
        "filters": _filters(lines),
        "columns": [(name, head, name in shown) for name, head in columns],
        "legend": _legend(tab, units),
        "interval_plots": _interval_plots(tab, meanings[main].direction),
        "points": _points(lines, main, meanings[main].direction),
    }


def _entry(
    line: Line,
    section: Section,
    metrics: Sequence[str],
    scales: dict[str, Scale],
    meanings: dict[str, Meaning],
    reports: Mapping[str, str],
) -> Entry:
    """A row of a table. scales: the axes of those metrics that have one."""
    cells: dict[str, Cell | None] = {}
    for metric in metrics:
        value, scale = line.values.get(metric), scales.get(metric)
        if value is None or scale is None:
            cells[metric] = Cell(value, None, []) if value is not None else None
            continue
        bands = band(section, metric, scale, meanings[metric].direction)
        inside = scale.low <= value.value <= scale.high
        cells[metric] = Cell(value, whisker(line, metric, scale) if inside else None, bands)
    seeds = tuple(_entry(seed, section, metrics, scales, meanings, reports) for seed in line.seeds)
    # The rows of the seeds stand below their mean, with their own links.
    links = line.links[:-1] if line.seeds and line.kind != "published" else entry_links(line, reports)
    return Entry(line, entry_address(line), links, cells, seeds)


def _filters(lines: Sequence[Line]) -> list[tuple[str, str, list[str]]]:
    """Filters with at least two choices: name of the attribute, head, and choices."""
    choices = {
        "supervision": {line.supervision for line in lines},
        "privilege": {line.privilege for line in lines},
        "backbone": {line.facts.get("backbone", "") for line in lines},
        "year": {line.year for line in lines},
        "comparable": {line.comparable or "measured" for line in lines},
    }
    return [(name, name, sorted(filter(None, values))) for name, values in choices.items() if len(values) > 1]


def _legend(tab: Tab, units: str) -> str:
    """One line on the signs of a table; only those that occur."""
    lines = list(tab.lines)
    parts = []
    if any(line.tied is not None for line in lines):
        parts.append(f"● and the bar: best of its block, or not separable from it (paired bootstrap over {units})")
    if any(value.low is not None for line in lines for value in line.values.values()):
        parts.append(f"whisker: 95 % interval over {units}")
    if any(line.kind == "published" for line in lines):
        printed = any(value.spread is not None for line in lines for value in line.values.values())
        parts += ["dashed: ± as printed"] if printed else []
        parts.append("a published number has no rank, since nothing can be tested without its images")
    if any(line.role in ("floor", "ceiling") for line in lines):
        parts.append("shaded: below the best floor, or above the lowest ceiling, of the block")
    return "; ".join(parts)[:1].upper() + "; ".join(parts)[1:] + ("." if parts else "")


def _interval_plots(tab: Tab, direction: int) -> list[dict[str, Any]]:
    drawn = [(section, interval_plot(section, tab.metrics[0], direction)) for section in tab.sections]
    return [{"label": f"{tab.metrics[0]}: {section.title}", "plot": plot} for section, plot in drawn if plot]


def _points(lines: Sequence[Line], metric: str, direction: int) -> list[dict[str, Any]]:
    """Metric against cost, and published numbers by year, where there are enough of them."""
    drawn = [
        (f"{metric} against parameters", "parameters", scatter(lines, metric, "parameters")),
        (f"{metric} against speed", "images/s of the whole evaluation", scatter(lines, metric, "images_per_second")),
        (f"{metric} of comparable published rows by year", "year of the paper", history(lines, metric, direction)),
    ]
    return [{"label": label, "along": along, "plot": plot} for label, along, plot in drawn if plot is not None]
