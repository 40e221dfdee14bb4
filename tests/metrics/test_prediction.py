"""SlotFormer's metrics of predicted masks: outputs of the official functions, and rules by hand."""

from __future__ import annotations

import numpy as np
import pytest
from places import PARITY
from safetensors.numpy import load_file

from ocl_bench.metrics import compute
from ocl_bench.metrics.definitions.dynamics import HORIZONS
from ocl_bench.metrics.prediction import box_recall, with_background_slot

CASE = load_file(PARITY / "slotformer_mask_metrics.safetensors")
ABSENT_ID, NO_OBJECT = 1, 4
"""Samples in which the official rules differ from ours."""


@pytest.mark.parametrize(("ours", "official"), [("ari", "out.ari"), ("fg_ari", "out.fari")])
def test_the_rand_indices_are_the_official_ones(ours: str, official: str) -> None:
    value, valid = compute([ours], CASE["in.true"], CASE["in.pred"], empty="one")[ours]
    assert valid.all()
    np.testing.assert_allclose(value, CASE[official], atol=2e-5)


def test_the_matched_iou_is_the_official_one() -> None:
    """Officially an id without a pixel below the largest present one counts as an object with an IoU of 0."""
    value, valid = compute(["miou_fg"], CASE["in.true"], CASE["in.pred"])["miou_fg"]
    assert not valid[NO_OBJECT] and valid.sum() == len(valid) - 1
    alike = [number for number in range(len(value)) if number not in (ABSENT_ID, NO_OBJECT)]
    np.testing.assert_allclose(value[alike], CASE["out.miou"][alike], atol=1e-6)
    present = [label for label in np.unique(CASE["in.true"][ABSENT_ID]) if label > 0]
    assert present == [1, 2, 4]
    assert value[ABSENT_ID] * 3 / 4 == pytest.approx(CASE["out.miou"][ABSENT_ID], abs=1e-6)


def test_the_recall_of_boxes_is_the_official_one() -> None:
    recalls = np.array([box_recall(*frame) for frame in zip(CASE["in.true"], CASE["in.pred"], strict=True)])
    np.testing.assert_array_equal(recalls, CASE["out.box_recall"])


def test_a_box_serves_one_object() -> None:
    truth, segments = np.zeros((2, 8, 8), np.int64)
    truth[1:4, 1:5], truth[4:7, 1:5], segments[1:7, 1:5] = 1, 2, 3
    assert box_recall(truth, truth) == 1
    assert box_recall(truth, segments) == 0  # 2 x 3 of 5 x 3 pixels is below half
    segments[4:7, 1:5] = 0
    assert box_recall(truth, segments) == 0.5
    assert box_recall(truth, segments, threshold=1.0) == 0.5  # an IoU of exactly the threshold counts


def test_undecided_pixels_go_to_the_official_background_slot() -> None:
    case = load_file(PARITY / "slotformer_postproc_mask.safetensors")
    masks = case["in.masks"][:, :, :, 0]
    labels = with_background_slot(masks.reshape(-1, *masks.shape[2:])).reshape(case["out.labels"].shape)
    np.testing.assert_array_equal(labels, case["out.labels"])
    assert (labels != masks.argmax(2)).any() and (masks.argmax(2) == case["out.argmax"]).all()


def test_the_horizons_cover_all_steps_once() -> None:
    steps = [step for first, last in HORIZONS.values() for step in range(first, (last or 42) + 1)]
    assert steps == list(range(1, 43))
