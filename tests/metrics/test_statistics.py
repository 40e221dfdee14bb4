"""Intervals and tests against scipy, closed forms and brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from ocl_bench.metrics import statistics
from ocl_bench.metrics.statistics import (
    bootstrap_mean,
    effect_size,
    holm,
    paired_difference,
    sign_flip_p_value,
    smallest_detectable,
)
from ocl_bench.metrics.statistics_of_set import (
    Statistic,
    bootstrap_statistic,
    paired_statistic_difference,
    swap_p_value,
    two_level_statistic_difference,
)

VALUES = np.random.default_rng(3).beta(4, 2, 300)


def means(rows: np.ndarray) -> list[Statistic]:
    """For each row of (seeds, n) values their mean, as a function of image weights."""
    return [lambda weights, row=row: weights @ row / weights.sum(axis=1) for row in rows]  # type: ignore[misc]


@pytest.mark.parametrize("count", [2, 3, 8, 301, 1009, 300])
@pytest.mark.parametrize("kept", [statistics.KEPT_BYTES, 0], ids=["kept", "drawn anew"])
@pytest.mark.parametrize("block", [10**9, statistics.BLOCK_BYTES, 1], ids=["at once", "in blocks", "in small blocks"])
def test_bootstrap_is_scipys_percentile_interval(
    count: int, block: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, also when the drawn images are those of the call before."""
    monkeypatch.setattr(statistics, "BLOCK_BYTES", block)
    monkeypatch.setattr(statistics, "KEPT_BYTES", kept)
    statistics._kept.cache_clear()
    for values in (np.resize(VALUES, count), np.resize(VALUES, count)[::-1] ** 2):
        generator = np.random.default_rng(0)
        outcome = stats.bootstrap((values,), np.mean, n_resamples=2000, method="percentile", rng=generator, batch=2000)
        interval = bootstrap_mean(values)
        assert (interval.low, interval.high) == tuple(outcome.confidence_interval)
        assert interval.se == outcome.standard_error


def test_bootstrap_agrees_with_the_normal_theory() -> None:
    interval = bootstrap_mean(VALUES)
    se = VALUES.std(ddof=1) / np.sqrt(VALUES.size)
    assert interval.se == pytest.approx(se, rel=0.1)
    assert interval.low == pytest.approx(VALUES.mean() - 1.96 * se, abs=0.3 * se)
    assert interval.high == pytest.approx(VALUES.mean() + 1.96 * se, abs=0.3 * se)


def test_bootstrap_covers_the_true_mean_about_95_times_in_100() -> None:
    generator = np.random.default_rng(11)
    hits = 0
    for _ in range(200):
        interval = bootstrap_mean(generator.normal(0.5, 0.2, 60), resamples=400)
        hits += interval.low <= 0.5 <= interval.high
    assert 180 <= hits <= 199


def test_bootstrap_of_all_outcomes_of_two_values() -> None:
    """Two values have the resampled means a, (a + b) / 2, b with 1/4, 1/2, 1/4: the interval is [a, b]."""
    interval = bootstrap_mean([0.2, 0.6])
    assert (interval.low, interval.high) == (pytest.approx(0.2), pytest.approx(0.6))
    assert interval.se == pytest.approx(0.2 / np.sqrt(2), rel=0.05)


def test_values_that_are_not_valid_are_left_out() -> None:
    with_gaps = np.insert(VALUES, [0, 10, 300], np.nan)
    assert bootstrap_mean(with_gaps) == bootstrap_mean(VALUES)
    assert np.isnan(bootstrap_mean([0.5, np.nan]).low)


