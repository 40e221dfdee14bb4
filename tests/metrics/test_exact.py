"""Exact arithmetic up to 24 x 518 x 518 pixels, and scikit-learn as an oracle."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.cluster import contingency_matrix, mutual_info_score

from ocl_bench.metrics import Contingency, compute, contingency, evaluate_table, find_metric

CLIP_PIXELS = 24 * 518 * 518


def random_maps(
    seed: int, truth_labels: int, slots: int, images: int = 4, side: int = 24
) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, truth_labels, (images, side, side)).astype(np.int16)
    prediction = np.where(generator.random(truth.shape) < 0.6, truth % slots, generator.integers(0, slots, truth.shape))
    return truth, prediction


def exact_ari(table: np.ndarray) -> Fraction:
    """Hubert and Arabie's formula with binomials, in rational numbers."""

    def pairs(counts: np.ndarray) -> Fraction:
        return sum((Fraction(int(n) * (int(n) - 1), 2) for n in counts.ravel()), Fraction(0))

    index, left, right = pairs(table), pairs(table.sum(0)), pairs(table.sum(1))
    expected = left * right / pairs(table.sum()[None])
    return (index - expected) / ((left + right) / 2 - expected)


@pytest.mark.parametrize("truth_labels, slots", [(2, 2), (5, 3), (9, 12)])
def test_scikit_learn_ari(truth_labels: int, slots: int) -> None:
    truth, prediction = random_maps(truth_labels, truth_labels, slots)
    scores = compute(["ari", "fg_ari"], truth, prediction)
    for i in range(len(truth)):
        assert scores["ari"][0][i] == pytest.approx(
            adjusted_rand_score(truth[i].ravel(), prediction[i].ravel()), abs=1e-12
        )
        inside = truth[i] > 0
        expected = adjusted_rand_score(truth[i][inside], prediction[i][inside])
        assert scores["fg_ari"][0][i] == pytest.approx(expected, abs=1e-12)


def test_scikit_learn_contingency_matrix() -> None:
    truth, prediction = random_maps(0, 7, 5)
    table = contingency(truth, prediction).table
    for i in range(len(truth)):
        np.testing.assert_array_equal(table[i], contingency_matrix(truth[i].ravel(), prediction[i].ravel()))


def test_variation_of_information_is_in_nats() -> None:
    truth, prediction = random_maps(1, 6, 4)
    value, valid = compute(["vi"], truth, prediction)["vi"]
    for i in range(len(truth)):
        t, p = truth[i].ravel(), prediction[i].ravel()
        expected = mutual_info_score(t, t) + mutual_info_score(p, p) - 2 * mutual_info_score(t, p)
        assert value[i] == pytest.approx(expected, abs=1e-12) and valid[i]
    halves = np.repeat([[0, 1]], 2, axis=0)[None]
    assert compute(["vi"], halves, halves.transpose(0, 2, 1))["vi"][0][0] == pytest.approx(2 * np.log(2))


@pytest.mark.parametrize("dominant", [0.999999, 0.95, 0.5, 0.1])
@pytest.mark.parametrize("columns", [1, 4, 11])
def test_ari_is_exact_and_in_range_for_a_whole_clip(dominant: float, columns: int) -> None:
    generator = np.random.default_rng(int(dominant * 1e6) + columns)
    table = generator.integers(0, 2000, (3, 9, columns))
    table[:, 0, 0] = dominant * CLIP_PIXELS
    counts = Contingency(table, table.sum(1), np.zeros(3, np.int64))
    for name, rows in (("ari", table), ("fg_ari", table[:, 1:])):
        value, valid = evaluate_table(find_metric(name), counts)
        assert valid.all() and (value >= -1).all() and (value <= 1).all()
        assert value.tolist() == [float(exact_ari(image)) for image in rows]


