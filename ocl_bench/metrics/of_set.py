"""How the number of a whole set of images or videos comes from their rows.

A metric is either the mean of its own column, or something that a mean of images cannot give: a ratio of sums, a mean
over all frames of all videos, an average precision. Those are functions of how often each sample is drawn, so that a
bootstrap resample redoes matching and accumulation on its own samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .statistics import Statistic, mean_statistic

if TYPE_CHECKING:
    import pandas


class OfSet(Protocol):
    """A rule that makes the number of a set from the rows of one noise seed.

    rows: one for each sample, sorted by id. name: of the metric. protocol: that of the task card.
    """

    @property
    def text(self) -> str:
        """The rule in one sentence."""
        ...

    def of_seed(self, rows: pandas.DataFrame, name: str, protocol: Any) -> Statistic | None:
        """The metric as a function of sample weights; None for the mean of the metric's own column."""
        ...

    def counted(self, rows: pandas.DataFrame, name: str) -> pandas.Series:
        """Which rows take part, one truth value each: they are counted in `n_valid`."""
        ...


def statistic_of(rule: OfSet, rows: pandas.DataFrame, name: str, protocol: Any) -> Statistic | None:
    """The metric of a set as a function of sample weights, the mean over noise seeds; None for a mean of the column.

    rows: of all noise seeds. The weights belong to the samples in the order of their sorted ids.
    """
    seeds = [seed.sort_values("id") for _, seed in rows.groupby("noise_seed", sort=True)]
    statistics = [statistic for seed in seeds if (statistic := rule.of_seed(seed, name, protocol)) is not None]
    return mean_statistic(statistics) if statistics else None


@dataclass(frozen=True)
class Mean:
    """The mean of the metric's own column: one sample has one vote, whatever the number of noise seeds."""

    @property
    def text(self) -> str:
        """The rule in one sentence."""
        return "mean over samples of the mean over noise seeds"

    def of_seed(self, rows: pandas.DataFrame, name: str, protocol: Any) -> None:
        """None: there is a simpler way than weights."""

    def counted(self, rows: pandas.DataFrame, name: str) -> pandas.Series:
        """Rows that have a value."""
        return rows[name].notna()


@dataclass(frozen=True)
class Weighted:
    """The mean of the metric's own column in which each sample counts as often as its column `by` says; once for None.

    A mean over all frames of a set of videos is one: each video has the mean of its frames and their number.
    """

    by: str | None = None

    @property
    def text(self) -> str:
        """The rule in one sentence."""
        return f"mean in which each sample counts {self.by} times" if self.by else "mean over samples"

    def of_seed(self, rows: pandas.DataFrame, name: str, protocol: Any) -> Statistic:
        """NaN where nothing is valid."""
        values = rows[name].to_numpy(np.float64)
        weight = rows[self.by].to_numpy(np.float64) if self.by else np.ones(len(values))
        weight = np.where(np.isnan(values), 0.0, weight)
        return _quotient(np.where(weight > 0, values, 0.0) * weight, weight)

    def counted(self, rows: pandas.DataFrame, name: str) -> pandas.Series:
        """Rows that have a value."""
        return rows[name].notna()


@dataclass(frozen=True)
class Ratio:
    """The sum of column `above` divided by the sum of column `below`."""

    above: str
    below: str

    @property
    def text(self) -> str:
        """The rule in one sentence."""
        return f"sum of {self.above} / sum of {self.below}"

    def of_seed(self, rows: pandas.DataFrame, name: str, protocol: Any) -> Statistic:
        """NaN where nothing is counted."""
        above, below = (rows[column].to_numpy(np.float64) for column in (self.above, self.below))
        return _quotient(above, below)

    def counted(self, rows: pandas.DataFrame, name: str) -> pandas.Series:
        """Rows that add something to the divisor."""
        return rows[self.below] > 0


@dataclass(frozen=True)
class Total:
    """The sum of the metric's own column."""

    @property
    def text(self) -> str:
        """The rule in one sentence."""
        return "sum over samples"

    def of_seed(self, rows: pandas.DataFrame, name: str, protocol: Any) -> Statistic:
        """The sum over the samples drawn."""
        values = rows[name].to_numpy(np.float64)
        return lambda weights: weights @ values

    def counted(self, rows: pandas.DataFrame, name: str) -> pandas.Series:
        """Rows that have a value."""
        return rows[name].notna()


@dataclass(frozen=True)
class Accumulated:
    """Whatever a function makes of all rows: matching and accumulation over the whole set.

    build: gets the rows of one noise seed, the metric's name and the protocol. takes_part: see `OfSet.counted`.
    """

    build: Callable[[pandas.DataFrame, str, Any], Statistic]
    takes_part: Callable[[pandas.DataFrame, str], pandas.Series]

    @property
    def text(self) -> str:
        """The rule in one sentence."""
        return "matching and accumulation over all rows, again for each bootstrap resample"

    def of_seed(self, rows: pandas.DataFrame, name: str, protocol: Any) -> Statistic:
        """What `build` makes."""
        return self.build(rows, name, protocol)

    def counted(self, rows: pandas.DataFrame, name: str) -> pandas.Series:
        """What `takes_part` says."""
        return self.takes_part(rows, name)


def _quotient(above: np.ndarray, below: np.ndarray) -> Statistic:
    def statistic(weights: np.ndarray) -> np.ndarray:
        count = weights @ below
        return np.divide(weights @ above, count, out=np.full(len(weights), np.nan), where=count > 0)

    return statistic
