"""Mistakes pixel by pixel: each annotated pixel is of one kind, and each kind is what its name says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ocl_bench.metrics import contingency
from ocl_bench.metrics.mistakes import KINDS, mistakes

OBJECT = np.array([[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 2, 2, 0]])


def kinds_of(truth: np.ndarray, prediction: np.ndarray, background: int | None = 0) -> dict[str, int]:
    found = mistakes(contingency(truth[None], prediction[None]).table[0], background)
    return {kind: number for kind, number in zip(KINDS, found.pixels, strict=True) if number}


def test_a_perfect_prediction_has_no_mistake() -> None:
    assert kinds_of(OBJECT, OBJECT) == {"background": 10, "right": 6}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({(1, 1): 7}, {"background": 10, "right": 5, "split": 1}),
        ({(3, 1): 1, (3, 2): 1}, {"background": 10, "right": 4, "merged": 2}),
        ({(3, 1): 0, (3, 2): 0}, {"background": 10, "right": 4, "missed": 2}),
        ({(0, 1): 1, (0, 2): 1}, {"background": 8, "right": 6, "spilled": 2}),
    ],
)
def test_each_kind(change: dict[tuple[int, int], int], expected: dict[str, int]) -> None:
    prediction = OBJECT.copy()
    for place, segment in change.items():
        prediction[place] = segment
    assert kinds_of(OBJECT, prediction) == expected


def test_a_single_segment_misses_everything_and_many_segments_of_the_background_are_right() -> None:
    assert kinds_of(OBJECT, np.zeros_like(OBJECT)) == {"background": 10, "missed": 6}
    halves = OBJECT.copy()
    halves[0] = 5
    assert kinds_of(OBJECT, halves) == {"background": 10, "right": 6}


def test_without_a_background_every_label_is_an_object() -> None:
    assert kinds_of(OBJECT, np.zeros_like(OBJECT), None) == {"right": 10, "merged": 6}


def test_fragments_and_best_overlap() -> None:
    halves = OBJECT.copy()
    halves[1, 1:3] = 9
    found = mistakes(contingency(OBJECT[None], halves[None]).table[0])
    assert found.fragments.tolist() == [0, 2, 1]
    assert found.best_iou[1:].tolist() == [0.5, 1.0] and np.isnan(found.best_iou[0])
    assert found.main.tolist()[0] == -1 and found.owners[[9, 1]].tolist() == [1, 1]


@settings(max_examples=40, deadline=None)
@given(
    arrays(np.int16, (5, 6), elements=st.integers(-2, 4)),
    arrays(np.int16, (5, 6), elements=st.integers(0, 6)),
    st.sampled_from([0, None]),
)
def test_kinds_add_up_to_the_annotated_pixels(
    truth: np.ndarray, prediction: np.ndarray, background: int | None
) -> None:
    table = contingency(truth[None], prediction[None]).table[0]
    found = mistakes(table, background)
    assert sum(found.pixels) == int((truth >= 0).sum())
    # Renumbering segments changes nothing but their order.
    order = np.random.default_rng(0).permutation(table.shape[1])
    assert mistakes(table[:, order], background).best_iou == pytest.approx(found.best_iou, nan_ok=True)
