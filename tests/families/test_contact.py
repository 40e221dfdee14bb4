"""Contacts: what is asked, references that know the answer, thresholds, and data or models that are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from pydantic import ValidationError
from sliding_squares import SIDE, Centres, Sliding

from ocl_bench.cards.task import TaskSpec
from ocl_bench.core.errors import DataMissingError, NotApplicableError, UsageError
from ocl_bench.core.types import Batch, Sample, Truth, Video
from ocl_bench.data import OpenData
from ocl_bench.evaluation.plan import make_plan
from ocl_bench.evaluation.run import run
from ocl_bench.families.contact import questions_about
from ocl_bench.metrics.catalogue import CATALOGUE
from ocl_bench.metrics.of_set import statistic_of
from ocl_bench.models.slot_dynamics import TrueSlots
from ocl_bench.models.states import FAR, ConstantVelocity, States
from ocl_bench.results.record import Result
from ocl_bench.results.store import rows_of


def contact_task(**protocol: Any) -> TaskSpec:
    fields = {"input": SIDE, "rollout": 12, "clips": "last-seen", "seen": 8, "pairs": "asked", **protocol}
    content = {"name": "tiny-contact", "version": 1, "family": "contact", "data": {"reader": "clevrer"}}
    content |= {"fit": {"head": "contact", "steps": 20, "batch": 8}, "protocol": fields}
    metrics = ["contact_accuracy", "contact_accuracy_best_on_test", "n_contact"]
    return TaskSpec.model_validate({**content, "metrics": metrics, "main": metrics[0]})


TASK = contact_task()


def lane(number: int, t: int) -> np.ndarray:
    """Places of three bodies. 1 goes right; 2 waits at 2.0, in its lane or not; 3 rests elsewhere."""
    random = np.random.default_rng(number)
    speed, start = random.uniform(0.07, 0.1), random.uniform(0, 0.2)
    stops = (2.0 - 0.3 - start) / speed  # they touch at a distance of 0.3 and rest then
    return np.array([[start + speed * min(t, stops if number % 2 else 99), 0.4], [2.0, 0.4], [0.4, 2.0]])


class Lanes:
    """Reader of videos of 32 frames: in odd ones body 1 meets body 2, in even ones body 2 is no obstacle but rests
    in the lane of body 3; then 2 and 3 meet after the cut."""

    def __init__(self, count: int, first: int = 0, known: bool = True) -> None:
        self.numbers, self.known = range(first, first + count), known
        self.ids = tuple(f"video{number}" for number in self.numbers)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Video:
        number = self.numbers[index]
        name = self.ids[index]
        frames = [self._frame(name, number, t) for t in range(32)]
        return Video(name, frames, tuple(f"{t:05d}" for t in range(32)))

    def _frame(self, name: str, number: int, t: int) -> Sample:
        places = lane(number, t)
        if number % 2 == 0:  # the same motion, of other bodies: 3 goes right and meets 2
            places = lane(number + 1, t)[[2, 1, 0]]
        labels = np.zeros((SIDE, SIDE), np.int16)
        for k, (x, y) in enumerate(places):
            labels[int(10 * y) : int(10 * y) + 4, int(10 * x) : int(10 * x) + 4] = k + 1
        pair = (1, 2) if number % 2 else (2, 3)
        apart = np.linalg.norm(places[pair[0] - 1] - places[pair[1] - 1])
        touched = frozenset([pair] if apart < 0.31 else [])
        image = np.array([(60, 60, 60), (230, 40, 40), (40, 40, 230), (40, 230, 40)], np.uint8)[labels]
        return Sample(name, image, Truth(labels, locations=places, touched=touched if self.known else None))


def lanes(count: int, first: int = 0, known: bool = True) -> OpenData:
    reader = Lanes(count, first, known)
    return OpenData(reader, "supplied", f"supplied-{first}", Path("."), reader.ids, "in memory")


def result(model: Any, folder: Path, **keywords: Any) -> Result:
    data, train = keywords.pop("data", lanes(6, first=100)), keywords.pop("train", lanes(16))
    task = keywords.pop("task", contact_task(rollout=24))
    return run(make_plan(model, task, data=data, train=train, **keywords), results=folder, progress=False)


def accuracy(evaluation: Result) -> float:
    return evaluation.metrics["contact_accuracy"].value or 0.0


# --- what is asked ----------------------------------------------------------------------------------------------------


def clip_of(touched: list[set[tuple[int, int]] | None], shown: int = 4) -> list[Truth]:
    labels = np.arange(shown, dtype=np.int16)[None].repeat(2, axis=0)
    known = [None if pairs is None else frozenset(pairs) for pairs in touched]
    return [Truth(labels, touched=pairs) for pairs in known]


def test_as_many_pairs_touch_as_do_not() -> None:
    clip = clip_of([set()] * 6 + [set(), {(1, 3)}])
    asked = questions_about(clip, TASK.protocol)  # type: ignore[arg-type]
    assert [(one.pair, one.touch) for one in asked] == [((1, 3), True), ((1, 2), False)]
    none = questions_about(clip_of([set()] * 8), TASK.protocol)  # type: ignore[arg-type]
    everything = {(a, b) for a in range(1, 4) for b in range(a + 1, 4)}
    assert none == [] and questions_about(clip_of([set()] * 6 + [everything] * 2), TASK.protocol) == []  # type: ignore[arg-type]


def test_pairs_that_touched_before_and_objects_that_were_not_seen_are_not_asked_about() -> None:
    seen = clip_of([{(1, 2)}] * 6 + [{(1, 2), (2, 3)}] * 2)
    asked = questions_about(seen, TASK.protocol)  # type: ignore[arg-type]
    assert [one.pair for one in asked] == [(2, 3), (1, 3)]
    later = [*clip_of([set()] * 6, shown=3), *clip_of([{(1, 3)}] * 2)]
    assert questions_about(later, TASK.protocol) == []  # type: ignore[arg-type]


def test_one_question_for_each_video() -> None:
    protocol = contact_task(pairs="all").protocol
    for pairs in (set(), {(1, 2)}):
        (asked,) = questions_about(clip_of([pairs] * 8), protocol)  # type: ignore[arg-type]
        assert asked.pair is None and asked.touch == bool(pairs)


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_true_states_are_right_and_the_majority_is_chance(tmp_path: Path) -> None:
    best = result("true-states", tmp_path)
    assert accuracy(best) == 1 and best.metrics["n_contact"].value == 12
    assert best.metrics["contact_accuracy"].signature == (
        "contact_accuracy│crop:none│from:slots│dyn:own│burn-in:6│rollout:24│stride:1│clips:last-seen│seen:8"
        "│pairs:asked│threshold:0.5│rollouter:embedded│head:contact│v1"
    )
    assert accuracy(result("constant-velocity", tmp_path)) == 1  # nothing is in the way
    assert accuracy(result("majority", tmp_path)) == 0.5


def test_slots_that_know_the_places_beat_chance_by_a_fitted_rollouter(tmp_path: Path) -> None:
    found = result(Centres(), tmp_path)
    assert "│dyn:probe│" in found.metrics["contact_accuracy"].signature
    assert found.fit is not None and found.fit.samples == 16 and found.counts.scored == 6
    assert accuracy(found) > 0.5


def test_rows_count_right_answers_at_each_threshold(tmp_path: Path) -> None:
    rows = rows_of(result("true-states", tmp_path))
    assert isinstance(rows, pandas.DataFrame)
    assert (rows["n_contact"] == 2).all() and (rows["n_contact_right"] == rows["n_contact_right_at_50"]).all()


def test_the_best_threshold_is_that_of_the_resampled_set() -> None:
    columns = {f"n_contact_right_at_{t}": [0, 1] for t in (40, 45, 50, 55, 60)}
    rows = pandas.DataFrame({"id": ["a", "b"], "noise_seed": 0, "n_contact": [2, 2], **columns})
    rows["n_contact_right_at_65"] = [2, 0]
    rule = CATALOGUE["contact_accuracy_best_on_test"].of_set
    statistic = statistic_of(rule, rows, "contact_accuracy_best_on_test", None)
    assert statistic is not None
    assert statistic(np.array([[1, 1], [2, 0], [0, 2], [0, 0]])).tolist()[:3] == [0.5, 1.0, 0.5]


def test_states_know_the_distance_to_the_next_object_and_go_straight_on() -> None:
    places = torch.tensor([[[torch.nan] * 2, [0.0, 0.0], [3.0, 4.0], [torch.nan] * 2]] * 2)
    places[1, 1, 0] = 1.0
    truth = [Truth(np.zeros((4, 4), np.int16), locations=one[1:].double().numpy()) for one in places]
    slots = States().predict(Batch(("v",), torch.zeros(1, 3, 4, 4)), truth).slots
    assert slots is not None and slots.shape == (1, 2, 4, 4)
    assert slots[0, 0, 1].tolist() == [0, 0, FAR, 1] and slots[0, 0, 3].tolist() == [0, 0, FAR, 0]
    following = ConstantVelocity().predict_slots(slots, 2)[0]
    assert following[:, 1, 0].tolist() == [2, 3] and following[:, 2, :2].tolist() == [[3, 4]] * 2
    assert following[1, 1, 2] == FAR and (following[:, 3, 3] == 0).all()


# --- what is refused --------------------------------------------------------------------------------------------------


def test_data_without_contacts(tmp_path: Path) -> None:
    with pytest.raises(DataMissingError, match="do not say what touches; download the annotations"):
        result("majority", tmp_path, data=lanes(2, 100, known=False), train=lanes(2, known=False))


def test_ceilings_whose_slots_say_nothing_of_contacts() -> None:
    with pytest.raises(NotApplicableError, match="take true-states"):
        make_plan("oracle", TASK, data=lanes(1), train=lanes(1))
    with pytest.raises(UsageError, match="needs_future is reserved"):
        make_plan(TrueSlots(Centres()), TASK, data=lanes(1), train=lanes(1))


def test_true_states_need_locations(tmp_path: Path) -> None:
    bare = Sliding(2, located=False)
    data = OpenData(bare, "supplied", "supplied", Path("."), bare.ids, "in memory")  # type: ignore[arg-type]
    with pytest.raises(NotApplicableError, match="need the locations of objects"):
        result("true-states", tmp_path, data=data, train=data, task=contact_task(rollout=8))


def test_a_video_that_is_too_short_fails_alone(tmp_path: Path) -> None:
    data = lanes(3, first=100)
    whole = data.reader[0]
    short = Video(whole.id, whole.frames[:20], whole.names[:20])

    class Some:
        ids = data.ids

        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Video:
            return short if index == 0 else data.reader[index]

    found = result("true-states", tmp_path, data=replace(data, reader=Some()))
    assert found.counts.scored == 2 and "has 20 frames; a clip of 30 frames" in found.counts.failed[0].error


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"pairs": "some"}, "pairs"), ({"threshold": 1}, "threshold"), ({"seen": None}, "seen")],
)
def test_cards_that_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises((UsageError, ValidationError), match=message):
        contact_task(**changes).check()
