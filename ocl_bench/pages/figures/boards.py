"""Figures of a board: intervals, accuracy against cost, published numbers by year, and the metric on strata."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ...core.plot_style import new_figure
from ...tables.leaderboard.ranking import Board, Row
from ...tables.leaderboard.shown import folded, short_name
from ...tables.leaderboard.strata import PROPERTIES, StratifiedBoard, stratify
from ..site.plots import FEWEST, history, scatter
from ..site.rows import Line, Section, meaning_of, tabs_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MODEL, TIED, REFERENCE = "#0072b2", "#d55e00", "#777777"
_BAND = "#eceef1"
_MOST_LINES = 7
"""Most rows in a figure of strata: more lines could not be told apart."""


def board_figures(board: Board) -> Iterator[tuple[str, Figure]]:
    """Each figure of a board with the end of its file's name."""
    main = board.task.main
    for tab in tabs_of(board):
        for number, section in enumerate(tab.sections, start=1):
            if (figure := intervals(section, tab.metrics[0])) is not None:
                yield f"{tab.key}-{number}-intervals", figure
        lines = list(tab.lines)
        for fact, label in (("parameters", "parameters"), ("images_per_second", "images/s of the whole evaluation")):
            if (figure := cost(lines, main, fact, label)) is not None:
                yield f"{tab.key}-{fact.replace('_', '-')}", figure
        if (figure := by_year(lines, main)) is not None:
            yield f"{tab.key}-years", figure
    for name in ("objects", "size"):
        yield from strata(stratify(board, PROPERTIES[name]))


def colour_of(line: Line) -> str:
    """The colour of a row: of its role, or of what cannot be separated from the best."""
    if line.role in ("floor", "ceiling"):
        return REFERENCE
    return TIED if line.tied else MODEL


def intervals(section: Section, metric: str) -> Figure | None:
    """Rows one below the other with their intervals; the bands of floors and ceilings behind them."""
    lines = [line for line in section.lines if metric in line.values]
    if len(lines) < FEWEST:
        return None
    figure, axes = _axes(5.2, 0.6 + 0.19 * len(lines))
    for place, line in enumerate(lines):
        value, colour = line.values[metric], colour_of(line)
        low, high = value.ends
        axes.plot([low, high], [place, place], color=colour, linewidth=3, alpha=0.4, solid_capstyle="butt")
        axes.plot([value.value], [place], "o", color=colour, markersize=3)
        axes.annotate(value.text, (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=7)
    _bands(axes, section, metric)
    axes.set_yticks(range(len(lines)), [line.name for line in lines])
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(metric)
    axes.set_title(section.title)
    return figure


def _bands(axes: Axes, section: Section, metric: str) -> None:
    """Shade what lies below the best floor and above the lowest ceiling."""
    direction = meaning_of(metric).direction
    low, high = axes.get_xlim()
    for role in ("floor", "ceiling"):
        bound = section.bound(metric, role, direction)
        if bound is not None and low < bound < high:
            outer = low if (role == "floor") == (direction > 0) else high
            axes.axvspan(*sorted((bound, outer)), color=_BAND, linewidth=0, zorder=0)
    axes.set_xlim(low, high)


def cost(lines: Sequence[Line], metric: str, fact: str, label: str) -> Figure | None:
    """A metric against a cost on a logarithmic axis."""
    plot = scatter(lines, metric, fact)
    if plot is None:
        return None
    figure, axes = _axes(3.6, 2.6)
    _points(axes, metric, [(point["cost"], point) for point in plot["points"]])
    axes.set_xscale("log")
    axes.set_xlabel(label)
    axes.set_ylabel(metric)
    return figure


def by_year(lines: Sequence[Line], metric: str) -> Figure | None:
    """Comparable published rows by the year of their paper, with the best so far."""
    plot = history(lines, metric, meaning_of(metric).direction)
    if plot is None:
        return None
    figure, axes = _axes(3.6, 2.6)
    years, best = zip(*plot["best"], strict=True)
    axes.step(years, best, where="post", color=TIED, linewidth=1, zorder=0)
    _points(axes, metric, [(int(point["line"].year), point) for point in plot["points"]])
    axes.set_xticks(range(years[0], years[-1] + 1))
    axes.margins(x=0.15)
    axes.set_ylabel(metric)
    return figure


def _points(axes: Axes, metric: str, points: Sequence[tuple[float, dict[str, Any]]]) -> None:
    """Points of a plot of the site, with the labels that it found room for."""
    for x, point in points:
        y = point["line"].values[metric].value
        axes.plot([x], [y], "o", color=colour_of(point["line"]), markersize=3.5)
        if point["label"]:
            side = "left" if point["side"] > 0 else "right"
            offset = (4 * point["side"], 0.5 * point["rise"])
            axes.annotate(
                point["label"], (x, y), offset, textcoords="offset points", ha=side, va="center", fontsize=5.5
            )


def strata(stratified: StratifiedBoard) -> Iterator[tuple[str, Figure]]:
    """The main metric of the best rows of each group on the images of each stratum, with intervals.

    A group whose images all lie in one stratum has no figure.
    """
    board, split = stratified.board, stratified.split
    for number, (group, counts, rows) in enumerate(stratified.groups, start=1):
        if sum(any(one.cells[place] for one in rows) for place in range(len(counts))) < 2:
            continue  # all images lie in one stratum
        chosen = _best(rows_of_group=[one.row for one in rows], main=board.task.main)
        figure, axes = _axes(4.6, 2.6)
        for place, (row, cells) in enumerate((one.row, one.cells) for one in rows if one.row in chosen):
            points = [(x, cell) for x, cell in enumerate(cells) if cell is not None]
            style = "--" if row.role in ("floor", "ceiling") else "-"
            x = [x + 0.06 * (place - len(chosen) / 2) for x, _ in points]
            values = [cell.value for _, cell in points]
            below = [cell.value - (cell.value if cell.low is None else cell.low) for _, cell in points]
            above = [(cell.value if cell.high is None else cell.high) - cell.value for _, cell in points]
            name = short_name(row)
            axes.errorbar(x, values, (below, above), fmt=f"o{style}", markersize=3, elinewidth=0.8, label=name)
        labels = [f"{one.label}\nn = {count}" for one, count in zip(split.strata, counts, strict=True)]
        axes.set_xticks(range(len(labels)), labels)
        axes.set_xlabel(split.text.split(" (")[0])
        axes.set_ylabel(board.task.main)
        axes.set_title(f"supervision: {group.supervision}, privilege: {group.privilege}")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        yield f"{group.kind}-{number}-by-{split.name}", figure


def _best(rows_of_group: Sequence[Row], main: str) -> list[Row]:
    """The best models of a group, then the best floor; rows come best first."""
    rows = [row for row in folded(rows_of_group) if main in row.cells]
    models = [row for row in rows if row.role not in ("floor", "ceiling")]
    return [*models[: _MOST_LINES - 1], *[row for row in rows if row.role == "floor"][:1]]


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of that many inches with one axes, laid out when it is saved."""
    figure = new_figure(width, height)
    figure.set_layout_engine("constrained")
    return figure, figure.subplots()
