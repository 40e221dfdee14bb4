"""Join the results of two methods on the same images, and refuse results that cannot be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...cards.names import get_task
from ...cards.task import TaskSpec
from ...core.errors import UsageError
from ...families.summary import set_statistic
from ...metrics.statistics import Difference, paired_difference
from ...metrics.statistics_of_set import Statistic, paired_statistic_difference, two_level_statistic_difference
from ...results.record import Result
from ...results.seeds import as_seeds
from ...results.store import rows_of, where

if TYPE_CHECKING:
    import pandas

ENOUGH_SEEDS = 3
"""Least number of training seeds from which something is said about a trained method."""
_MODEL_PART = ("mask:", "from:")
"""Parts of a signature that name the source of the masks. They belong to the model, not to the protocol."""


@dataclass(frozen=True)
class ComparedMethod:
    """One of the two methods: a result for each training seed, and the metric and card that it is scored by."""

    results: tuple[Result, ...]
    metric: str
    card: TaskSpec

    @property
    def name(self) -> str:
        """The name of the method, with the training seed when there is a single result."""
        first = self.results[0].model.name
        return first if len(self.results) == 1 else first.partition(":")[0]

    @property
    def trained(self) -> bool:
        """Whether the method is trained: everything except floors and ceilings, including a user's own model."""
        return self.results[0].model.role not in ("floor", "ceiling")

    @property
    def seeds(self) -> tuple[int, ...]:
        """Training seeds; empty for floors and for models without a recorded seed."""
        seeds = (result.model.training_seed for result in self.results)
        return tuple(seed for seed in seeds if seed is not None)


@dataclass(frozen=True)
class PairedResults:
    """Results of two methods, paired by training seed, on the images that count for all of them.

    Attributes:
        ours: the method whose advantage is positive.
        theirs: the other method, with as many results.
        rows: for each of the two methods the rows of its S results, sorted by image.
        values: (2, S, n) values per image, averaged over noise seeds; None when the metric is not an average over
            images.
        ids: (n,) sample ids, sorted.
        failed: number of images that failed in a result.
        without_value: number of images on which the metric is not valid in some result.
    """

    ours: ComparedMethod
    theirs: ComparedMethod
    rows: tuple[tuple[pandas.DataFrame, ...], tuple[pandas.DataFrame, ...]]
    values: NDArray[np.float64] | None
    ids: tuple[str, ...]
    failed: int
    without_value: int

    @property
    def direction(self) -> int:
        """1 when a larger value is better, -1 when a smaller one is."""
        return self.ours.results[0].metrics[self.ours.metric].direction

    @property
    def n(self) -> int:
        """Number of images (or videos) that count."""
        return len(self.ids)

    @property
    def enough_seeds(self) -> bool:
        """Whether there are enough training seeds to speak about the methods and not only about checkpoints."""
        # A floor is not trained: it would be the same with any seed.
        return all(len(set(side.seeds)) >= ENOUGH_SEEDS for side in (self.ours, self.theirs) if side.trained)

    @cached_property
    def statistics(self) -> tuple[list[Statistic], list[Statistic]]:
        """The metric as a function of image weights (R, n), for each method and each of its results."""
        return self._side_statistics(0), self._side_statistics(1)

    def _side_statistics(self, index: int) -> list[Statistic]:
        if self.values is not None:
            return [_mean(values) for values in self.values[index]]
        side = (self.ours, self.theirs)[index]
        statistics = [set_statistic(rows, side.card, side.metric) for rows in self.rows[index]]
        return [statistic for statistic in statistics if statistic is not None]

    def value(self, index: int) -> float:
        """The metric of one method (0 or 1) on these images, averaged over its results."""
        # Computed again, not read from the result: the images of the pair may be fewer than those of the result.
        once = np.ones((1, self.n), dtype=np.int64)
        return float(np.mean([statistic(once)[0] for statistic in self.statistics[index]]))

    def difference(self) -> Difference:
        """The bootstrap of ours minus theirs; positive is always better for ours.

        One pair of results is resampled over images, several over pairs of training seeds and images.
        """
        first, second = ([_signed(statistic, self.direction) for statistic in side] for side in self.statistics)
        if len(first) > 1:
            return two_level_statistic_difference(first, second, self.n)
        if self.values is not None:
            tested = paired_difference(self.direction * self.values[0, 0], self.direction * self.values[1, 0])
        else:
            tested = paired_statistic_difference(first[0], second[0], self.n)
        return replace(tested, seed_signs=() if np.isnan(tested.mean) else (int(np.sign(tested.mean)),))

    def image_differences(self) -> NDArray[np.float64] | None:
        """(n,) differences of the images, averaged over seed pairs; None if the metric is not an average of images."""
        return None if self.values is None else self.direction * (self.values[0] - self.values[1]).mean(axis=0)

    def swappable(self) -> list[Statistic] | None:
        """For each pair the metric as a function of weights (R, 2n), our images first; None if a swap means nothing.

        A permutation test swaps images between the two models and scores the mixture. Average precision of a mixture
        means nothing, because the scores of two models do not share a scale. Matched clusters of a mixture mean
        nothing, because clusters have no names. Two protocols or unequal noise seeds cannot be mixed either.
        """
        import pandas

        from ...metrics.semantic_set import NAMED

        same = (self.ours.card.hash, self.ours.metric) == (self.theirs.card.hash, self.theirs.metric)
        if not same or self.ours.metric.removeprefix("probe_").removeprefix("class_").startswith("ap_"):
            return None
        statistics = []
        for ours, theirs in zip(*self.rows, strict=True):
            # Ids are sorted later: the prefixes put all of our images before all of theirs.
            both = pandas.concat([ours.assign(id="0" + ours["id"]), theirs.assign(id="1" + theirs["id"])])
            named = "clusters" not in both or (both["clusters"] == NAMED).all()
            if not named or set(ours["noise_seed"]) != set(theirs["noise_seed"]):
                return None
            statistics.append(set_statistic(both, self.ours.card, self.ours.metric))
        return [statistic for statistic in statistics if statistic is not None]


