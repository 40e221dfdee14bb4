"""What the images of a row gave: values per image and metrics of the whole set, read when somebody asks for them.

A board of thousands of results needs few of them: intervals stand in the results, and what two rows have in common is
remembered in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ...cards.task import TaskSpec
from ...core.remembered import sources_hash
from ...metrics.catalogue import find_metric
from ...metrics.of_set import Mean
from ...metrics.statistics_of_set import Statistic, mean_statistic
from ...results.rows import read_rows

if TYPE_CHECKING:
    import pandas

SOURCES = ("core", "metrics", "cards", "results", "families", "tables/leaderboard")
"""What decides about numbers that are computed from the rows of results."""


@dataclass(frozen=True)
class Measured:
    """The rows of one result, or of the results of several training seeds.

    Attributes:
        hashes: SHA-256 of each file of rows.
        files: the files themselves.
        card: the card of the task; None where it is not installed.
    """

    hashes: tuple[str, ...]
    files: tuple[Path, ...] = field(compare=False)
    card: TaskSpec | None = field(compare=False)

    @classmethod
    def of_seeds(cls, seeds: Sequence[Measured]) -> Measured:
        """The mean over training seeds."""
        hashes = tuple(sha256 for seed in seeds for sha256 in seed.hashes)
        files = tuple(path for seed in seeds for path in seed.files)
        return cls(hashes, files, seeds[0].card)

    @property
    def key(self) -> list[str]:
        """All that a number depends on that is computed from these rows, ready for JSON."""
        return [*self.hashes, self.card.hash if self.card is not None else "", sources_hash(*SOURCES)]

    def is_of_set(self, metric: str) -> bool:
        """Whether a metric is not the average of its column, and the card is there that says how it is computed."""
        return self.card is not None and not isinstance(find_metric(metric).of_set, Mean)

    def values(self, metric: str) -> pandas.Series:
        """A metric by sample id, averaged over noise seeds, then over training seeds; NaN where one is not valid."""
        seeds = [_values(sha256, path, metric) for sha256, path in zip(self.hashes, self.files, strict=True)]
        return sum(seeds[1:], start=seeds[0]) / len(seeds) if len(seeds) > 1 else seeds[0]

    def statistic(self, metric: str) -> Statistic:
        """A metric of the whole set as a function of the weights of the images, in the order of `ids`."""
        return _statistic(self, metric)

    def ids(self) -> pandas.Index:
        """The sorted sample ids."""
        ids: pandas.Index = _rows(self.hashes[0], self.files[0]).groupby("id", sort=True)["id"].first().index
        return ids

    def property(self, column: str) -> pandas.Series | None:
        """A property of the images by sample id; None where the first result does not record it."""
        rows = _rows(self.hashes[0], self.files[0])
        return rows.groupby("id", sort=True)[column].first() if column in rows else None


@lru_cache(maxsize=4)
def _rows(sha256: str, path: Path) -> pandas.DataFrame:
    return read_rows(path)


@lru_cache(maxsize=32)
def _values(sha256: str, path: Path, metric: str) -> pandas.Series:
    import pandas

    rows = _rows(sha256, path)
    groups = rows.groupby("id", sort=True)
    return groups[metric].mean() if metric in rows else pandas.Series(float("nan"), groups["id"].first().index)


@lru_cache(maxsize=8)  # the best row of a group is compared with every other one
def _statistic(measured: Measured, metric: str) -> Statistic:
    from ...families.summary import set_statistic  # slow to import, and what it gives is mostly remembered

    seeds = []
    for sha256, path in zip(measured.hashes, measured.files, strict=True):
        assert measured.card is not None
        statistic = set_statistic(_rows(sha256, path), measured.card, metric)
        assert statistic is not None
        seeds.append(statistic)
    return mean_statistic(seeds) if len(seeds) > 1 else seeds[0]
