"""Plots of the main metric against number and size of objects, for boards whose metric is a mean over images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...metrics import find_metric
from ...tables.leaderboard.ranking import Board, Row
from ...tables.leaderboard.shown import folded, short_name
from ...tables.leaderboard.strata import PROPERTIES, stratify
from ..report.chart import line_chart

MOST_MODELS = 5
"""Best models of a group that are drawn; more lines could not be told apart."""


def strata_plots(board: Board) -> Iterator[dict[str, Any]]:
    """Geometry of one chart for each group and property, with its label and the key of its tab.

    A metric of the whole set would be computed anew for each resample of each stratum, which takes minutes: it has no
    plot here (`ocl-bench figures` draws it).
    """
    rows = [row for _, rows in board.groups for row in rows]
    if any(row.measured.is_of_set(board.task.main) for row in rows):
        return
    for name in ("objects", "size"):
        stratified = stratify(board, PROPERTIES[name])
        for group, counts, own in stratified.groups:
            chosen = _chosen([one.row for one in own], board.task.main)
            filled = [place for place, count in enumerate(counts) if count]
            if len(filled) < 2 or not chosen:
                continue
            lines = [
                {
                    "name": short_name(one.row),
                    "role": one.row.role if one.row.role in ("floor", "ceiling") else "run",
                    "values": [cell.value if (cell := one.cells[place]) is not None else None for place in filled],
                }
                for one in own
                if one.row in chosen
            ]
            labels = [stratified.split.strata[place].label for place in filled]
            stratum = {
                "lines": lines,
                "labels": labels,
                "counts": [counts[place] for place in filled],
                "direction": find_metric(board.task.main).direction,
            }
            along = {"objects": "number of objects", "size": "mean size of the objects"}[name]
            label = f"{board.task.main} by {along}, supervision: {group.supervision}"
            tab = "official" if group.kind == "official" else "embedded"
            yield {"tab": tab, "label": label, "along": along, "plot": line_chart(stratum)}


def _chosen(rows: list[Row], main: str) -> list[Row]:
    """The best models of a group, its best floor and its lowest ceiling; rows come best first."""
    valued = [row for row in folded(rows) if main in row.cells]
    models = [row for row in valued if row.role not in ("floor", "ceiling")]
    floors = [row for row in valued if row.role == "floor"]
    ceilings = [row for row in valued if row.role == "ceiling"]
    return [*models[:MOST_MODELS], *floors[:1], *ceilings[-1:]] if models else []
