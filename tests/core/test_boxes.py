"""What is odd about boxes is counted once for each box, by kind; of boxes that overlap the best one stays."""

from __future__ import annotations

import numpy as np
import pytest

from ocl_bench.core.boxes import FAR, FIRST_PIXEL, OUTSIDE, SWAPPED, odd_boxes, overlapping, survivors


def test_each_kind_is_counted_and_usual_boxes_are_not() -> None:
    usual = [[0, 0, 48, 32], [-3, -3, 5, 5], [47, 31, 52, 35], [3, 3, 4, 4], [0, 0, 0, 0], [5, 5, 5, 9]]
    assert odd_boxes(np.array(usual, float), (32, 48)) == {}
    odd = [[9, 2, 3, 4], [1, 9, 3, 4], [48, 0, 50, 5], [-9, 0, -1, 5], [0, 33, 4, 40], [0.1, 0.2, 0.9, 1.0]]
    assert odd_boxes(np.array(usual + odd, float), (32, 48)) == {SWAPPED: 2, OUTSIDE: 3, FIRST_PIXEL: 1}


def test_corners_instead_of_width_and_height_end_far_outside() -> None:
    """What a results file with x0, y0, x1, y1 gives for objects in the right or lower half."""
    corners = np.array([[30.0, 5, 40, 10], [2, 20, 9, 30], [1, 1, 5, 5]])
    read = np.hstack([corners[:, :2], corners[:, :2] + corners[:, 2:]])
    assert odd_boxes(read, (32, 48)) == {FAR: 2}


def test_the_pixel_of_a_model_may_be_larger_than_that_of_the_image() -> None:
    box = np.array([[1.0, 1.0, 5.0, 3.0]])
    assert odd_boxes(box, (320, 480)) == {}
    assert odd_boxes(box, (320, 480), pixel=(4.0, 6.0)) == {FIRST_PIXEL: 1}
    assert odd_boxes(np.zeros((0, 4)), (320, 480)) == {}


@pytest.mark.parametrize("seed", range(3))
def test_survivors_are_those_of_the_loop(seed: int) -> None:
    random = np.random.default_rng(seed)
    corners = random.random((60, 2, 2)) * 0.5
    boxes = np.concatenate([corners.min(1), corners.min(1) + 0.2 + 0.3 * random.random((60, 2))], axis=1)
    scores, classes = random.choice([0.1, 0.5, 0.9], 60), random.integers(0, 2, 60)
    expected: list[int] = []
    for position in np.argsort(-scores, kind="stable"):
        rivals = [box for k, box in enumerate(boxes) if k in expected and classes[k] == classes[position]]
        if all(iou(boxes[position], box) <= 0.5 for box in rivals):
            expected.append(int(position))
    overlaps = overlapping(boxes, 0.5)
    assert survivors(scores, lambda k: overlaps(k) & (classes == classes[k])).tolist() == expected
    assert 2 < len(expected) < 60


def iou(first: np.ndarray, second: np.ndarray) -> float:
    width, height = (min(first[k + 2], second[k + 2]) - max(first[k], second[k]) for k in (0, 1))
    shared = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return float(shared / (sum(areas) - shared))


def test_of_boxes_that_overlap_the_better_one_stays() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 6], [20, 20, 30, 30]])
    falling = np.arange(4)[::-1]
    assert survivors(falling, overlapping(boxes, 0.7)).tolist() == [0, 2, 3]
    assert survivors(falling, overlapping(boxes, 0.9)).tolist() == [0, 1, 2, 3], "an IoU of 0.9 is not above 0.9"
    assert survivors(falling[::-1], overlapping(boxes, 0.7)).tolist() == [3, 2, 1]
    assert survivors(falling[:0], overlapping(boxes[:0], 0.7)).tolist() == []


def test_boxes_without_an_area_all_stay() -> None:
    boxes = np.array([[3.0, 3, 3, 9], [3, 3, 3, 9], [0, 0, 9, 9]])
    assert survivors(np.zeros(3), overlapping(boxes, 0.0)).tolist() == [0, 1, 2]
