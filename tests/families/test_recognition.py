"""Recognition: a perfect model, chance level, the counts of the rows, and inputs that are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from pydantic import ValidationError
from scenes_in_memory import CATEGORIES, SHAPE, SLOTS, Knowing, scene_data, task, truth_of

from ocl_bench.core.errors import NotApplicableError, UsageError
from ocl_bench.core.types import Prediction, Truth
from ocl_bench.evaluation.plan import make_plan
from ocl_bench.evaluation.run import run
from ocl_bench.families import get_adapter
from ocl_bench.families.recognition import Recognised, Recognition
from ocl_bench.families.summary import set_statistic, summarise
from ocl_bench.results.record import Result

TASK = task("recognition")
TEST, TRAIN = scene_data(30, first=1000), scene_data(60)


def result(model: Any, folder: Path, **keywords: Any) -> Result:
    plan = make_plan(model, keywords.pop("task", TASK), data=TEST, train=keywords.pop("train", TRAIN), **keywords)
    return run(plan, results=folder, progress=False)


def perfect(truth: Truth) -> Recognised:
    """Slot k is object k, named and boxed right; slot 0 is the background."""
    names = np.array([CATEGORIES] * SLOTS)
    boxes = np.zeros((SLOTS, 4), np.float32)
    for k, instance in enumerate(truth.instances, start=1):
        names[k] = [instance.category, *(c for c in CATEGORIES if c != instance.category)]
        boxes[k] = np.array(instance.box) / (64, 48, 64, 48)
    return Recognised(truth.labels.astype(np.int64), names, boxes)


@pytest.mark.parametrize("soft", [True, False])
def test_slots_that_name_their_object_are_perfect(tmp_path: Path, soft: bool) -> None:
    evaluation = result(Knowing(soft=soft), tmp_path)
    values = {name: metric.value for name, metric in evaluation.metrics.items()}
    objects = sum(len(truth_of(int(name)).instances) for name in TEST.ids)
    assert values["top1_all"] == values["top1"] == values["top3"] == 1
    assert values["n_matched"] == objects > 60
    assert values["box_iou"] is not None and values["box_iou"] > 0.65
    assert evaluation.metrics["top1_all"].ci95 == (1, 1) and evaluation.metrics["top1_all"].n_valid < 30
    assert "head:recognition" in evaluation.metrics["top1"].signature and not evaluation.counts.failed


def test_slots_that_name_nothing_are_at_chance(tmp_path: Path) -> None:
    evaluation = result(Knowing(random=True), tmp_path)
    assert 0.1 < (evaluation.metrics["top1_all"].value or 0) < 0.45
    assert evaluation.metrics["top1_all"].value == evaluation.metrics["top1"].value  # the masks are still perfect


def test_a_model_that_no_key_names_gets_a_head_of_its_own(tmp_path: Path) -> None:
    """Two objects of one class can only be told apart by their state."""
    assert result(Knowing(random=True), tmp_path).metrics["top1"].value != 1
    assert result(Knowing(), tmp_path).metrics["top1"].value == 1


def test_the_same_numbers_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = []
    for attempt in ("a", "b"):
        monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / attempt))
        torch.manual_seed(len(values))
        evaluation = result(Knowing(random=True), tmp_path / f"results-{attempt}", batch_size=7)
        values.append({name: metric.value for name, metric in evaluation.metrics.items()})
    assert values[0] == values[1]


def test_six_segmented_objects_are_six() -> None:
    """The official filter would keep two."""
    truth = truth_of(3, objects=6)
    row = Recognition(TASK).score([truth], [perfect(truth)], TASK)[0]
    assert (row["n_objects"], row["n_matched"], row["n_correct1"], row["top1_all"]) == (6, 6, 6, 1)
    assert row["box_iou"] == pytest.approx(1) and row["sum_box_iou"] == pytest.approx(6)


def test_objects_without_a_slot_count_as_wrong() -> None:
    truth, strict = truth_of(3, objects=4), task("recognition", matching_iou=0.3)
    output = perfect(truth)
    merged = np.where(truth.labels > 2, 0, truth.labels).astype(np.int64)  # two objects are lost in the background
    names = output.categories.copy()
    names[1] = names[1][[1, 0, 2, 3]]  # and one is right at second sight
    row = Recognition(strict).score([truth], [replace(output, segments=merged, categories=names)], strict)[0]
    assert (row["n_objects"], row["n_matched"], row["n_correct1"], row["n_correct3"]) == (4, 2, 1, 2)
    assert (row["top1_all"], row["top1"], row["top3"]) == (0.25, 0.5, 1)


def table(truths: list[Truth], outputs: list[list[Recognised]]) -> pandas.DataFrame:
    adapter = Recognition(TASK)
    rows = [
        {"id": f"{image:02d}", "noise_seed": seed, **row}
        for seed, evaluation in enumerate(outputs)
        for image, row in enumerate(adapter.score(truths, evaluation, TASK))
    ]
    return pandas.DataFrame(rows)


def noisy(truth: Truth, seed: int) -> Recognised:
    random = np.random.default_rng(seed)
    output = perfect(truth)
    segments = np.where(random.random(SHAPE) < 0.4, random.integers(0, SLOTS, SHAPE), output.segments)
    names = np.stack([random.permutation(CATEGORIES) for _ in range(SLOTS)])
    return Recognised(segments, names, output.boxes + random.normal(0, 0.03, (SLOTS, 4)).astype(np.float32))


def test_resampled_values_are_those_of_the_copies() -> None:
    """Weights are copies of images; several noise seeds are averaged."""
    truths = [truth_of(number) for number in range(12)]
    rows = table(truths, [[noisy(truth, 100 * seed + i) for i, truth in enumerate(truths)] for seed in (1, 2)])
    weights = np.random.default_rng(0).integers(0, 4, (5, len(truths)))
    shuffled = rows.sample(frac=1, random_state=0)
    for name in TASK.metrics:
        values = set_statistic(shuffled, TASK, name)(weights)
        for row, value in zip(weights, values, strict=True):
            seeds = []
            for _, one in rows.groupby("noise_seed"):
                copies = one.loc[one.index.repeat(row)]
                above = {"top3": "n_correct3", "box_iou": "sum_box_iou", "n_matched": "n_matched"}
                below = {"top1_all": copies["n_objects"].sum(), "n_matched": 1}
                total = copies[above.get(name, "n_correct1")].sum()
                seeds.append(total / below.get(name, copies["n_matched"].sum()))
            assert value == pytest.approx(np.mean(seeds))


def test_a_set_without_objects_has_no_ratio() -> None:
    truth = Truth(np.zeros(SHAPE, np.int16))
    summary = summarise(table([truth, truth], [[perfect(truth)] * 2]), TASK, "truth")
    assert summary["top1_all"].value is None and summary["top1_all"].n_valid == 0
    assert summary["n_matched"].value == 0


def test_a_model_that_matches_nothing_cannot_be_fitted(tmp_path: Path) -> None:
    class Blind(Knowing):
        def predict(self, batch: Any) -> Prediction:
            known = super().predict(batch)
            masks = torch.zeros(len(batch), 1, 4, 4)
            assert known.slots is not None
            return Prediction(masks=masks, slots=known.slots[:, :1])

    high = task("recognition", matching_iou=0.9)
    with pytest.raises(UsageError, match="no slot matches one"):
        result(Blind(), tmp_path, task=high)


def test_categories_that_were_never_seen_are_wrong() -> None:
    truth = truth_of(3, objects=2)
    strange = replace(truth, categories=(5, truth.categories[1]))
    row = Recognition(TASK).score([strange], [perfect(truth)], TASK)[0]
    assert row["n_correct1"] == 1 and row["n_correct3"] == 1 and row["n_matched"] == 2


def test_what_does_not_fit_is_one_line(tmp_path: Path) -> None:
    adapter = Recognition(TASK)
    masks, slots = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 5)
    with pytest.raises(NotApplicableError, match=r"Prediction\.slots is missing \(got masks\)"):
        adapter.check(Prediction(masks=masks), 2, "mine")
    with pytest.raises(UsageError, match="5 slots for 3 masks"):
        adapter.check(Prediction(masks=masks, slots=torch.rand(2, 5, 5)), 2, "mine")
    with pytest.raises(UsageError, match=r"label 3, but Prediction\.slots only 3"):
        adapter.check(Prediction(masks=torch.full((2, 4, 4), 3), slots=slots), 2, "mine")
    with pytest.raises(UsageError, match="head is not fitted"):
        adapter.outputs(Prediction(masks=masks, slots=slots), [(4, 4)] * 2)
    with pytest.raises(ValidationError, match="valid number"):
        task("recognition", matching_iou=None)
    with pytest.raises(UsageError, match=r"fit\.head: 'left out' is not a head of recognition"):
        get_adapter(TASK.model_copy(update={"fit": None}))
    with pytest.raises(UsageError, match="metrics: 'ari' is a metric of discovery, not of recognition"):
        get_adapter(TASK.model_copy(update={"metrics": ("ari",), "main": "ari"}))
    with pytest.raises(UsageError, match="categories is empty"):
        truth = truth_of(3, objects=2)
        adapter.score([replace(truth, categories=())], [perfect(truth)], TASK)


def test_outputs_are_written_and_drawn(tmp_path: Path) -> None:
    truth = truth_of(3, objects=4)
    adapter = Recognition(TASK)
    adapter.write(tmp_path, "000003", 1, perfect(truth))
    slots = json.loads((tmp_path / "seed-1" / "000003.json").read_text())
    assert len(slots) == SLOTS and slots[1]["categories"][0] == truth.categories[0]
    assert (tmp_path / "seed-1" / "000003.png").is_file()
    drawn, shown = adapter.picture(perfect(truth), truth)
    assert np.array_equal(drawn, truth.labels) and np.array_equal(shown, truth.labels)
