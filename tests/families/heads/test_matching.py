"""Objects and slots: IoU compared with one-hot masks, matching with all permutations, edge cases of annotations."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scenes_in_memory import SHAPE, box_mask, truth_of

from ocl_bench.cards.protocols import Protocol
from ocl_bench.core.types import OVERLAP, VOID, Instance, Truth
from ocl_bench.families.heads.matching import Objects, annotated_objects, box_iou, instance_mask, labelled_objects

SLOTS = 5


def noisy_truth(seed: int) -> tuple[Truth, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(-2, 5, (9, 7)).astype(np.int16)
    return Truth(labels, (4, 4, 9, 2)), random.integers(0, SLOTS, labels.shape)


@pytest.mark.parametrize("void", ["drop", "count"])
@pytest.mark.parametrize("seed", range(4))
def test_iou_is_that_of_one_hot_masks(seed: int, void: str) -> None:
    truth, segments = noisy_truth(seed)
    objects = labelled_objects(truth, segments, SLOTS, Protocol(void=void))  # type: ignore[arg-type]
    counted = truth.labels >= (VOID if void == "count" else 0)
    assert (truth.labels == OVERLAP).any() and (truth.labels == VOID).any()
    for g, label in enumerate(range(1, 5)):
        for k in range(SLOTS):
            ours, theirs = (truth.labels == label), (segments == k) & counted
            assert objects.overlap[g, k] == pytest.approx((ours & theirs).sum() / (ours | theirs).sum())
    assert objects.categories.tolist() == [4, 4, 9, 2]


@pytest.mark.parametrize("seed", range(6))
def test_matching_is_the_best_of_all_permutations(seed: int) -> None:
    overlap = np.random.default_rng(seed).random((3 + seed % 3, 4))
    objects = Objects(np.zeros(len(overlap), np.int64), np.zeros((len(overlap), 4), np.float32), overlap)
    rows, columns = objects.matched(-1)
    long, short = max(overlap.shape), min(overlap.shape)
    table = overlap if len(overlap) == short else overlap.T
    best = max(table[np.arange(short), list(p)].sum() for p in permutations(range(long), short))
    assert overlap[rows, columns].sum() == pytest.approx(best)
    matches = objects.matched(0.5)
    assert (overlap[matches] > 0.5).all() and len(matches[0]) == (overlap[rows, columns] > 0.5).sum()


def test_six_segmented_objects_are_matched_by_both_kinds_of_truth() -> None:
    truth = truth_of(5, objects=6)
    segments = truth.labels.astype(np.int64)
    for objects in (labelled_objects(truth, segments, 8, Protocol()), annotated_objects(truth, segments, 8)):
        matched, slots = objects.matched(0.1)
        assert matched.tolist() == [0, 1, 2, 3, 4, 5] and slots.tolist() == [1, 2, 3, 4, 5, 6]
        boxes = np.array([instance.box for instance in truth.instances]) / (64, 48, 64, 48)
        assert np.allclose(objects.boxes, boxes) and objects.categories.tolist() == list(truth.categories)


def test_an_object_that_was_cropped_away_does_not_exist() -> None:
    truth = truth_of(5, objects=3)
    cut = np.where(truth.labels == 2, 0, truth.labels)
    objects = labelled_objects(Truth(cut, truth.categories), cut.astype(np.int64), 8, Protocol())
    assert objects.categories.tolist() == [truth.categories[0], truth.categories[2]]


def test_one_pixel_no_object_one_slot() -> None:
    labels = np.zeros((4, 5), np.int16)
    nothing = labelled_objects(Truth(labels), labels.astype(np.int64), 1, Protocol())
    assert len(nothing) == 0 and [len(array) for array in nothing.matched(0.1)] == [0, 0]
    assert len(labelled_objects(Truth(labels - 1), labels.astype(np.int64), 1, Protocol())) == 0
    labels[3, 4] = 1
    single = labelled_objects(Truth(labels, (7,)), np.zeros((4, 5), np.int64), 1, Protocol())
    assert single.overlap.tolist() == [[1 / 20]] and np.allclose(single.boxes, [[0.8, 0.75, 1, 1]])
    matches = labelled_objects(Truth(labels, (7,)), labels.astype(np.int64), 2, Protocol()).matched(0.1)
    assert [array.tolist() for array in matches] == [[0], [1]]


def test_annotated_objects_overlap_and_leave_out_crowds() -> None:
    boxes = [(0, 0, 20, 20), (10, 10, 30, 30), (0, 0, 40, 40)]
    instances = tuple(
        Instance(k, tuple(map(float, box)), box_mask(*box), 400.0, crowd=k == 2)  # type: ignore[arg-type]
        for k, box in enumerate(boxes)
    )
    segments = np.zeros(SHAPE, np.int64)
    segments[:20, :20] = 1
    objects = annotated_objects(Truth(np.zeros(SHAPE, np.int16), instances=instances), segments, 3)
    assert objects.categories.tolist() == [0, 1]
    assert objects.overlap[0].tolist() == [0, 1, 0] and objects.overlap[1, 1] == pytest.approx(100 / 700)


def test_an_instance_without_a_mask_fills_its_box() -> None:
    inside = instance_mask(Instance(1, (1.5, 0.4, 3.6, 2.0), None, 1.0), (4, 5))
    expected = np.zeros((4, 5), bool)
    expected[0:2, 1:4] = True
    assert np.array_equal(inside, expected)


def test_box_iou_by_counting_cells() -> None:
    random = np.random.default_rng(0)
    first, second = random.integers(0, 6, (2, 50, 4)).astype(float)
    values = box_iou(first, second)
    y, x = np.mgrid[:6, :6] + 0.5
    for a, b, value in zip(first, second, values, strict=True):
        ours, theirs = ((x > c[0]) & (x < c[2]) & (y > c[1]) & (y < c[3]) for c in (a, b))
        assert value == pytest.approx((ours & theirs).sum() / max(1, (ours | theirs).sum()))
    assert (values > 0).any()
