"""The parts of a leaderboard, and how its rows are ranked.

Rows are ranked only within one group: same task card, same data (kind, revision, sample ids), same supervision, same
privilege, and a head that was fitted on the same data.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from ...core.remembered import remembered
from ...metrics.statistics import bootstrap_mean, paired_difference
from ...metrics.statistics_of_set import bootstrap_statistic, paired_statistic_difference
from ...results.published import PublishedTable
from ...results.ranks_with import Reference
from .facts import Facts, common_facts
from .measured import Measured

UNRANKED_ROLES = ("floor", "ceiling")
NO_MAIN = "-"
"""Rank of a row whose main metric does not apply to the model."""
_KINDS = ("official", "embedded", "supplied")


@dataclass(frozen=True, order=True)
class Group:
    """What rows must share to be ranked against each other. fit: what the head was fitted on, '' without a head."""

    kind: str
    revision: str
    ids_sha256: str
    supervision: str
    privilege: str
    fit: str = ""

    @property
    def place(self) -> tuple[int, str, str, int, int, str]:
        """Sort key: official data first, then the least supervision and privilege."""
        strength = ("none", "boxes", "masks", "truth", "undeclared")
        order = _KINDS.index(self.kind), self.revision, self.ids_sha256
        return *order, strength.index(self.supervision), strength.index(self.privilege), self.fit


@dataclass(frozen=True)
class BoardCell:
    """One number. low, high: 95 % interval over images; sd: sample deviation over training seeds."""

    value: float
    low: float | None = None
    high: float | None = None
    sd: float | None = None
    n_valid: int | None = None


@dataclass(frozen=True)
class Row:
    """One row of a board: one result, or the mean over the training seeds of one method.

    Attributes:
        model: printed name.
        base: card name without the training seed.
        card: name of the bundled card, '' for a model of a user.
        cells: value and interval by metric; a metric without a value has no cell.
        options: model options as JSON, '' for none.
        signature: protocol in one line.
        identity: base, options, hashes of weights and code, and dtype. Results that agree in them are repeats of one
            measurement.
        method: what training seeds of one method share (`results.seeds`), as one text.
        arrays: hash of parameters and buffers alone; '' where it was not recorded.
        remark: what a reader has to know about the row; '' for nothing.
        measured: values per image and metrics of the whole set.
        rank: place in the group, or `floor`, `ceiling`, `seed`, `-`.
        tied_with_best: whether the paired 95 % interval of the best row minus this one includes 0; None if not tested.
        seeds: the rows of the single training seeds when this row is their mean.
    """

    model: str
    base: str
    role: str
    privilege: str
    group: Group
    cells: dict[str, BoardCell]
    training_seeds: tuple[int, ...]
    noise_seeds: tuple[int, ...]
    options: str
    signature: str
    version: str
    command: str
    source: str
    created: str
    identity: tuple[str, ...]
    method: str
    measured: Measured = field(repr=False, compare=False)
    facts: Facts = field(default_factory=Facts, compare=False)
    card: str = ""
    arrays: str = ""
    remark: str = ""
    rank: str = ""
    tied_with_best: bool | None = None
    seeds: tuple[Row, ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True)
class Excluded:
    """A result that is not ranked, with the reason."""

    model: str
    source: str
    reason: str


@dataclass(frozen=True)
class Board:
    """The board of one task. direction: 1 when a larger main metric is better, -1 when a smaller one is."""

    task: Reference
    direction: int
    groups: tuple[tuple[Group, tuple[Row, ...]], ...]
    excluded: tuple[Excluded, ...]
    published: PublishedTable | None


def rank(rows: Sequence[Row], main: str, direction: int) -> list[Row]:
    """Rank the rows of one group, best first, with the rows of single training seeds below their mean.

    Equal values share a rank. Floors and ceilings get their role instead of a rank and do not count for the others.

    Args:
        rows: rows of one group.
        main: metric to rank by.
        direction: 1 when larger is better, -1 when smaller is.
    """
    rows = _distinct_names(_with_seed_means(rows))
    without = sorted((row for row in rows if main not in row.cells), key=lambda row: row.model)
    rows = [row for row in rows if main in row.cells]
    rows.sort(key=lambda row: (-direction * row.cells[main].value, row.model))
    ranked = [row for row in rows if row.role not in UNRANKED_ROLES]
    # Ranked against models only: a floor that beats a model does not push it down.
    places: dict[float, int] = {}
    for place, row in enumerate(ranked, start=1):
        places.setdefault(row.cells[main].value, place)
    out: list[Row] = []
    for row in [*rows, *without]:
        if row.role in UNRANKED_ROLES:
            out.append(replace(row, rank=row.role))
        elif main not in row.cells:
            out.append(replace(row, rank=NO_MAIN))
        else:
            place = places[row.cells[main].value]
            out.append(replace(row, rank=str(place), tied_with_best=_tied(ranked[0], row, main, direction)))
        out += [replace(seed, rank="seed") for seed in sorted(row.seeds, key=lambda seed: seed.training_seeds)]
    return out


def _with_seed_means(rows: Sequence[Row]) -> list[Row]:
    """Replace rows that are training seeds of one method by their mean; other rows stay as they are."""
    methods: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        # Without a recorded training seed two checkpoints may be anything, and each stays a method of its own.
        key = (row.method, row.noise_seeds, () if row.training_seeds else row.identity)
        methods.setdefault(key, []).append(row)
    out: list[Row] = []
    for seeds in methods.values():
        out += [_seed_mean(seeds)] if _are_seeds(seeds) else _with_copies(seeds)
    return out


def _with_copies(rows: Sequence[Row]) -> list[Row]:
    """The rows of one method, with a remark on those that are another row's training under another seed."""
    first: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: row.training_seeds):
        first.setdefault(row.arrays, row)
    out = []
    for row in rows:
        original = first[row.arrays]
        if row.arrays and original.training_seeds != row.training_seeds:
            text = f"no other training seed: its parameters and buffers are those of {original.model}"
            row = replace(row, remark=f"{row.remark}; {text}" if row.remark else text)
        out.append(row)
    return out


