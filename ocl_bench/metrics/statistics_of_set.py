"""Bootstrap intervals and tests of metrics of a whole set, which a mean over images cannot give.

Each resample or permutation redoes matching and accumulation: percentile bootstrap over images (Efron and Tibshirani
1993), 2000 resamples, seed 0, in blocks as in `statistics`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from .statistics import (
    CONFIDENCE,
    RESAMPLES,
    ROUNDING,
    Difference,
    Interval,
    drawn_images,
    rows_per_block,
    two_sided_p_value,
)

_BYTES_PER_WEIGHT = 8
_TWO_LEVEL_BYTES = 200_000_000
"""Memory of a block that is split by seed pair: its parts are of any size, and BLAS adds small ones differently."""

Statistic = Callable[[NDArray[np.int64]], NDArray[np.float64]]
"""A corpus metric as a function of how often each of its n images is drawn: weights (R, n) -> values (R,).

All ones give the value itself; NaN where it is undefined. It redoes matching and accumulation on the weighted set: its
bootstrap is that of the metric, not of a mean of per-image values.
"""

_RESAMPLED: WeakKeyDictionary[Statistic, dict[tuple[int, int, int], NDArray[np.float64]]] = WeakKeyDictionary()


def bootstrap_statistic(
    statistic: Statistic, n: int, *, resamples: int = RESAMPLES, seed: int = 0, confidence: float = CONFIDENCE
) -> tuple[float, Interval]:
    """Value of a corpus metric on its n images, and the percentile bootstrap over images.

    Options are those of `bootstrap_mean`.

    Example:
        >>> right, pixels = np.array([30, 80, 10]), np.array([100, 100, 20])
        >>> value, interval = bootstrap_statistic(lambda weights: weights @ right / (weights @ pixels), n=3)
        >>> round(value, 3), round(interval.low, 3), round(interval.high, 3)
        (0.545, 0.3, 0.8)
    """
    value = float(statistic(np.ones((1, n), dtype=np.int64))[0]) if n else np.nan
    if n < 2 or np.isnan(value):
        return value, Interval(np.nan, np.nan, np.nan)
    return value, _percentile(_resampled(statistic, n, resamples, seed), confidence)


def paired_statistic_difference(
    a: Statistic,
    b: Statistic,
    n: int,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Difference:
    """Difference a - b of a corpus metric on the same n images in the same order; both see the same resamples.

    Options are those of `bootstrap_mean`.

    Example:
        >>> scores, others = np.array([0.5, 0.7, 0.6, 0.9]), np.array([0.4, 0.6, 0.6, 0.7])
        >>> sides = [lambda weights, row=row: weights @ row / weights.sum(1) for row in (scores, others)]
        >>> round(paired_statistic_difference(*sides, n=4).mean, 3)
        0.1
    """
    ones = np.ones((1, n), dtype=np.int64)
    mean = float((a(ones) - b(ones))[0]) if n else np.nan
    if n < 2 or np.isnan(mean):
        return Difference(mean, np.nan, np.nan, np.nan, np.nan, n)
    values = _resampled(a, n, resamples, seed) - _resampled(b, n, resamples, seed)
    interval = _percentile(values, confidence)
    return Difference(mean, interval.low, interval.high, interval.se, two_sided_p_value(values), n)


def mean_statistic(statistics: Sequence[Statistic]) -> Statistic:
    """The mean of several corpus metrics on the same images, such as those of several noise or training seeds."""
    return lambda weights: np.mean([statistic(weights) for statistic in statistics], axis=0)


def _resampled(statistic: Statistic, n: int, resamples: int, seed: int) -> NDArray[np.float64]:
    """Values (resamples,) of a corpus metric on resamples of its n images.

    They are kept while the statistic lives: a board compares the best row with every other one, and a resample of an
    average precision takes a millisecond.
    """
    kept = _RESAMPLED.setdefault(statistic, {})
    if (n, resamples, seed) not in kept:
        values = np.concatenate([statistic(weights) for weights in _drawn(n, resamples, seed)])
        values.flags.writeable = False
        kept[n, resamples, seed] = values
    return kept[n, resamples, seed]


def _drawn(n: int, resamples: int, seed: int, block: int | None = None) -> Iterator[NDArray[np.int64]]:
    """How often each of n images is drawn with replacement, (R, n) counts in the blocks of `drawn_images`."""
    for drawn in drawn_images(n, resamples, seed, block):
        count = len(drawn)
        # The images of resample r are numbered from r * n: one `bincount` counts all resamples of the block.
        numbers = drawn + n * np.arange(count)[:, None]
        yield np.bincount(numbers.reshape(-1), minlength=count * n).reshape(count, n)


def two_level_statistic_difference(
    seeds_a: Sequence[Statistic],
    seeds_b: Sequence[Statistic],
    n: int,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Difference:
    """Difference of two methods over paired training seeds: resample seed pairs, then images within each drawn pair.

    A resample draws as many seed pairs as there are, and images for each; both methods of a pair see the same images.

    Args:
        seeds_a: for each training seed of the first method, the metric as a function of image weights.
        seeds_b: likewise for the second method, in the order of the pairs.
        n: number of images.
        resamples: as `seed` and `confidence` in `bootstrap_mean`.

    Example:
        >>> means = [lambda weights, row=row: weights @ row / weights.sum(1) for row in np.eye(3) + [0, 1, 2]]
        >>> difference = two_level_statistic_difference(means, [lambda weights: np.full(len(weights), 0.5)] * 3, n=3)
        >>> round(difference.mean, 3), difference.seed_signs
        (0.833, (1, 1, 1))
    """
    pairs = list(zip(seeds_a, seeds_b, strict=True))
    ones = np.ones((1, n), dtype=np.int64)
    deltas = np.array([float((a(ones) - b(ones))[0]) for a, b in pairs])
    chosen = np.random.default_rng(seed).integers(0, len(pairs), (resamples, len(pairs)))
    total = np.zeros(resamples)
    for position, drawn in enumerate(chosen.T):
        start = 0
        for weights in _drawn(n, resamples, seed + 1 + position, _TWO_LEVEL_BYTES):
            rows = slice(start, start + len(weights))
            for index, (a, b) in enumerate(pairs):
                here = drawn[rows] == index
                total[rows][here] += a(weights[here]) - b(weights[here])
            start += len(weights)
    values = total / len(pairs)
    interval = _percentile(values, confidence)
    signs = tuple(int(np.sign(delta)) for delta in deltas)
    return Difference(
        float(deltas.mean()), interval.low, interval.high, interval.se, two_sided_p_value(values), n, signs
    )


def swap_p_value(both: Sequence[Statistic], n: int, *, draws: int = RESAMPLES, seed: int = 0) -> float:
    """`sign_flip_p_value` for a metric of the whole set: random images change sides, and both sides are redone.

    Args:
        both: for each pair of training seeds, the metric as a function of the weights (R, 2n) of the n images of the
            first method, then of those of the second. An image changes sides in all pairs together.
        n: number of images.
        draws: random assignments to sides.

    Example:
        >>> scores = np.array([0.5, 0.7, 0.6, 0.9, 0.4, 0.6, 0.6, 0.7])  # of four images by each method
        >>> round(swap_p_value([lambda weights: weights @ scores / weights.sum(1)], n=4), 2)
        0.23
    """
    rng = np.random.default_rng(seed)

    def gap(away: NDArray[np.int64]) -> NDArray[np.float64]:
        first, second = np.concatenate([1 - away, away], axis=1), np.concatenate([away, 1 - away], axis=1)
        return np.mean([statistic(first) - statistic(second) for statistic in both], axis=0)

    bound = abs(float(gap(np.zeros((1, n), dtype=np.int64))[0])) * (1 - ROUNDING)  # nobody changes sides
    if np.isnan(bound):
        return np.nan
    step = rows_per_block(8 * _BYTES_PER_WEIGHT * n)
    extreme = 0
    for start in range(0, draws, step):
        gaps = np.abs(gap(rng.integers(0, 2, (min(step, draws - start), n))))
        extreme += int((~(gaps < bound)).sum())  # NaN, where the metric is undefined, counts as extreme: conservative
    return (extreme + 1) / (draws + 1)


def _percentile(values: NDArray[np.float64], confidence: float) -> Interval:
    """Percentile interval of resampled values; resamples on which the metric is undefined are left out."""
    values = values[~np.isnan(values)]
    if values.size < 2:
        return Interval(np.nan, np.nan, np.nan)
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(float(low), float(high), float(values.std(ddof=1)))
