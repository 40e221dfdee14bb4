"""What must not change a metric, and what every metric must say about the best and the laziest prediction."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ocl_bench.core.types import OVERLAP, VOID
from ocl_bench.metrics import METRICS, compute

NAMES = tuple(METRICS)
LABELS, SLOTS, SHAPE = 4, 5, (3, 6, 7)
CATEGORIES = [(2, 9, 2)] * SHAPE[0]

truths = arrays(np.int16, SHAPE, elements=st.integers(OVERLAP, LABELS - 1))
clean_truths = arrays(np.int16, SHAPE, elements=st.integers(0, LABELS - 1))
predictions = arrays(np.uint8, SHAPE, elements=st.integers(0, SLOTS - 1))
rules = st.fixed_dictionaries(
    {
        "void": st.sampled_from(["drop", "count"]),
        "background": st.sampled_from([0, 2]),
        "empty": st.sampled_from(["skip", "one"]),
    }
)
properties = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

Scores = dict[str, tuple[np.ndarray, np.ndarray]]


def scores(truth: np.ndarray, prediction: np.ndarray, **options: object) -> Scores:
    names = [n for n in NAMES if n != "mbo_class" or options.get("background", 0) == 0]
    options.setdefault("truth_categories", CATEGORIES)
    return compute(names, truth, prediction, **options)  # type: ignore[arg-type]


def assert_same(first: Scores, second: Scores, atol: float = 1e-12) -> None:
    for name, (value, valid) in first.items():
        np.testing.assert_array_equal(valid, second[name][1], err_msg=name)
        np.testing.assert_allclose(value, second[name][0], rtol=0, atol=atol, err_msg=name)


@properties
@given(truths, predictions, rules, st.permutations(range(SLOTS)))
def test_permuted_slots(truth: np.ndarray, prediction: np.ndarray, rule: dict, order: list[int]) -> None:
    assert_same(scores(truth, prediction, **rule), scores(truth, np.array(order)[prediction], **rule))


@properties
@given(truths, predictions, rules, st.integers(0, SLOTS))
def test_an_empty_slot(truth: np.ndarray, prediction: np.ndarray, rule: dict, slot: int) -> None:
    shifted = prediction + (prediction >= slot)
    assert_same(scores(truth, prediction, **rule), scores(truth, shifted, **rule))


@properties
@given(truths, predictions, rules)
def test_flips(truth: np.ndarray, prediction: np.ndarray, rule: dict) -> None:
    whole = scores(truth, prediction, **rule)
    assert_same(whole, scores(truth[:, :, ::-1], prediction[:, :, ::-1], **rule))
    assert_same(whole, scores(truth.transpose(0, 2, 1), prediction.transpose(0, 2, 1), **rule))


@properties
@given(truths, predictions, predictions, st.sampled_from(["drop", "count"]))
def test_prediction_on_dropped_pixels(truth: np.ndarray, prediction: np.ndarray, other: np.ndarray, void: str) -> None:
    dropped = truth < 0 if void == "drop" else truth == OVERLAP
    assert_same(scores(truth, prediction, void=void), scores(truth, np.where(dropped, other, prediction), void=void))


@properties
@given(truths, predictions)
def test_dropping_void_equals_never_having_had_the_pixels(truth: np.ndarray, prediction: np.ndarray) -> None:
    dropped = scores(truth, prediction)
    for i in range(len(truth)):
        kept = truth[i] >= 0
        assume(kept.any())
        alone = scores(truth[i][kept][None], prediction[i][kept][None], truth_categories=CATEGORIES[:1])
        assert_same({n: (v[i : i + 1], ok[i : i + 1]) for n, (v, ok) in dropped.items()}, alone)


@properties
@given(clean_truths, predictions, st.permutations(range(1, LABELS)))
def test_renamed_objects(truth: np.ndarray, prediction: np.ndarray, order: list[int]) -> None:
    renamed = np.array([0, *order])[truth]
    categories = [tuple(CATEGORIES[0][order.index(label)] for label in range(1, LABELS))] * len(truth)
    assert_same(scores(truth, prediction), scores(renamed, prediction, truth_categories=categories))


@properties
@given(truths, predictions, rules)
def test_batches(truth: np.ndarray, prediction: np.ndarray, rule: dict) -> None:
    """One image alone equals the same image in a batch of seven, to the last bit."""
    index = np.arange(7) % len(truth)
    batch = scores(truth[index], prediction[index], truth_categories=CATEGORIES[:1] * 7, **rule)
    for i in range(7):
        alone = scores(truth[index][i : i + 1], prediction[index][i : i + 1], truth_categories=CATEGORIES[:1], **rule)
        for name, (value, valid) in alone.items():
            assert valid[0] == batch[name][1][i]
            np.testing.assert_array_equal(value[0], batch[name][0][i])


@properties
@given(truths, predictions, rules)
def test_ranges_and_validity(truth: np.ndarray, prediction: np.ndarray, rule: dict) -> None:
    for name, (value, valid) in scores(truth, prediction, **rule).items():
        metric = METRICS[name]
        assert value.dtype == np.float64 and valid.dtype == bool and value.shape == valid.shape == (len(truth),)
        assert (np.isfinite(value) == valid).all()
        assert (value[valid] >= metric.low).all() and (value[valid] <= metric.high + 1e-12).all()


@properties
@given(clean_truths, st.permutations(range(LABELS)))
def test_the_oracle_is_perfect(truth: np.ndarray, order: list[int]) -> None:
    for name, (value, valid) in scores(truth, np.array(order)[truth]).items():
        if name != "mbo_class":  # instances are not categories
            np.testing.assert_allclose(value[valid], METRICS[name].best, atol=1e-6 if "legacy" in name else 1e-12)


@properties
@given(clean_truths)
def test_the_class_oracle_is_perfect_per_class(truth: np.ndarray) -> None:
    kinds = np.array([0, *CATEGORIES[0]])[truth]
    value, valid = scores(truth, kinds)["mbo_class"]
    np.testing.assert_array_equal(value[valid], 1)


@properties
@given(clean_truths)
def test_a_single_slot_has_no_ari(truth: np.ndarray) -> None:
    single = scores(truth, np.zeros_like(truth))
    for i, image in enumerate(truth):
        for name, labels in (("ari", np.unique(image)), ("fg_ari", np.unique(image[image > 0]))):
            if len(labels) >= 2:
                assert single[name][0][i] == 0
            elif len(labels) == 1:
                assert single[name][0][i] == 1


@properties
@given(truths, predictions, st.sampled_from(["drop", "count"]))
def test_order_of_the_overlap_metrics(truth: np.ndarray, prediction: np.ndarray, void: str) -> None:
    by_name = scores(truth, prediction, void=void)
    for matched, best in (("miou_fg", "mbo_fg"), ("miou_all", "mbo_all"), ("miou_clevrtex", "miou_all")):
        valid = by_name[matched][1]
        assert (by_name[matched][0][valid] <= by_name[best][0][valid] + 1e-12).all()


@properties
@given(truths, predictions)
def test_counting_void_never_helps(truth: np.ndarray, prediction: np.ndarray) -> None:
    dropped, counted = scores(truth, prediction), scores(truth, prediction, void="count")
    for name, (value, valid) in dropped.items():
        np.testing.assert_array_equal(valid, counted[name][1])
        if name.startswith(("mbo", "miou")):
            assert (counted[name][0][valid] <= value[valid] + 1e-12).all()
        else:
            np.testing.assert_array_equal(counted[name][0][valid], value[valid])


@properties
@given(clean_truths, predictions)
def test_foreground_metrics_ignore_how_background_is_split(truth: np.ndarray, prediction: np.ndarray) -> None:
    """FG-ARI does not look at background pixels at all."""
    other = np.where(truth == 0, 0, prediction)
    value, valid = scores(truth, prediction)["fg_ari"]
    np.testing.assert_array_equal(value, scores(truth, other)["fg_ari"][0])
    assert (valid == (truth > 0).any((1, 2))).all()


def test_empty_images() -> None:
    truth = np.zeros((3, 4, 4), np.int16)  # no object; everything void; one object
    truth[1], truth[2, :2] = VOID, 1
    prediction = np.zeros((3, 4, 4), np.uint8)
    prediction[:, 3] = 1
    skipped = scores(truth, prediction)
    for name, (_, valid) in skipped.items():
        only_objects = name in ("fg_ari", "mbo_fg", "mbo_class", "miou_fg")
        expected = [False] * 3 if name == "fg_ari_multi" else [not only_objects, False, True]
        assert valid.tolist() == expected, name
    for name, (value, valid) in scores(truth, prediction, empty="one").items():
        if name == "fg_ari_multi":
            assert not valid.any() and np.isnan(value).all()
            continue
        assert valid.all()
        assert (value[~skipped[name][1]] == METRICS[name].best).all()
        np.testing.assert_array_equal(value[skipped[name][1]], skipped[name][0][skipped[name][1]])


def test_one_object_is_all_or_nothing() -> None:
    truth = np.zeros((1, 8, 8), np.int16)
    truth[0, 2:6, 2:6] = 1
    prediction = truth.copy()
    assert scores(truth, prediction, truth_categories=[(1,)])["fg_ari"][0][0] == 1
    prediction[0, 2, 2] = 2
    one = scores(truth, prediction, truth_categories=[(1,)])
    assert one["fg_ari"][0][0] == 0 and not one["fg_ari_multi"][1][0]


@pytest.mark.parametrize("background", [0, 1, None, 9])
def test_background_label(background: int | None) -> None:
    truth = np.array([[[0, 0, 1, 1, 2, 2]]])
    prediction = np.array([[[0, 0, 0, 0, 0, 0]]])
    value = compute(["mbo_fg"], truth, prediction, background=background)["mbo_fg"][0][0]
    assert value == pytest.approx(1 / 3)
    first = compute(["mbo_fg"], truth, np.array([[[1, 1, 0, 0, 0, 0]]]), background=background)["mbo_fg"][0][0]
    expected = {0: (0.5 + 0.5) / 2, 1: (1 + 0.5) / 2}.get(background, (1 + 0.5 + 0.5) / 3)  # type: ignore[call-overload]
    assert first == pytest.approx(expected)