def _are_seeds(rows: Sequence[Row]) -> bool:
    """Whether these are two or more rows with different training seeds, and with different weights where known."""
    weights = [row.identity[2] for row in rows if row.identity[2]]
    arrays = [row.arrays for row in rows if row.arrays]
    # A copied checkpoint under another seed would count as a second, equal training.
    other = len(set(weights)) == len(weights) and len(set(arrays)) == len(arrays)
    return len({row.training_seeds for row in rows}) == len(rows) > 1 and other


def _seed_mean(seeds: Sequence[Row]) -> Row:
    """The row of a method: mean and sample deviation over training seeds, with the interval of the mean over images."""
    measured = Measured.of_seeds([row.measured for row in seeds])
    cells = {}
    for name in seeds[0].cells:
        if all(name in row.cells for row in seeds):
            numbers = [row.cells[name].value for row in seeds]
            low, high, n_valid = remembered("intervals", [measured.key, name], partial(_interval, measured, name))
            n_valid = seeds[0].cells[name].n_valid if n_valid is None else n_valid
            cells[name] = BoardCell(float(np.mean(numbers)), low, high, float(np.std(numbers, ddof=1)), n_valid)
    first = min(seeds, key=lambda row: row.training_seeds)
    return replace(
        first,
        model=f"{first.base} (mean of {len(seeds)} training seeds)",
        cells=cells,
        training_seeds=tuple(sorted(seed for row in seeds for seed in row.training_seeds)),
        command="",
        source="",
        measured=measured,
        facts=common_facts([row.facts for row in seeds]),
        seeds=tuple(seeds),
    )


def _interval(measured: Measured, metric: str) -> tuple[float, float, int | None]:
    """Interval of a mean over training seeds, and the images that are valid for all; None for a metric of the set.

    The average precision of averaged images is not the average of precisions, so a metric of the whole set is computed
    again for each resample of images.
    """
    if measured.is_of_set(metric):
        _, interval = bootstrap_statistic(measured.statistic(metric), len(measured.ids()))
        return interval.low, interval.high, None
    values = measured.values(metric)  # NaN in one seed makes the mean NaN: an image counts where it is valid for all
    interval = bootstrap_mean(values.to_numpy())
    return interval.low, interval.high, int(values.notna().sum())


def _distinct_names(rows: Sequence[Row]) -> list[Row]:
    """Append to rows with equal names the options that differ, or the start of the checkpoint's hash."""
    of_name: dict[str, list[Row]] = {}
    for row in rows:
        of_name.setdefault(row.model, []).append(row)
    out = []
    for row in rows:
        twins = of_name[row.model]
        if len(twins) == 1:
            out.append(row)
            continue
        options = [json.loads(twin.options or "{}") for twin in twins]
        options_of_row = json.loads(row.options or "{}")
        differing = {
            key: value
            for key, value in sorted(options_of_row.items())
            if any(options_of_twin.get(key) != value for options_of_twin in options)
        }
        suffix = json.dumps(differing) if differing else _short_hash(row, twins)
        out.append(replace(row, model=f"{row.model} {suffix}"))
    return out


def _short_hash(row: Row, twins: Sequence[Row]) -> str:
    """The start of the hash that tells a row from others of its name: of its weights, else of its code."""
    _, _, weights, code, _ = row.identity
    unique = sum(twin.identity[2] == weights for twin in twins) == 1
    return (weights if unique or not code else code)[:8] or "default options"


def _tied(best: Row, row: Row, metric: str, direction: int) -> bool | None:
    """Whether the paired 95 % interval of best minus row includes 0; None with fewer than two shared images.

    The interval of the best row with itself is [0, 0], therefore the best row is always marked.
    """
    parts = [best.measured.key, row.measured.key, metric, direction]
    tied: bool | None = remembered("ties", parts, partial(_compare, best.measured, row.measured, metric, direction))
    return tied


def _compare(best: Measured, row: Measured, metric: str, direction: int) -> bool | None:
    if best.is_of_set(metric):
        if not best.ids().equals(row.ids()):
            return None  # weights of images have no meaning for rows of other images
        better, worse = (best, row) if direction > 0 else (row, best)
        gap = paired_statistic_difference(better.statistic(metric), worse.statistic(metric), len(best.ids()))
        return None if np.isnan(gap.low) else bool(gap.low <= 0)
    pairs = best.values(metric).to_frame("best").join(row.values(metric), how="inner").dropna()
    if len(pairs) < 2:
        return None
    difference = paired_difference(*(direction * pairs[column].to_numpy() for column in pairs.columns))
    return bool(difference.low <= 0)