def pair(
    ours: Sequence[Result],
    theirs: Sequence[Result],
    metric: str,
    their_metric: str | None = None,
    *,
    card: TaskSpec | None = None,
    their_card: TaskSpec | None = None,
) -> PairedResults:
    """Join two methods on their images.

    Training seeds that only one of them has are left out. A method that is not trained meets each seed of the other.

    Args:
        ours: results of one method, one for each training seed.
        theirs: results of the other method.
        metric: name of the metric.
        their_metric: another metric for `theirs`.
        card: the task card; by default the bundled one.
        their_card: only when `theirs` is deliberately scored by another protocol on the same images, with a head of
            its own.

    Raises:
        UsageError: when results cannot be joined; it names the field in which they differ.
    """
    card = card or get_task(ours[0].task.name)
    for result in ours:
        _check_card(result, card)
    for result in theirs:
        _check_card(result, their_card or card)
    for result in [*ours[1:], *theirs]:
        _check_data(ours[0], result, revision=their_card is None)
    ours, theirs = as_seeds(ours), as_seeds(theirs)
    # With two protocols the two heads are fitted on different images by design.
    for with_one_head in [[*ours, *theirs]] if their_card is None else [ours, theirs]:
        _check_fit(with_one_head)
    ours, theirs = _pairs_of_seeds(ours, theirs)
    sides = (
        ComparedMethod(tuple(ours), metric, card),
        ComparedMethod(tuple(theirs), their_metric or metric, their_card or card),
    )
    return _join(*sides)


def _check_card(result: Result, card: TaskSpec) -> None:
    """Raise UsageError when a result was made with another protocol; name the parts of the signature that differ."""
    if result.task.hash == card.hash:
        return
    parts_of_result = [part for part in result.task.signature.split("│") if not part.startswith(_MODEL_PART)]
    parts_of_card = [part for part in card.signature("").split("│") if not part.startswith(_MODEL_PART)]
    missing = [part for part in parts_of_card if part not in parts_of_result]
    extra = [part for part in parts_of_result if part not in parts_of_card]
    if extra and missing:
        field = f"signature has {', '.join(extra)}, not {', '.join(missing)}"
    elif extra:
        field = f"signature has {', '.join(extra)}, which the card does not have"
    else:
        field = f"signature lacks {', '.join(missing)}"
    if result.task.name != card.name:
        field = f"task is {result.task.name}, not {card.name}"
    elif not missing and not extra:
        field = f"task hash is {result.task.hash[:8]}, not {card.hash[:8]} (another version of the card)"
    raise UsageError(f"{where(result)}: {field}; only one protocol can be compared, evaluate again or name others")


def _check_data(first: Result, other: Result, *, revision: bool) -> None:
    """Raise UsageError when two results are not of the same images. revision: whether that has to be equal as well."""
    fields = ["kind", "limit", "split", "stand_in_seed", *(["revision"] if revision else []), "ids_sha256"]
    for name in fields:
        here, there = getattr(other.data, name), getattr(first.data, name)
        if here != there:
            raise UsageError(
                f"{where(other)}: data.{name} is {here}, that of {first.model.name} is {there}; "
                "compare results of the same images"
            )


def _check_fit(results: Sequence[Result]) -> None:
    """Raise UsageError when heads or banks were fitted on different images. A field without a record matches any."""
    for name in ("head", "kind", "split", "revision", "ids_sha256", "samples"):
        values = [(result, getattr(result.fit, name)) for result in results if result.fit is not None]
        # Results of format 1 have None here.
        recorded = [(result, value) for result, value in values if value is not None]
        for other, there in recorded[1:]:
            first, here = recorded[0]
            if there != here:
                raise UsageError(
                    f"{where(other)}: fit.{name} is {there}, that of {first.model.name} is {here}; "
                    "compare results whose heads were fitted on the same images"
                )


