"""`miou_clevrtex` against the procedure of the official evaluator, written out from its description."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linear_sum_assignment

from ocl_bench.metrics import compute


def official(truth: np.ndarray, prediction: np.ndarray, slots: int) -> tuple[float, bool]:
    """mIoU of one image as the official evaluator defines it, and whether it hangs on the order of the labels.

    Both stacks of masks are padded to the same number K, K x K Hungarian IoU, divided by the pairs of which one side
    is not empty. A pair of two non-empty masks that do not touch could as well be two pairs with an empty mask each.
    """
    size = max(slots, int(truth.max()) + 1, int(prediction.max()) + 1)
    masks, segments = (np.stack([maps == k for k in range(size)]) for maps in (prediction, truth))
    union = (segments[:, None] | masks[None]).sum((-1, -2))
    overlap = (segments[:, None] & masks[None]).sum((-1, -2)) / np.maximum(union, 1)
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    there, found = segments[rows].any((-1, -2)), masks[columns].any((-1, -2))
    one_sided = np.any(there & ~found) and np.any(found & ~there)
    return overlap[rows, columns].sum() / (there | found).sum(), bool(one_sided)


maps = arrays(np.int64, (6, 6), elements=st.integers(0, 4))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(truth=maps, prediction=maps, slots=st.integers(5, 8))
def test_official_definition(truth: np.ndarray, prediction: np.ndarray, slots: int) -> None:
    expected, depends_on_order = official(truth, prediction, slots)
    value = compute(["miou_clevrtex"], truth[None], prediction[None])["miou_clevrtex"][0][0]
    if depends_on_order:
        assert value >= expected
    else:
        assert value == pytest.approx(expected, abs=1e-12)


def test_order_dependence_of_the_official_pairing() -> None:
    """Object 2 lost its slot and one slot touches background only: the official divisor is 3 or 4, ours is 3."""
    truth = np.array([[0, 0, 0, 0, 1, 1, 1, 2]])
    matched, seen = 3 / 4 + 3 / 4, set()
    for spare in (2, 3):
        prediction = np.array([[0, 0, 0, spare, 1, 1, 1, 1]])
        seen.add(round(matched / official(truth, prediction, 5)[0]))
        value = compute(["miou_clevrtex"], truth[None], prediction[None])["miou_clevrtex"][0][0]
        assert value == pytest.approx(matched / 3)
    assert seen == {3, 4}


def test_spare_slots_cost_and_background_is_matched() -> None:
    truth = np.zeros((1, 4, 4), np.int64)
    truth[0, :2] = 1
    prediction = truth.copy()
    assert compute(["miou_clevrtex"], truth, prediction)["miou_clevrtex"][0][0] == 1
    prediction[0, 3] = 2  # half of the background in a spare slot
    scores = compute(["miou_clevrtex", "miou_fg"], truth, prediction)
    assert scores["miou_clevrtex"][0][0] == pytest.approx((1 + 0.5) / 3)
    assert scores["miou_fg"][0][0] == 1
