"""Two methods on the same images: what is joined, what is refused, and what is left out."""

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
from ...metrics.statistics import (
    Difference,
    Statistic,
    paired_difference,
    paired_statistic_difference,
    two_level_statistic_difference,
)
from ...results.record import Result
from ...results.store import rows_of, where

if TYPE_CHECKING:
    import pandas

ENOUGH_SEEDS = 3
"""Training seeds of a trained method below which nothing is said about the method."""
_MODEL_PART = ("mask:", "from:")  # of a signature: where the model's part comes from, not the protocol


@dataclass(frozen=True)
class ComparedMethod:
    """One method: its results, one for each training seed, the metric and the card that it is scored by."""

    results: tuple[Result, ...]
    metric: str
    card: TaskSpec

    @property
    def name(self) -> str:
        """The method without its training seed, or with it when it is a single one."""
        first = self.results[0].model.name
        return first if len(self.results) == 1 else first.partition(":")[0]

    @property
    def trained(self) -> bool:
        """Whether another training would give another model: all but floors and ceilings, a user's own model too."""
        return self.results[0].model.role not in ("floor", "ceiling")

    @property
    def seeds(self) -> tuple[int, ...]:
        """Training seeds, empty for floors and for models whose seed nobody recorded."""
        return tuple(one.model.training_seed for one in self.results if one.model.training_seed is not None)


