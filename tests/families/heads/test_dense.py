"""The dense head: targets, suppression, and detections from tokens that contain all information."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from scenes_in_memory import CATEGORIES, GRID, SHAPE, Knowing, box_mask, truth_of

from ocl_bench.cards.protocols import Fit
from ocl_bench.core.types import Batch, Instance, Prediction, Truth
from ocl_bench.families.heads import dense
from ocl_bench.families.heads.dense import dense_detections, fit_dense, token_targets
from ocl_bench.families.heads.matching import instance_mask
from ocl_bench.metrics.accumulation import average_precision
from ocl_bench.metrics.detection import match_images

FIT = Fit(head="dense", learning_rates=(0.01,), steps=300, batch=8, hidden=64)


def predicted(numbers: range) -> tuple[list[Truth], Prediction]:
    names = tuple(f"{number:06d}" for number in numbers)
    return [truth_of(number) for number in numbers], Knowing().predict(Batch(names, torch.zeros(len(names), 3, 8, 8)))


def fitted(**changes: Any) -> dict[str, torch.Tensor]:
    batches = [predicted(range(start, start + 8)) for start in (0, 8, 16)]
    return fit_dense(batches, 24, {}, FIT.model_copy(update=changes))


def instance(category: int, box: tuple[int, int, int, int], **changes: Any) -> Instance:
    area = float((box[2] - box[0]) * (box[3] - box[1]))
    return Instance(category, tuple(map(float, box)), box_mask(*box), area, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(4))
def test_a_token_stands_for_the_smallest_object_at_its_centre(seed: int) -> None:
    random = np.random.default_rng(seed)
    corners = [
        (*(int(v) for v in random.integers(0, 30, 2)), *(int(v) for v in random.integers(31, 48, 2))) for _ in "1234"
    ]
    instances = tuple(instance(k + 1, box, crowd=k == 3) for k, box in enumerate(corners))  # type: ignore[arg-type]
    category, sides = token_targets(Truth(np.zeros(SHAPE, np.int16), instances=instances), GRID)
    for row in range(GRID[0]):
        for column in range(GRID[1]):
            x, y = (column + 0.5) * 64 / GRID[1], (row + 0.5) * 48 / GRID[0]
            here = [instance for instance in instances if instance_mask(instance, SHAPE)[int(y), int(x)]]
            objects = sorted((instance for instance in here if not instance.crowd), key=lambda instance: instance.area)
            position = row * GRID[1] + column
            if objects:
                left, top, right, bottom = objects[0].box
                assert category[position] == objects[0].category
                expected = [(x - left) / 64, (y - top) / 48, (right - x) / 64, (bottom - y) / 48]
                assert sides[position] == pytest.approx(expected)
            else:
                assert category[position] == (-2 if here else -1) and np.isnan(sides[position]).all()


def test_an_object_between_the_centres_is_no_crash() -> None:
    truth = Truth(np.zeros(SHAPE, np.int16), instances=(instance(7, (3, 3, 4, 4)),))
    assert (token_targets(truth, (2, 2))[0] == -1).all()


def test_tokens_that_name_their_object_find_it() -> None:
    head = fitted()
    assert head["categories"].tolist() == sorted(CATEGORIES)
    truths, prediction = predicted(range(100, 120))
    assert prediction.tokens is not None
    detections = [dense_detections(tokens, head, SHAPE) for tokens in prediction.tokens]
    value = average_precision(match_images(truths, detections, "mask", class_agnostic=False))[0]
    assert value > 0.5
    assert all(len(image) <= dense.MAX_DETECTIONS for image in detections)
    for image in detections:
        assert (
            (image.boxes >= 0).all() and (image.boxes <= (64, 48, 64, 48)).all() and (np.diff(image.scores) <= 0).all()
        )


def test_masks_are_where_the_class_wins_inside_the_box() -> None:
    _, prediction = predicted(range(4, 5))
    assert prediction.tokens is not None
    head, tokens = fitted(steps=20), prediction.tokens[0]
    detections = dense_detections(tokens, head, SHAPE)
    logits = dense.apply(head, tokens.flatten(1).T)[0].softmax(1).T.reshape(-1, *GRID)
    best = torch.nn.functional.interpolate(logits[None], size=SHAPE, mode="bilinear")[0].argmax(0).numpy()
    assert detections.masks is not None
    for box, label, mask in zip(detections.boxes, detections.labels, detections.masks, strict=True):
        left, top, right, bottom = box.round().astype(int)
        expected = np.zeros(SHAPE, bool)
        expected[top:bottom, left:right] = True
        expected &= best == head["categories"].tolist().index(label)
        assert np.array_equal(coco_mask.decode(mask).astype(bool), expected)


@pytest.mark.parametrize("sharpness", [0.5, 5, 50])
def test_leaving_out_classes_that_cannot_win_changes_no_pixel(sharpness: float) -> None:
    scores = sharpness * torch.randn(30, *GRID, generator=torch.Generator().manual_seed(0))
    probabilities = scores.softmax(0)
    whole = torch.nn.functional.interpolate(probabilities[None], size=SHAPE, mode="bilinear")[0]
    assert np.array_equal(dense._best_class(probabilities, SHAPE), whole.argmax(0).numpy())


def test_it_is_the_same_each_time() -> None:
    first, again = fitted(steps=10), fitted(steps=10)
    assert all(torch.equal(first[name], again[name]) for name in first)
