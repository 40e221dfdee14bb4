"""Bootstrap intervals, paired tests and the correction for several claims.

Percentile bootstrap as in scipy (Efron and Tibshirani 1993), 2000 resamples, seed 0, in blocks that fit into the cache
of a processor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000
PERMUTATIONS = 10_000
CONFIDENCE = 0.95
BLOCK_BYTES = 1_000_000
"""Memory that one block of resamples takes: about the second-level cache of a processor core."""
KEPT_BYTES = 64_000_000
"""Most memory of the drawn images that are kept for the next metric."""
_BYTES_PER_DRAW = 24  # an int64 index, a float64 value, and a copy or a count
_ROWS = 16  # a block has a multiple of these: BLAS adds the rows of a product in groups, and no bit may change
ROUNDING = 1e-12  # a draw that equals the measured value up to rounding counts as equally extreme


@dataclass(frozen=True)
class Interval:
    """A confidence interval [low, high] and the bootstrap standard error; NaN where n < 2."""

    low: float
    high: float
    se: float


@dataclass(frozen=True)
class Difference:
    """A difference a - b with its interval and two-sided bootstrap p-value.

    Attributes:
        mean: the difference itself.
        low: lower end of the confidence interval; `high` is the upper end.
        se: bootstrap standard error.
        p_value: two-sided bootstrap p-value.
        n: number of images.
        seed_signs: sign of the difference of each training-seed pair; empty for a comparison of two results.
    """

    mean: float
    low: float
    high: float
    se: float
    p_value: float
    n: int
    seed_signs: tuple[int, ...] = ()

    @property
    def sign(self) -> int:
        """1 or -1 when the interval excludes 0 and all seed pairs agree with the mean, else 0."""
        wanted = 1 if self.mean > 0 else -1
        excludes = self.low > 0 or self.high < 0
        return wanted if excludes and all(sign == wanted for sign in self.seed_signs) else 0

    @property
    def verdict(self) -> str:
        """`better` or `worse` when the interval excludes 0 and all of at least 3 seed pairs agree, else `undecided`."""
        if len(self.seed_signs) < 3 or not self.sign:
            return "undecided"
        return "better" if self.sign > 0 else "worse"

    @property
    def not_below(self) -> bool:
        """True when the lower bound of the paired interval is above -0.02."""
        return self.low > -0.02


def bootstrap_mean(
    values: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0, confidence: float = CONFIDENCE
) -> Interval:
    """Percentile bootstrap of the mean of values.

    Args:
        values: (n,) values of images; NaN entries (not valid) are left out first.
        resamples: number of bootstrap resamples.
        seed: of their random numbers.
        confidence: level of the interval.

    Returns:
        The interval and the standard error; NaN for fewer than two values.

    Example:
        >>> interval = bootstrap_mean([0.5, 0.7, 0.6, 0.9])
        >>> round(interval.low, 2), round(interval.high, 2), round(interval.se, 2)
        (0.55, 0.83, 0.07)
    """
    data = np.asarray(values, dtype=np.float64)
    data = data[~np.isnan(data)]
    if data.size < 2:
        return Interval(np.nan, np.nan, np.nan)
    outcome = _bootstrap(data, resamples, seed, confidence)
    interval = outcome.confidence_interval
    return Interval(float(interval.low), float(interval.high), float(outcome.standard_error))


def paired_difference(
    a: ArrayLike, b: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0, confidence: float = CONFIDENCE
) -> Difference:
    """Mean of a - b over the images that are valid in both.

    Args:
        a: (n,) values of images; NaN is not valid.
        b: (n,) values of the same images in the same order.
        resamples: as `seed` and `confidence` in `bootstrap_mean`.

    Raises:
        ValueError: for values that are not two rows of one length.

    Example:
        >>> difference = paired_difference([0.5, 0.7, 0.6, 0.9], [0.4, 0.6, 0.6, 0.7])
        >>> round(difference.mean, 3), round(difference.low, 3), round(difference.high, 3), difference.sign
        (0.1, 0.025, 0.175, 1)
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"paired values need one shape (n,), got {first.shape} and {second.shape}")
    difference = (first - second)[~np.isnan(first - second)]
    mean = float(difference.mean()) if difference.size else np.nan
    if difference.size < 2:
        return Difference(mean, np.nan, np.nan, np.nan, np.nan, difference.size)
    outcome = _bootstrap(difference, resamples, seed, confidence)
    interval = outcome.confidence_interval
    return Difference(
        mean,
        float(interval.low),
        float(interval.high),
        float(outcome.standard_error),
        two_sided_p_value(outcome.bootstrap_distribution),
        difference.size,
    )


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm-adjusted p-values (Holm 1979) of several claims: step-down, monotone, at most 1.

    Example:
        >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
        {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    ordered = sorted(p_values.items(), key=lambda item: item[1])
    adjusted: dict[str, float] = {}
    running = 0.0
    for position, (name, p_value) in enumerate(ordered):
        running = max(running, min(1.0, (len(ordered) - position) * p_value))
        adjusted[name] = running
    return {name: adjusted[name] for name in p_values}


def _bootstrap(data: NDArray[np.float64], resamples: int, seed: int, confidence: float) -> SimpleNamespace:
    """Scipy's percentile bootstrap of the mean of data (n,), to the bit: its fields that are used here.

    Scipy is not called: it draws the same images again for each metric, and its import takes longer than the intervals.
    """
    means = np.concatenate([np.take(data, drawn).mean(-1) for drawn in drawn_images(data.size, resamples, seed)])
    tail = (1 - confidence) / 2
    low, high = _quantile(means, tail), _quantile(means, 1 - tail)
    return SimpleNamespace(
        confidence_interval=SimpleNamespace(low=low, high=high),
        standard_error=np.std(means, ddof=1),
        bootstrap_distribution=means,
    )


def _quantile(values: NDArray[np.float64], share: float) -> float:
    """The linear quantile of values (n,), rounded as `scipy.stats.quantile` does; `numpy.quantile` rounds otherwise."""
    n = values.size
    place = share * n + (1 - share)  # counted from 1
    below = int(place // 1) - 1
    rest = place % 1
    ordered = np.sort(values)
    return float((1 - rest) * ordered[below] + rest * ordered[min(below + 1, n - 1)])


def drawn_images(n: int, resamples: int, seed: int, block: int | None = None) -> Iterator[NDArray[np.integer]]:
    """Numbers of n images drawn with replacement, (R, n) in blocks of `block` bytes, by default `BLOCK_BYTES`."""
    step = rows_per_block(_BYTES_PER_DRAW * n, block)
    if resamples * n * np.min_scalar_type(n).itemsize <= KEPT_BYTES:
        yield from np.split(_kept(n, resamples, seed), range(step, resamples, step))
    else:
        yield from _drawn(n, resamples, seed, step)


@lru_cache(maxsize=1)  # most metrics of a result are valid on the same number of images
def _kept(n: int, resamples: int, seed: int) -> NDArray[np.integer]:
    """All drawn images at once, in the smallest integers that number them."""
    blocks = _drawn(n, resamples, seed, rows_per_block(_BYTES_PER_DRAW * n))
    drawn = np.concatenate([block.astype(np.min_scalar_type(n)) for block in blocks])
    drawn.flags.writeable = False
    return drawn


def _drawn(n: int, resamples: int, seed: int, step: int) -> Iterator[NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, step):
        yield rng.integers(0, n, (min(step, resamples - start), n))


def rows_per_block(row_bytes: int, block: int | None = None) -> int:
    """Number of rows of a block; no bit of a product with it depends on the size."""
    return max(1, (BLOCK_BYTES if block is None else block) // (_ROWS * row_bytes)) * _ROWS


def two_sided_p_value(means: NDArray[np.float64]) -> float:
    """Two-sided bootstrap p-value; the usual +1 keeps it above 0 (Davison and Hinkley 1997, 4.2)."""
    below, above = int((means <= 0).sum()), int((means >= 0).sum())
    return min(1.0, 2 * (min(below, above) + 1) / (means.size + 1))


def sign_flip_p_value(differences: ArrayLike, *, draws: int = PERMUTATIONS, seed: int = 0) -> float:
    """Two-sided p-value of the mean of paired differences (n,), if the two methods are exchangeable on every image.

    Each draw flips every sign with probability 1/2 (Fisher 1935); the +1 keeps it above 0. NaN without differences.

    Example:
        >>> round(sign_flip_p_value([0.1] * 8), 2)  # exactly 2 / 2**8 in the limit of many draws
        0.01
    """
    data = np.asarray(differences, dtype=np.float64)
    if not data.size:
        return np.nan
    rng = np.random.default_rng(seed)
    total = data.sum()
    bound = abs(total) * (1 - ROUNDING)
    step = rows_per_block(_BYTES_PER_DRAW * data.size)
    extreme = 0
    for start in range(0, draws, step):
        positive = rng.integers(0, 2, (min(step, draws - start), data.size), dtype=np.int8)
        # The sum with flipped signs is the positive part minus the rest, that is 2 * positive - total.
        extreme += int((np.abs(2 * (positive @ data) - total) >= bound).sum())
    return (extreme + 1) / (draws + 1)


def effect_size(differences: ArrayLike) -> float:
    """Cohen's d of paired differences (n,), d_z: their mean in units of their sample deviation; NaN where that is 0.

    Example:
        >>> round(effect_size([0.1, 0.2, 0.3]), 3)
        2.0
    """
    data = np.asarray(differences, dtype=np.float64)
    deviation = data.std(ddof=1) if data.size > 1 else 0.0
    return float(data.mean() / deviation) if deviation > 0 else np.nan


def smallest_detectable(se: float, n: int, *, power: float = 0.8, alpha: float = 0.05) -> float:
    """The true difference that a two-sided paired t-test on n images detects with this power (Cohen 1988, chapter 2).

    Args:
        se: standard error of the mean difference: for a mean, the sample deviation / sqrt(n).
        n: number of images.
        power: probability of detection.
        alpha: level of the test.

    Returns:
        A difference in the units of `se`; NaN when n < 2, or when `se` is NaN or 0.

    Example:
        >>> round(smallest_detectable(se=0.01, n=100), 4)
        0.0283
    """
    from scipy.optimize import brentq
    from scipy.stats import nct, t

    if n < 2 or not se > 0:
        return np.nan
    critical = t.ppf(1 - alpha / 2, n - 1)

    def missing(shift: float) -> float:
        wrong_side = np.nan_to_num(nct.cdf(-critical, n - 1, shift))  # scipy gives NaN where it is far below 1e-10
        return float(nct.sf(critical, n - 1, shift) + wrong_side - power)

    return se * float(brentq(missing, 0.0, 1.5 * critical + 5))