@pytest.mark.parametrize("n", [30, 257, 1000])
def test_blocks_are_small_and_change_no_bit(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products with BLAS, too: it adds the rows of a matrix in groups."""
    weighted = VALUES[np.arange(n) % VALUES.size]

    def all_of_them() -> list[object]:
        statistics._kept.cache_clear()
        sides = means(np.stack([weighted, weighted[::-1] ** 2]))
        both = [lambda weights: weights @ np.concatenate([weighted, weighted[::-1]]) / weights.sum(1)]
        return [
            bootstrap_statistic(sides[0], n),
            paired_statistic_difference(*sides, n),
            two_level_statistic_difference(sides, sides[::-1], n),
            sign_flip_p_value(weighted - 0.6),
            swap_p_value(both, n),
        ]

    in_blocks = all_of_them()
    assert max(len(block) for block in statistics.drawn_images(n, 2000, 0)) * n * 24 <= 1.1 * statistics.BLOCK_BYTES
    monkeypatch.setattr(statistics, "BLOCK_BYTES", 10**10)
    assert len(list(statistics.drawn_images(n, 2000, 0))) == 1
    assert all_of_them() == in_blocks


def test_paired_difference_is_narrower_than_unpaired_and_drops_what_one_side_misses() -> None:
    noise = np.random.default_rng(1).normal(0, 0.01, VALUES.size)
    better = VALUES + 0.02 + noise
    better[5] = np.nan
    difference = paired_difference(better, VALUES)
    assert difference.n == VALUES.size - 1
    assert difference.mean == pytest.approx(np.nanmean(better - VALUES))
    assert 0 < difference.low < difference.high < 0.04
    assert difference.p_value == pytest.approx(2 / 2001)
    test = stats.ttest_rel(np.delete(better, 5), np.delete(VALUES, 5))
    assert test.pvalue < 0.001
    assert difference.high - difference.low < 0.2 * (bootstrap_mean(VALUES).high - bootstrap_mean(VALUES).low)


def test_p_value_without_a_difference_is_large_and_symmetric() -> None:
    noise = np.random.default_rng(2).normal(0, 0.1, VALUES.size)
    there, back = paired_difference(VALUES + noise, VALUES), paired_difference(VALUES, VALUES + noise)
    assert there.p_value == pytest.approx(back.p_value) and there.mean == -back.mean
    assert there.p_value == pytest.approx(stats.ttest_1samp(noise, 0).pvalue, abs=0.05)


def test_two_level_agrees_with_brute_force() -> None:
    """With 2 seeds and 2 images every outcome can be listed."""
    difference = np.array([[0.1, 0.3], [0.2, 0.6]])
    outcomes = []
    for rows in itertools.product(range(2), repeat=2):
        for columns in itertools.product(range(2), repeat=4):
            drawn = [difference[rows[k], columns[2 * k + c]] for k in range(2) for c in range(2)]
            outcomes.append(np.mean(drawn))
    outcome = two_level_statistic_difference(means(difference), means(np.zeros((2, 2))), 2, resamples=40_000)
    assert outcome.mean == pytest.approx(difference.mean())
    assert outcome.se == pytest.approx(np.std(outcomes), rel=0.02)
    low, high = np.quantile(outcomes, [0.025, 0.975], method="inverted_cdf")
    assert (outcome.low, outcome.high) == (pytest.approx(low, abs=0.011), pytest.approx(high, abs=0.011))


def test_two_levels_are_wider_than_one_when_seeds_differ() -> None:
    base = np.stack([VALUES] * 4)
    shifts = np.array([0.0, 0.05, 0.1, 0.15])[:, None]
    outcome = two_level_statistic_difference(means(base + shifts), means(base), VALUES.size)
    assert outcome.se == pytest.approx(shifts.std() / 2, rel=0.1)
    assert outcome.seed_signs == (0, 1, 1, 1) and outcome.verdict == "undecided"


@pytest.mark.parametrize(
    ("shifts", "verdict", "not_below"),
    [
        ([0.05, 0.06, 0.07], "better", True),
        ([-0.05, -0.06, -0.07], "worse", False),
        ([0.05, 0.06], "undecided", True),
        ([0.1, 0.1, -0.01], "undecided", True),
        ([0.0, 0.0, 0.0], "undecided", True),
    ],
)
def test_better_than_needs_three_seeds_one_sign_and_the_interval(
    shifts: list[float], verdict: str, not_below: bool
) -> None:
    base = np.stack([VALUES] * len(shifts))
    outcome = two_level_statistic_difference(means(base + np.array(shifts)[:, None]), means(base), VALUES.size)
    assert (outcome.verdict, outcome.not_below) == (verdict, not_below)


def test_holm_by_hand() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == {"a": 0.03, "b": 0.06, "c": 0.06}
    assert holm({"a": 0.6, "b": 0.9}) == {"a": 1.0, "b": 1.0}
    assert list(holm({"z": 0.2, "a": 0.1})) == ["z", "a"]
    assert holm({}) == {}


def test_holm_rejects_at_least_what_bonferroni_rejects() -> None:
    p_values = {str(i): p for i, p in enumerate(np.random.default_rng(5).uniform(0, 0.1, 20))}
    adjusted = holm(p_values)
    assert all(p_values[name] <= value <= min(1, 20 * p_values[name]) for name, value in adjusted.items())


def test_shapes_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="paired values"):
        paired_difference([1.0, 2.0], [1.0])


def test_two_levels_redo_a_metric_that_is_no_mean() -> None:
    """Every outcome listed: 2 seeds, 2 images, the metric is the larger of the drawn values (and the smaller)."""
    values = np.array([[0.1, 0.3], [0.2, 0.7]])

    def largest(row: np.ndarray) -> Statistic:
        return lambda weights: np.where(weights > 0, row, -np.inf).max(axis=1)

    def smallest(row: np.ndarray) -> Statistic:
        return lambda weights: np.where(weights > 0, row, np.inf).min(axis=1)

    outcomes = []
    for rows in itertools.product(range(2), repeat=2):
        for columns in itertools.product(range(2), repeat=4):
            drawn = [values[rows[k], list(columns[2 * k : 2 * k + 2])] for k in range(2)]
            outcomes.append(np.mean([part.max() - part.min() for part in drawn]))
    found = two_level_statistic_difference(
        [largest(row) for row in values], [smallest(row) for row in values], 2, resamples=40_000
    )
    assert found.mean == pytest.approx((0.2 + 0.5) / 2) and found.seed_signs == (1, 1)
    assert found.se == pytest.approx(np.std(outcomes), rel=0.02)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(outcomes, [0.025, 0.975])), abs=1e-9)


def test_sign_flips_are_scipys_exact_test() -> None:
    differences = np.array([0.1, 0.25, -0.05, 0.3, 0.02, 0.12, -0.2, 0.18])
    exact = stats.permutation_test((differences,), np.mean, permutation_type="samples", vectorized=True)
    assert sign_flip_p_value(differences) == pytest.approx(exact.pvalue, abs=0.015)
    assert sign_flip_p_value(np.zeros(5)) == 1
    assert sign_flip_p_value(np.full(30, 0.1)) == 1 / 10_001
    assert np.isnan(sign_flip_p_value([]))


def test_swaps_of_a_mean_are_sign_flips() -> None:
    generator = np.random.default_rng(5)
    a, b = generator.normal(0.03, 0.1, 80), generator.normal(0, 0.1, 80)
    values = np.concatenate([a, b])

    def mean(weights: np.ndarray) -> np.ndarray:
        return np.asarray(weights @ values / weights.sum(axis=1))

    assert swap_p_value([mean], 80, draws=8000) == pytest.approx(sign_flip_p_value(a - b), abs=0.02)
    assert swap_p_value([mean, mean], 80) == swap_p_value([mean], 80)


def test_smallest_detectable_difference_is_found_with_that_power() -> None:
    """34 pairs find d = 0.5 (Cohen 1988, G*Power), and 80 % of simulated t-tests find what 12 pairs can."""
    assert smallest_detectable(1 / 34**0.5, 34) == pytest.approx(0.495, abs=0.001)
    shift = smallest_detectable(1 / 12**0.5, 12)
    samples = np.random.default_rng(0).normal(shift, 1, (20_000, 12))
    assert (stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.01)
    assert smallest_detectable(1.0, 100_000) == pytest.approx(stats.norm.ppf(0.975) + stats.norm.ppf(0.8), abs=1e-3)
    assert np.isnan(smallest_detectable(0.0, 10)) and np.isnan(smallest_detectable(0.1, 1))
    assert smallest_detectable(0.1, 2) > smallest_detectable(0.1, 3)


def test_effect_size_is_t_over_root_n() -> None:
    t = stats.ttest_1samp(VALUES - 0.5, 0).statistic
    assert effect_size(VALUES - 0.5) == pytest.approx(t / np.sqrt(VALUES.size))
    assert np.isnan(effect_size(np.full(4, 0.25))) and np.isnan(effect_size([0.1]))


def test_a_statistic_is_resampled_once_for_its_interval_and_all_its_differences() -> None:
    scores, others, calls = np.array([0.5, 0.7, 0.6, 0.9]), np.array([0.4, 0.6, 0.6, 0.7]), []

    def best(weights: np.ndarray) -> np.ndarray:
        calls.append(len(weights))
        return weights @ scores / weights.sum(1)

    _, interval = bootstrap_statistic(best, 4)
    first = paired_statistic_difference(best, lambda weights: weights @ others / weights.sum(1), 4)
    second = paired_statistic_difference(best, lambda weights: weights @ scores / weights.sum(1), 4)
    assert sum(count for count in calls if count > 1) == 2000
    assert bootstrap_statistic(lambda weights: weights @ scores / weights.sum(1), 4)[1] == interval
    assert round(first.mean, 3) == 0.1 and (second.low, second.high) == (0.0, 0.0)
    assert bootstrap_statistic(best, 4, seed=1)[1] != interval
