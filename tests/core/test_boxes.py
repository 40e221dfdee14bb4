"""What is odd about boxes is counted once for each box, by kind."""

from __future__ import annotations

import numpy as np

from ocl_bench.core.boxes import FAR, FIRST_PIXEL, OUTSIDE, SWAPPED, odd_boxes


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