def _pairs_of_seeds(ours: Sequence[Result], theirs: Sequence[Result]) -> tuple[Sequence[Result], Sequence[Result]]:
    """Two lists of equal length: results with the same training seed, or an untrained method repeated for each seed."""
    if any(len(side) == 1 and side[0].model.training_seed is None for side in (ours, theirs)):
        most = max(len(ours), len(theirs))
        return list(ours) * (most // len(ours)), list(theirs) * (most // len(theirs))
    if len(ours) == len(theirs) == 1:
        return ours, theirs  # two checkpoints, such as `dias:1` and `dias:2`: nothing is claimed about the methods
    of_ours, of_theirs = ({result.model.training_seed: result for result in side} for side in (ours, theirs))
    common = [seed for seed in of_ours if seed in of_theirs]
    if not common:
        first, second = (", ".join(str(result.model.training_seed) for result in side) for side in (ours, theirs))
        raise UsageError(
            f"{ours[0].model.name} and {theirs[0].model.name}: no training seed in common ({first} against {second}); "
            "seeds are paired by number, evaluate one side again with --training-seed"
        )
    return [of_ours[seed] for seed in common], [of_theirs[seed] for seed in common]


def _join(ours: ComparedMethod, theirs: ComparedMethod) -> PairedResults:
    """Keep the images that count in every result: scored everywhere and, for an average, with a value everywhere."""
    sides = [(side, result) for side in (ours, theirs) for result in side.results]
    tables = [_rows(side, result) for side, result in sides]
    scored = set.intersection(*(set(table["id"]) for table in tables))
    means = all(_is_mean(side, table) for (side, _), table in zip(sides, tables, strict=True))
    valid = scored
    # A metric of a whole set has no value of a single image that could be missing.
    if means:
        columns = (table.dropna(subset=[side.metric]) for (side, _), table in zip(sides, tables, strict=True))
        valid = set.intersection(*(set(table["id"]) for table in columns))
    if not valid:
        raise UsageError(
            f"{ours.name} and {theirs.name}: no image of task '{ours.card.name}' has {ours.metric} in all results"
        )
    tables = [table[table["id"].isin(valid)].sort_values(["id", "noise_seed"]) for table in tables]
    values = None
    if means:
        flat = [
            table.groupby("id", sort=True)[side.metric].mean() for (side, _), table in zip(sides, tables, strict=True)
        ]
        values = np.array(flat, dtype=np.float64).reshape(2, len(ours.results), -1)
    half = len(ours.results)
    attempted = max(result.counts.attempted for _, result in sides)
    failed = len({failure.id for _, result in sides for failure in result.counts.failed})
    without = attempted - failed - len(valid)
    rows = tuple(tables[:half]), tuple(tables[half:])
    return PairedResults(ours, theirs, rows, values, tuple(sorted(valid)), failed, without)


def _rows(side: ComparedMethod, result: Result) -> pandas.DataFrame:
    """The rows of a result. Raises UsageError when it has no value of the metric."""
    if side.metric not in result.metrics:
        raise UsageError(
            f"{result.model.name}: no metric '{side.metric}' in its result; it has {', '.join(result.metrics)}"
        )
    if result.metrics[side.metric].value is None:
        raise UsageError(f"{result.model.name}: {side.metric} is valid on no image; compare another metric")
    return rows_of(result)


def _is_mean(side: ComparedMethod, rows: pandas.DataFrame) -> bool:
    """Whether the metric is the average of its own column over images."""
    # Some metrics of a whole set also have a column with values per image. Only the number tells: their value on all
    # images is not the average of the column.
    try:
        statistic = set_statistic(rows, side.card, side.metric)
    except (LookupError, TypeError, ValueError) as error:
        text = f"its per-image rows lack what {side.metric} is computed from ({error})"
        raise UsageError(f"{side.name}: {text}; evaluate again") from error
    if statistic is None:
        if side.metric not in rows:
            raise UsageError(f"{side.name}: its per-image rows have no column '{side.metric}'; evaluate again")
        return True
    if side.metric not in rows or rows[side.metric].isna().all():
        return False
    images = rows.groupby("id", sort=True)[side.metric].mean()
    whole = statistic(np.ones((1, len(images)), dtype=np.int64))[0]
    return bool(np.isclose(whole, images.mean(), rtol=0, atol=1e-12))


def _mean(values: NDArray[np.float64]) -> Statistic:
    """The weighted average of values (n,) as a function of weights (R, n)."""
    return lambda weights: weights @ values / weights.sum(axis=1)


def _signed(statistic: Statistic, sign: int) -> Statistic:
    return lambda weights: sign * statistic(weights)
