"""Confusion matrices: against torchmetrics and by hand, void, matching, majority, resampling."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_jaccard_index

from ocl_bench.core.errors import UsageError
from ocl_bench.metrics.semantic import (
    Areas,
    ConfusionCells,
    cells,
    confusion,
    majority,
    match_clusters,
    miou_sem,
    occurring,
    pixel_acc,
)


def maps(seed: int, classes: int, clusters: int | None = None, void: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, classes, (3, 17, 23)).astype(np.int16)
    truth[generator.random(truth.shape) < void] = -1
    return truth, generator.integers(0, clusters or classes, truth.shape)


@pytest.mark.parametrize("seed", range(4))
def test_miou_equals_torchmetrics_over_a_whole_set(seed: int) -> None:
    truth, prediction = maps(seed, 7)
    prediction[prediction == 3] = 2  # a class that is never predicted counts 0
    truth[truth == 5], prediction[prediction == 5] = 4, 4  # one that occurs nowhere does not count
    matrix = confusion(truth, prediction, 7)
    expected = multiclass_jaccard_index(
        torch.from_numpy(prediction), torch.from_numpy(truth.astype(np.int64)), 7, ignore_index=-1
    )
    assert float(miou_sem(matrix)) == pytest.approx(float(expected), abs=1e-6)
    assert not occurring(matrix)[5] and occurring(matrix)[3]
    known = truth >= 0
    assert float(pixel_acc(matrix)) == pytest.approx((truth == prediction)[known].mean())


def test_the_clustering_example_of_picie() -> None:
    truth = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, -1])
    prediction = np.array([2, 2, 1, 0, 0, 1, 1, 1, 0, 0])
    matched = match_clusters(confusion(truth, prediction, 3))
    assert float(miou_sem(matched)) == pytest.approx(0.64444, abs=1e-5)
    assert float(pixel_acc(matched)) == pytest.approx(0.77778, abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(1, 5))
def test_matching_is_the_best_of_all_and_majority_is_not_below(seed: int, classes: int, clusters: int) -> None:
    truth, prediction = maps(seed, classes, clusters)
    matrix = confusion(truth, prediction, classes, clusters)
    many = float(pixel_acc(majority(matrix)))
    if clusters <= classes:
        best = max(
            sum(matrix[name, cluster] for cluster, name in enumerate(names))
            for names in itertools.permutations(range(classes), clusters)
        )
        matched = match_clusters(matrix)
        assert np.trace(matched) == best and matched.sum() == matrix.sum()
        assert many >= float(pixel_acc(matched)) - 1e-12
    shuffled = np.random.default_rng(seed).permutation(clusters)
    assert many == pytest.approx(float(pixel_acc(majority(matrix[:, shuffled]))))


def test_more_clusters_than_classes_need_the_majority() -> None:
    with pytest.raises(UsageError, match="4 clusters cannot be matched one to one to 3 classes"):
        match_clusters(np.ones((3, 4), np.int64))


def test_ids_out_of_range_are_refused_and_void_never_counts() -> None:
    with pytest.raises(UsageError, match="class 9 of 3 classes"):
        confusion(np.array([[9]]), np.array([[0]]), 3)
    with pytest.raises(UsageError, match=r"class 3 is outside 0\.\.2"):
        confusion(np.array([[0]]), np.array([[3]]), 3)
    assert confusion(np.array([[-1]]), np.array([[99]]), 3).sum() == 0
    with pytest.raises(UsageError, match="shape"):
        confusion(np.zeros((2, 2), int), np.zeros((2, 3), int), 3)
    empty = confusion(np.full((2, 2), -1), np.zeros((2, 2), int), 3)
    assert np.isnan(miou_sem(empty)) and np.isnan(pixel_acc(empty))


def test_weights_stand_for_copies_of_images() -> None:
    truth, prediction = maps(3, 5, 6)
    single = [confusion(t, p, 5, 6) for t, p in zip(truth, prediction, strict=True)]
    stored = [cells(matrix) for matrix in single]
    table = ConfusionCells.of([c for c, _ in stored], [n for _, n in stored], range(3), 3, (5, 6))
    weights = np.array([[1, 1, 1], [0, 2, 1], [3, 0, 0]])
    for row, matrix in zip(weights, table.matrices(weights), strict=True):
        np.testing.assert_array_equal(matrix, sum(w * one for w, one in zip(row, single, strict=True)))


def test_areas_of_images_add_up_to_those_of_the_matrices() -> None:
    truth, prediction = maps(5, 6)
    stored = [cells(confusion(t, p, 6)) for t, p in zip(truth, prediction, strict=True)]
    table = ConfusionCells.of([c for c, _ in stored], [n for _, n in stored], range(3), 3, (6, 6))
    weights = np.array([[1, 1, 1], [0, 2, 1], [3, 0, 0]])
    for summed, whole in zip(table.areas(), Areas.of(table.matrices(weights)), strict=True):
        np.testing.assert_array_equal(weights @ summed, whole)


def test_the_class_set_of_a_resample_can_be_fixed() -> None:
    matrix = np.diag([4, 0, 0])
    assert float(miou_sem(matrix)) == 1.0
    assert float(miou_sem(matrix, np.array([True, True, False]))) == 0.5