@dataclass(frozen=True)
class PairedResults:
    """Results of two methods, paired by training seed, on the images that count for all of them.

    rows: of each side and pair, sorted by image. values: (2, S, n) per image, None for a metric that is no mean of
    them. failed: images that a model could not be scored on; without_value: those on which a metric is not valid.
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
        """1 when larger is better, -1 when smaller is."""
        return self.ours.results[0].metrics[self.ours.metric].direction

    @property
    def n(self) -> int:
        """Images (or videos) that count."""
        return len(self.ids)

    @property
    def enough_seeds(self) -> bool:
        """Whether there are enough seed pairs to speak about the methods; floors are no draw of a training."""
        return all(len(set(side.seeds)) >= ENOUGH_SEEDS for side in (self.ours, self.theirs) if side.trained)

    @cached_property
    def statistics(self) -> tuple[list[Statistic], list[Statistic]]:
        """Of each side and pair the metric as a function of image weights."""
        return self._side_statistics(0), self._side_statistics(1)

    def _side_statistics(self, index: int) -> list[Statistic]:
        if self.values is not None:
            return [_mean(values) for values in self.values[index]]
        side = (self.ours, self.theirs)[index]
        found = [set_statistic(rows, side.card, side.metric) for rows in self.rows[index]]
        return [one for one in found if one is not None]

    def value(self, index: int) -> float:
        """The metric of one side (0 or 1) on these images, mean over its results."""
        one = np.ones((1, self.n), dtype=np.int64)
        return float(np.mean([statistic(one)[0] for statistic in self.statistics[index]]))

    def difference(self) -> Difference:
        """Ours minus theirs, positive always better for ours: over images, and over seed pairs if there are several."""
        first, second = ([_signed(one, self.direction) for one in side] for side in self.statistics)
        if len(first) > 1:
            return two_level_statistic_difference(first, second, self.n)
        if self.values is not None:
            found = paired_difference(self.direction * self.values[0, 0], self.direction * self.values[1, 0])
        else:
            found = paired_statistic_difference(first[0], second[0], self.n)
        return replace(found, seed_signs=() if np.isnan(found.mean) else (int(np.sign(found.mean)),))

    def image_differences(self) -> NDArray[np.float64] | None:
        """(n,) differences of the images, means over seed pairs; None where the metric is no mean over images."""
        return None if self.values is None else self.direction * (self.values[0] - self.values[1]).mean(axis=0)

    def swappable(self) -> list[Statistic] | None:
        """For each pair the metric on weights (R, 2n) of our images, then theirs; None where images cannot be swapped.

        Scores of two models share no scale, and clusters no names, so that average precision and matched clusters of a
        mixture mean nothing; nor do mixtures of two protocols or of unequal noise seeds.
        """
        import pandas

        from ...metrics.semantic_set import NAMED

        same = (self.ours.card.hash, self.ours.metric) == (self.theirs.card.hash, self.theirs.metric)
        if not same or self.ours.metric.removeprefix("probe_").startswith("ap_"):
            return None
        found = []
        for ours, theirs in zip(*self.rows, strict=True):
            both = pandas.concat([ours.assign(id="0" + ours["id"]), theirs.assign(id="1" + theirs["id"])])
            named = "clusters" not in both or (both["clusters"] == NAMED).all()
            if not named or set(ours["noise_seed"]) != set(theirs["noise_seed"]):
                return None
            found.append(set_statistic(both, self.ours.card, self.ours.metric))
        return [one for one in found if one is not None]


def pair(
    ours: Sequence[Result],
    theirs: Sequence[Result],
    metric: str,
    their_metric: str | None = None,
    *,
    card: TaskSpec | None = None,
    their_card: TaskSpec | None = None,
) -> PairedResults:
    """Join two methods on their images. Training seeds that only one of them has are left out; a floor meets each seed.

    card: the task's, by default the bundled one of that name. their_card: only where theirs is deliberately scored by
    another protocol on the same images, with a head of its own. Raises UsageError naming the field in which results
    differ.
    """
    card = card or get_task(ours[0].task.name)
    for one in ours:
        _check_card(one, card)
    for one in theirs:
        _check_card(one, their_card or card)
    for one in [*ours[1:], *theirs]:
        _check_data(ours[0], one, revision=their_card is None)
    for side in (ours, theirs):
        _check_method(side)
    for together in [[*ours, *theirs]] if their_card is None else [ours, theirs]:
        _check_fit(together)
    ours, theirs = _paired(ours, theirs)
    sides = (
        ComparedMethod(tuple(ours), metric, card),
        ComparedMethod(tuple(theirs), their_metric or metric, their_card or card),
    )
    return _join(*sides)


def _check_card(result: Result, card: TaskSpec) -> None:
    if result.task.hash == card.hash:
        return
    theirs = [part for part in result.task.signature.split("│") if not part.startswith(_MODEL_PART)]
    parts = [part for part in card.signature("").split("│") if not part.startswith(_MODEL_PART)]
    wanted = [part for part in parts if part not in theirs]
    got = [part for part in theirs if part not in parts]
    field = f"signature has {', '.join(got) or 'less'}, not {', '.join(wanted) or 'more'}"
    if result.task.name != card.name:
        field = f"task is {result.task.name}, not {card.name}"
    elif not wanted and not got:
        field = f"task hash is {result.task.hash[:8]}, not {card.hash[:8]} (another version of the card)"
    raise UsageError(f"{where(result)}: {field}; only one protocol can be compared, evaluate again or name others")


def _check_data(first: Result, other: Result, *, revision: bool) -> None:
    fields = ["kind", "limit", "split", "stand_in_seed", *(["revision"] if revision else []), "ids_sha256"]
    for name in fields:
        here, there = getattr(other.data, name), getattr(first.data, name)
        if here != there:
            raise UsageError(
                f"{where(other)}: data.{name} is {here}, that of {first.model.name} is {there}; "
                "compare results of the same images"
            )


def _check_fit(results: Sequence[Result]) -> None:
    """Heads and banks were fitted on the same images. Results of format 1 do not say so and join any."""
    for name in ("head", "kind", "split", "revision", "ids_sha256", "samples"):
        said = [(one, getattr(one.fit, name)) for one in results if one.fit is not None]
        known = [(one, value) for one, value in said if value is not None]
        for other, there in known[1:]:
            first, here = known[0]
            if there != here:
                raise UsageError(
                    f"{where(other)}: fit.{name} is {there}, that of {first.model.name} is {here}; "
                    "compare results whose heads were fitted on the same images"
                )


def _check_method(results: Sequence[Result]) -> None:
    """Results of one side are training seeds of one method: one name, one set of options, one checkpoint for each."""
    first, owners = results[0], dict[str, Result]()
    for one in results:
        if one.model.name.partition(":")[0] != first.model.name.partition(":")[0]:
            raise UsageError(f"{where(one)}: model.name is not of {first.model.name}; one side is one method")
        if one.model.options != first.model.options:
            field = f"model.options are {one.model.options}, those of {first.model.name} are {first.model.options}"
            raise UsageError(f"{where(one)}: {field}; training seeds of one method share them")
        owner = owners.setdefault(one.model.checkpoint_sha256, one)
        if one.model.checkpoint_sha256 and one.model.training_seed != owner.model.training_seed:
            field = f"model.checkpoint_sha256 is that of {owner.model.name}, too"
            raise UsageError(f"{where(one)}: {field}; another training seed is another checkpoint")


def _paired(ours: Sequence[Result], theirs: Sequence[Result]) -> tuple[Sequence[Result], Sequence[Result]]:
    """As many results of either: a method that is not trained meets each seed, others are joined by their seeds."""
    if any(len(side) == 1 and side[0].model.training_seed is None for side in (ours, theirs)):
        most = max(len(ours), len(theirs))
        return list(ours) * (most // len(ours)), list(theirs) * (most // len(theirs))
    if len(ours) == len(theirs) == 1:
        return ours, theirs  # two checkpoints, such as `dias:1` and `dias:2`: nothing is claimed about the methods
    seeds_a, seeds_b = ({one.model.training_seed: one for one in side} for side in (ours, theirs))
    common = [seed for seed in seeds_a if seed in seeds_b]
    if not common:
        raise UsageError(f"{ours[0].model.name} and {theirs[0].model.name}: no training seed in common")
    return [seeds_a[seed] for seed in common], [seeds_b[seed] for seed in common]


def _join(ours: ComparedMethod, theirs: ComparedMethod) -> PairedResults:
    sides = [(side, one) for side in (ours, theirs) for one in side.results]
    tables = [_rows(side, one) for side, one in sides]
    scored = set.intersection(*(set(table["id"]) for table in tables))
    means = all(_is_mean(side, table) for (side, _), table in zip(sides, tables, strict=True))
    valid = scored
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
    attempted = max(one.counts.attempted for _, one in sides)
    failed = len({failure.id for _, one in sides for failure in one.counts.failed})
    without = attempted - failed - len(valid)
    rows = tuple(tables[:half]), tuple(tables[half:])
    return PairedResults(ours, theirs, rows, values, tuple(sorted(valid)), failed, without)


def _rows(side: ComparedMethod, result: Result) -> pandas.DataFrame:
    if side.metric not in result.metrics:
        raise UsageError(
            f"{result.model.name}: no metric '{side.metric}' in its result; it has {', '.join(result.metrics)}"
        )
    if result.metrics[side.metric].value is None:
        raise UsageError(f"{result.model.name}: {side.metric} is valid on no image; compare another metric")
    return rows_of(result)


def _is_mean(side: ComparedMethod, rows: pandas.DataFrame) -> bool:
    """Whether the metric is the mean of its own column; that of a whole set is not, even if it has such a column."""
    statistic = set_statistic(rows, side.card, side.metric)
    if statistic is None:
        return True
    if side.metric not in rows or rows[side.metric].isna().all():
        return False
    images = rows.groupby("id", sort=True)[side.metric].mean()
    whole = statistic(np.ones((1, len(images)), dtype=np.int64))[0]
    return bool(np.isclose(whole, images.mean(), rtol=0, atol=1e-12))


def _mean(values: NDArray[np.float64]) -> Statistic:
    return lambda weights: weights @ values / weights.sum(axis=1)


def _signed(statistic: Statistic, sign: int) -> Statistic:
    return lambda weights: sign * statistic(weights)
