"""The main metric of a board on strata of the images: by number of objects, their size, or how much they touch.

The properties of an image do not depend on the model. A result whose rows lack them, because it was made before they
were recorded, gets them from any other result on the same images; where there is none, it is left out with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...core.errors import UsageError
from ...metrics.statistics import bootstrap_mean
from ...metrics.statistics_of_set import Statistic, bootstrap_statistic
from .ranking import Board, BoardCell, Excluded, Group, Row

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Stratum:
    """Images with low <= value < high."""

    label: str
    low: float
    high: float


@dataclass(frozen=True)
class Property:
    """A property that images are split by. column: its column in the rows of results. text: its meaning on the page."""

    name: str
    column: str
    text: str
    strata: tuple[Stratum, ...]


_ENDLESS = float("inf")
PROPERTIES = {
    "objects": Property(
        "objects",
        "n_objects",
        "number of annotated objects in the image (in a video: in all its frames)",
        (
            Stratum("none", 0, 1),
            Stratum("1 to 2", 1, 3),
            Stratum("3 to 4", 3, 5),
            Stratum("5 to 6", 5, 7),
            Stratum("7 or more", 7, _ENDLESS),
        ),
    ),
    "size": Property(
        "size",
        "object_size",
        "mean over the objects of the share of the scored image that is theirs",
        (
            Stratum("below 1 %", 0, 0.01),
            Stratum("1 to 4 %", 0.01, 0.04),
            Stratum("4 to 10 %", 0.04, 0.1),
            Stratum("10 % or more", 0.1, _ENDLESS),
        ),
    ),
    "occlusion": Property(
        "occlusion",
        "object_contact",
        "mean over the objects of the share of their border that meets another object; that of objects that hide each "
        "other does, and so does that of some that only stand side by side",
        (
            # nextafter: the first stratum holds exact zeros only, the second everything above.
            Stratum("none", 0, np.nextafter(0, 1)),
            Stratum("up to 0.1", np.nextafter(0, 1), 0.1),
            Stratum("0.1 to 0.3", 0.1, 0.3),
            Stratum("0.3 or more", 0.3, _ENDLESS),
        ),
    ),
}
"""Properties by the word after `--by`. The edges are fixed: the strata of any two results hold the same images."""


@dataclass(frozen=True)
class StratifiedRow:
    """One row of a board with its main metric in each stratum; None where it is not valid on any image."""

    row: Row
    cells: tuple[BoardCell | None, ...]


@dataclass(frozen=True)
class StratifiedBoard:
    """A board split by one property. groups: of each group its number of images in each stratum, and its rows."""

    board: Board
    split: Property
    groups: tuple[tuple[Group, tuple[int, ...], tuple[StratifiedRow, ...]], ...]
    excluded: tuple[Excluded, ...]


def find_property(name: str) -> Property:
    """The property with this name. Raises UsageError for an unknown name."""
    if name not in PROPERTIES:
        raise UsageError(f"--by {name}: images are split by {', '.join(PROPERTIES)}")
    return PROPERTIES[name]


def stratify(board: Board, split: Property) -> StratifiedBoard:
    """Compute the main metric of every row on each stratum; rows keep the order that they have on all images."""
    known = _known(board, split.column)
    groups, excluded = [], []
    for group, rows in board.groups:
        values = known.get(_data(group))
        if values is None:
            reason = f"no result on these images records {split.column}; evaluate one of them again (any model will do)"
            excluded += [Excluded(row.model, row.source, reason) for row in rows if not row.seeds]
            continue
        members = [values.index[_positions(values, stratum)] for stratum in split.strata]
        stratified = tuple(
            StratifiedRow(row, tuple(_cell(row, board.task.main, ids) for ids in members)) for row in rows
        )
        groups.append((group, tuple(len(ids) for ids in members), stratified))
    return StratifiedBoard(board, split, tuple(groups), tuple(excluded))


def _data(group: Group) -> tuple[str, str, str]:
    """What decides on the properties of the images: the data, not supervision or privilege."""
    return group.kind, group.revision, group.ids_sha256


def _known(board: Board, column: str) -> dict[tuple[str, str, str], pandas.Series]:
    """The property of each image, for each data set from the first row that records it."""
    known: dict[tuple[str, str, str], pandas.Series] = {}
    for group, rows in board.groups:
        for row in rows:
            if _data(group) not in known and (values := row.measured.property(column)) is not None:
                known[_data(group)] = values
    return known


def _positions(values: pandas.Series, stratum: Stratum) -> NDArray[np.intp]:
    numbers = values.to_numpy(np.float64)
    return np.flatnonzero((numbers >= stratum.low) & (numbers < stratum.high))


def _cell(row: Row, metric: str, ids: pandas.Index) -> BoardCell | None:
    """The metric of one row on the images with these ids; None where it is not valid on any of them."""
    measured = row.measured
    positions = np.flatnonzero(measured.ids().isin(ids))
    if metric not in row.cells or not len(positions):
        return None
    if measured.is_of_set(metric):
        statistic = partial(_weighted, measured.statistic(metric), len(measured.ids()), positions)
        value, interval = bootstrap_statistic(statistic, len(positions))
        n_valid = len(positions)
    else:
        numbers = measured.values(metric).to_numpy(np.float64)[positions]
        numbers = numbers[~np.isnan(numbers)]
        value, interval = float(numbers.mean()) if numbers.size else np.nan, bootstrap_mean(numbers)
        n_valid = int(numbers.size)
    if np.isnan(value):
        return None
    low, high = (None, None) if np.isnan(interval.low) else (float(interval.low), float(interval.high))
    return BoardCell(value, low, high, _deviation([_value(seed, metric, positions) for seed in row.seeds]), n_valid)


def _value(row: Row, metric: str, positions: NDArray[np.intp]) -> float:
    """The metric of a single training seed on the images at `positions`; NaN where it is not valid."""
    measured = row.measured
    if metric not in row.cells:
        return float("nan")
    if measured.is_of_set(metric):
        once = np.ones((1, len(positions)), np.int64)
        return float(_weighted(measured.statistic(metric), len(measured.ids()), positions, once)[0])
    return float(measured.values(metric).iloc[positions].mean())


def _deviation(values: list[float]) -> float | None:
    """Sample deviation over training seeds; None for a single seed, or when a seed has no value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 and not np.isnan(values).any() else None


def _weighted(statistic: Statistic, n: int, positions: NDArray[np.intp], weights: NDArray[np.int64]) -> NDArray:
    """A statistic of all images, computed on some of them: every other image has weight 0.

    Args:
        statistic: a function of weights (R, n).
        n: number of all images.
        positions: (m,) images that count.
        weights: (R, m) how often each of them counts in each of R resamples.

    Returns:
        (R,) values.
    """
    everything = np.zeros((len(weights), n), weights.dtype)
    everything[:, positions] = weights
    return statistic(everything)