def test_a_real_clip_of_the_largest_size() -> None:
    truth = np.zeros((1, 24, 518, 518), np.uint8)
    truth[..., 100:164, 100:260] = 1
    truth[..., 300:340, 50:90] = 2
    prediction = np.zeros_like(truth)
    prediction[..., 110:164, 100:270] = 1
    scores = compute(["ari", "fg_ari", "ari_int64_legacy"], truth, prediction)
    table = contingency(truth, prediction).table[0]
    assert table.sum() == CLIP_PIXELS
    assert scores["ari"][0][0] == float(exact_ari(table))
    assert scores["fg_ari"][0][0] == float(exact_ari(table[1:]))
    assert abs(scores["ari_int64_legacy"][0][0] - scores["ari"][0][0]) > 0.01


def test_single_slot_has_chance_level_at_any_size() -> None:
    truth = np.zeros((1, 256, 256), np.uint8)
    truth[0, 10:60, 10:60] = 1
    scores = compute(["ari", "ari_int64_legacy"], truth, np.zeros_like(truth))
    assert scores["ari"][0][0] == 0
    assert scores["ari_int64_legacy"][0][0] > 0.8


def test_worse_than_chance_is_negative() -> None:
    truth = np.array([[[0, 0], [1, 1]]])
    assert compute(["ari"], truth, np.array([[[0, 1], [0, 1]]]))["ari"][0][0] == -0.5


def table_of(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Label maps (1, 1, pixels) whose contingency table is `rows`."""
    pairs = [(g, p) for g, row in enumerate(rows) for p, n in enumerate(row) for _ in range(n)]
    truth, prediction = np.array(pairs).T
    return truth[None, None], prediction[None, None]


GOLDEN = {
    # background 6, object one 4 and object two 2 pixels; slots of 5, 3, 3 and 1 pixels
    "mbo_fg": (3 / 4 + 2 / 3) / 2,
    "miou_fg": (3 / 4 + 2 / 3) / 2,
    "mbo_all": (5 / 6 + 3 / 4 + 2 / 3) / 3,
    "miou_all": (5 / 6 + 3 / 4 + 2 / 3) / 3,
    "miou_clevrtex": (5 / 6 + 3 / 4 + 2 / 3) / 4,
}


@pytest.mark.parametrize("name", GOLDEN)
def test_iou_by_hand(name: str) -> None:
    maps = table_of([[5, 0, 1, 0], [0, 3, 0, 1], [0, 0, 2, 0]])
    assert compute([name], *maps)[name][0][0] == pytest.approx(GOLDEN[name], abs=1e-15)


def test_more_truth_segments_than_slots() -> None:
    maps = table_of([[2, 2], [4, 0], [3, 1], [0, 4]])
    scores = compute(["mbo_fg", "miou_fg", "miou_all", "miou_clevrtex"], *maps)
    best = [4 / 9, 3 / 10, 4 / 7]
    assert scores["mbo_fg"][0][0] == pytest.approx(sum(best) / 3)
    assert scores["miou_fg"][0][0] == pytest.approx((4 / 9 + 4 / 7) / 3)
    assert scores["miou_all"][0][0] == pytest.approx((4 / 9 + 4 / 7) / 4)
    assert scores["miou_clevrtex"][0][0] == pytest.approx((4 / 9 + 4 / 7) / 4)


def test_hungarian_gives_a_slot_to_one_object_only() -> None:
    maps = table_of([[0, 0], [4, 0], [3, 0], [0, 0], [0, 1]])
    scores = compute(["mbo_fg", "miou_fg"], *maps)
    assert scores["mbo_fg"][0][0] == pytest.approx((4 / 7 + 3 / 7 + 1) / 3)
    assert scores["miou_fg"][0][0] == pytest.approx((4 / 7 + 1) / 3)


def test_categories_unite_objects() -> None:
    maps = table_of([[4, 0, 0], [0, 3, 0], [0, 2, 1], [0, 0, 2]])
    value, valid = compute(["mbo_class"], *maps, truth_categories=[(7, 7, 3)])["mbo_class"]
    assert valid[0] and value[0] == pytest.approx((5 / 6 + 2 / 3) / 2)
    assert compute(["mbo_fg"], *maps)["mbo_fg"][0][0] == pytest.approx((3 / 5 + 2 / 6 + 2 / 3) / 3)
