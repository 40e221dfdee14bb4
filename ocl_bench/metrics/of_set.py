"""Rules that make the number of a whole set from the rows of its images or videos.

A metric is either the mean of its own column, or something that a mean over images cannot give: a ratio of sums, a mean
over all frames of all videos, an average precision. Rules of the second kind are functions of how often each sample is
drawn. A bootstrap resample thus redoes matching and accumulation on its own samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .statistics_of_set import Statistic, mean_statistic

if TYPE_CHECKING:
    import pandas


class OfSet(Protocol):
    """A rule that makes the number of a set from the rows of one noise seed.

    Its methods get `rows`, one for each sample and sorted by id, the `name` of the metric, and the `protocol` of the
    task card.
    """

    @property
    def text(self) -> str:
        """The rule in one sentence."""
        ...

    def of_seed(self, rows: pandas.DataFrame, name: str, protocol: Any) -> Statistic | None:
        """The metric as a function of sample weights; None for the mean of the metric's own column."""
        ...

    def counted(self, rows: pandas.DataFrame, name: str) -> pandas.Series:
        """One bool for each row: whether it takes part. The sum is printed as `n_valid`."""
        ...


def statistic_of(rule: OfSet, rows: pandas.DataFrame, name: str, protocol: Any) -> Statistic | None:
    """The metric of a set as a function of sample weights, averaged over noise seeds.

    Args:
        rule: `of_set` of the metric.
        rows: rows of all noise seeds.
        name: of the metric.
        protocol: that of the task card.

    Returns:
        A function of weights (R, n), whose columns are the samples in the order of their sorted ids. None where the
        number of a set is the mean of the metric's own column.
    """
    seeds = [seed.sort_values("id") for _, seed in rows.groupby("noise_seed", sort=True)]
    statistics = [statistic for seed in seeds if (statistic := rule.of_seed(seed, name, protocol)) is not None]
    return mean_statistic(statistics) if statistics else None


@dataclass(frozen=True)
class Mean:
    """The mean of the metric's own column. Each sample counts once, whatever the number of noise seeds."""

    @property
    def text(self) -> str:
        """The rule in one sentence."""
        return "mean over samples of the mean over noise seeds"

    def of_seed(self, rows: pandas.DataFrame, name: str, protocol: Any) -> None:
        """None: a plain mean is computed by `bootstrap_mean`."""

    def counted(self, rows: pandas.DataFrame, name: str) -> pandas.Series:
        """Rows that have a value."""
        return rows[name].notna()


@dataclass(frozen=True)
class Weighted:
    """The weighted mean of the metric's own column. The weights are the column `by`; None means equal weights.

    It gives the mean over all frames of a set of videos from one row for each video: the mean over its frames and their
    number.

    Example:
        >>> import pandas
        >>> rows = pandas.DataFrame({"id": ["a", "b"], "fg_ari_frame": [0.5, 1.0], "n_frames": [3, 1]})
        >>> Weighted("n_frames").of_seed(rows, "fg_ari_frame", None)(np.ones((1, 2), int))  # (3 * 0.5 + 1) / 4
        array([0.625])
    """

    by: str | None = None

    @property
    def text(self) -> str:
        """The rule in one sentence."""
        return f"mean in which each sample counts {self.by} times" if self.by else "mean over samples"

    def of_seed(self, rows: pandas.DataFrame, name: str, protocol: Any) -> Statistic:
        """The weighted mean as a function of sample weights; NaN where nothing is valid."""
        values = rows[name].to_numpy(np.float64)
        weight = rows[self.by].to_numpy(np.float64) if self.by else np.ones(len(values))
        weight = np.where(np.isnan(values), 0.0, weight)
        # 0 * NaN is NaN: a value without weight is set to 0 before the product.
        return _quotient(np.where(weight > 0, values, 0.0) * weight, weight)

    def counted(self, rows: pandas.DataFrame, name: str) -> pandas.Series:
        """Rows that have a value."""
        return rows[name].notna()


@dataclass(frozen=True)
class SumRatio:
    """The sum of column `above` divided by the sum of column `below`.

    Example:
        >>> import pandas
        >>> rows = pandas.DataFrame({"id": ["a", "b"], "n_correct1": [1, 1], "n_objects": [3, 1]})
        >>> SumRatio("n_correct1", "n_objects").of_seed(rows, "top1_all", None)(np.array([[1, 1], [0, 2]]))
        array([0.5, 1. ])
    """

    above: str
    below: str

    @property
    def text(self) -> str:
        """The rule in one sentence."""
        return f"sum of {self.above} / sum of {self.below}"

    def of_seed(self, rows: pandas.DataFrame, name: str, protocol: Any) -> Statistic:
        """The ratio as a function of sample weights; NaN where the divisor is 0."""
        above, below = (rows[column].to_numpy(np.float64) for column in (self.above, self.below))
        return _quotient(above, below)

    def counted(self, rows: pandas.DataFrame, name: str) -> pandas.Series:
        """Rows that add to the divisor."""
        return rows[self.below] > 0


@dataclass(frozen=True)
class Total:
    """The sum of the metric's own column.

    Example:
        >>> import pandas
        >>> rows = pandas.DataFrame({"id": ["a", "b"], "n_matched": [3, 1]})
        >>> Total().of_seed(rows, "n_matched", None)(np.array([[1, 1], [0, 2]]))
        array([4., 2.])
    """

    @property
    def text(self) -> str:
        """The rule in one sentence."""
        return "sum over samples"

    def of_seed(self, rows: pandas.DataFrame, name: str, protocol: Any) -> Statistic:
        """The sum as a function of sample weights."""
        values = rows[name].to_numpy(np.float64)
        return lambda weights: weights @ values

    def counted(self, rows: pandas.DataFrame, name: str) -> pandas.Series:
        """Rows that have a value."""
        return rows[name].notna()


@dataclass(frozen=True)
class Accumulated:
    """The result of a function of all rows: matching and accumulation over the whole set.

    Attributes:
        build: makes the statistic from the rows of one noise seed, the name of the metric and the protocol.
        takes_part: says which rows count, see `OfSet.counted`.
    """

    build: Callable[[pandas.DataFrame, str, Any], Statistic]
    takes_part: Callable[[pandas.DataFrame, str], pandas.Series]

    @property
    def text(self) -> str:
        """The rule in one sentence."""
        return "matching and accumulation over all rows, again for each bootstrap resample"

    def of_seed(self, rows: pandas.DataFrame, name: str, protocol: Any) -> Statistic:
        """The statistic that `build` makes of the rows."""
        return self.build(rows, name, protocol)

    def counted(self, rows: pandas.DataFrame, name: str) -> pandas.Series:
        """Rows that take part according to `takes_part`."""
        return self.takes_part(rows, name)


def _quotient(above: np.ndarray, below: np.ndarray) -> Statistic:
    """Weighted sum of (n,) numerators over that of (n,) divisors; NaN for resamples whose divisors add up to 0."""

    def statistic(weights: np.ndarray) -> np.ndarray:
        count = weights @ below
        return np.divide(weights @ above, count, out=np.full(len(weights), np.nan), where=count > 0)

    return statistic
