"""The head on slots: what it can and cannot learn, its choice of the learning rate, and edge cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scenes_in_memory import CATEGORIES, SLOTS, Knowing, truth_of

from ocl_bench.cards.protocols import Fit
from ocl_bench.core.errors import UsageError
from ocl_bench.core.types import Batch, Prediction, Truth
from ocl_bench.families.heads.matching import annotated_objects
from ocl_bench.families.heads.perceptron import apply
from ocl_bench.families.heads.slots import NO_OBJECT, SlotSet, collect_slots, fit_slots

FIT = Fit(head="slot", learning_rates=(0.01,), steps=200, batch=8, hidden=32)
NAMES = dict.fromkeys(CATEGORIES, "")


def slot_set(images: int = 40, seed: int = 0, noise: float = 0.05) -> SlotSet:
    """Slots that contain their category (one-hot) and the corners of their box, plus noise; some have no object."""
    random = np.random.default_rng(seed)
    counts = random.integers(0, 5, images)
    classes = random.integers(0, len(CATEGORIES) + 1, counts.sum())
    corners = np.sort(random.random((len(classes), 2, 2)), axis=1).reshape(-1, 4).astype(np.float32)
    corners[classes == len(CATEGORIES)] = 0
    features = np.concatenate([np.eye(len(CATEGORIES) + 1)[classes], corners], axis=1)
    features = features + noise * random.normal(size=features.shape)
    categories = np.array([*CATEGORIES, NO_OBJECT])[classes]
    boxes = np.where(categories[:, None] == NO_OBJECT, np.nan, corners)
    bounds = np.cumsum([0, *counts])
    return SlotSet(torch.from_numpy(features).float(), categories, torch.from_numpy(boxes).float(), bounds)


def accuracy(slots: SlotSet, head: dict[str, torch.Tensor]) -> float:
    named = np.array([*head["categories"].tolist(), NO_OBJECT])
    return float((named[apply(head, slots.features)[0].argmax(1).numpy()] == slots.categories).mean())


def test_class_and_box_are_learnt() -> None:
    head, test = fit_slots(slot_set(), NAMES, FIT, background=True), slot_set(seed=1)
    assert accuracy(test, head) > 0.97
    objects = test.categories != NO_OBJECT
    error = (apply(head, test.features)[1] - test.boxes)[objects].abs().mean()
    assert float(error) < 0.1


def test_noise_stays_at_chance() -> None:
    noise = slot_set(noise=1000.0)
    head = fit_slots(noise, NAMES, FIT, background=True)
    assert accuracy(slot_set(seed=1, noise=1000.0), head) < 0.45


def test_it_is_the_same_each_time_and_depends_on_its_seed() -> None:
    first = fit_slots(slot_set(), NAMES, FIT, background=True)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    again = fit_slots(slot_set(), NAMES, FIT, background=True)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert torch.equal(before, torch.get_rng_state())
    reseeded = fit_slots(slot_set(), NAMES, FIT.model_copy(update={"seed": 1}), background=True)
    assert not torch.equal(first["weight1"], reseeded["weight1"])


def test_the_head_is_linear_gelu_linear() -> None:
    head = fit_slots(slot_set(), NAMES, FIT, background=True)
    first, second = torch.nn.Linear(9, 32), torch.nn.Linear(32, 9)
    first.weight.data, first.bias.data = head["weight1"], head["bias1"]
    second.weight.data, second.bias.data = head["weight2"], head["bias2"]
    slots = slot_set(seed=2).features
    expected = torch.nn.Sequential(first, torch.nn.GELU(), torch.nn.Dropout(0.1), second).eval()(slots)
    assert torch.allclose(torch.cat(apply(head, slots), dim=1), expected, atol=1e-6)


def test_the_held_out_images_decide_the_rate() -> None:
    rates = Fit(head="slot", learning_rates=(1e-7, 0.01, 30.0), steps=100, batch=8, hidden=32)
    assert float(fit_slots(slot_set(), NAMES, rates, background=True)["learning_rate"]) == 0.01


def test_categories_that_never_occur_have_a_class_and_strange_ones_get_one() -> None:
    head = fit_slots(slot_set(), {1: "never"}, FIT, background=True)
    assert head["categories"].tolist() == [1, *CATEGORIES]
    assert apply(head, slot_set().features)[0].shape[1] == 6
    assert accuracy(slot_set(seed=1), head) > 0.97


def test_a_head_without_examples_or_categories_is_refused() -> None:
    empty = SlotSet(torch.zeros(0, 9), np.zeros(0, np.int64), torch.zeros(0, 4), np.zeros(4, np.int64))
    rates = FIT.model_copy(update={"learning_rates": (0.1, 0.01)})
    with pytest.raises(UsageError, match="the fit split has no object to learn from"):
        fit_slots(empty, NAMES, rates, background=False)
    with pytest.raises(UsageError, match="no object with a category"):
        fit_slots(empty, {}, FIT, background=False)
    single = SlotSet(torch.ones(1, 9), np.array([3]), torch.zeros(1, 4), np.array([0, 1]))
    assert fit_slots(single, NAMES, rates, background=False)["categories"].tolist() == list(CATEGORIES)


def predicted(numbers: list[int], padding: int = 0) -> tuple[list[Truth], Prediction]:
    names = tuple(f"{number:06d}" for number in numbers + numbers[-1:] * padding)
    return [truth_of(number) for number in numbers], Knowing().predict(Batch(names, torch.zeros(len(names), 3, 8, 8)))


def test_slots_are_collected_by_image_without_the_padding() -> None:
    batches = [predicted([1, 2, 10]), predicted([4], padding=2)]
    slots = collect_slots(batches, annotated_objects, 0.1, unmatched=True)
    objects = [len(truth_of(number).instances) for number in (1, 2, 10, 4)]
    assert objects == [1, 2, 0, 4]
    assert np.diff(slots.bounds).tolist() == [count + 1 for count in objects]  # and the background, no empty slot
    matched = slots.categories != NO_OBJECT
    assert matched.sum() == sum(objects) and slots.boxes[torch.from_numpy(~matched)].isnan().all()
    coded = np.array(CATEGORIES)[slots.features[torch.from_numpy(matched), : len(CATEGORIES)].argmax(1)]
    assert np.array_equal(coded, slots.categories[matched])
    assert torch.allclose(slots.features[torch.from_numpy(matched), -4:], slots.boxes[torch.from_numpy(matched)])
    alone = collect_slots(batches, annotated_objects, 0.1, unmatched=False)
    assert len(alone.categories) == sum(objects)


def test_bad_slots_and_no_images_are_one_line() -> None:
    truths, prediction = predicted([3])
    bad = Prediction(masks=prediction.masks, slots=torch.full((1, SLOTS, 8), float("nan")))
    with pytest.raises(UsageError, match="slots is not finite"):
        collect_slots([(truths, bad)], annotated_objects, 0.1, unmatched=False)
    with pytest.raises(UsageError, match="no image of the fit split"):
        collect_slots([], annotated_objects, 0.1, unmatched=False)
