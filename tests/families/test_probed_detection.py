"""Detection by heads: a nearly perfect model, an uninformative one, and inputs that are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from pycocotools import mask as coco_mask
from pydantic import ValidationError
from scenes_in_memory import CATEGORIES, SHAPE, Knowing, box_mask, scene_data, task, truth_of

from ocl_bench.core.errors import NotApplicableError, UsageError
from ocl_bench.core.types import Instance, Prediction, Truth
from ocl_bench.evaluation.plan import make_plan
from ocl_bench.evaluation.run import run
from ocl_bench.families import get_adapter
from ocl_bench.families.probed_detection import ProbedDetection, slot_detections
from ocl_bench.families.summary import summarise
from ocl_bench.metrics.detection import Detections
from ocl_bench.results.record import Result

TEST, TRAIN = scene_data(24, first=1000), scene_data(60)


def result(head: str, model: Any, folder: Path, **keywords: Any) -> Result:
    plan = make_plan(model, keywords.pop("task", task(head)), data=TEST, train=TRAIN, **keywords)
    return run(plan, results=folder, progress=False)


@pytest.mark.parametrize(("head", "mask", "box"), [("slot", 0.95, 0.2), ("dense", 0.6, 0.2)])
def test_features_that_name_their_object_are_near_perfect(tmp_path: Path, head: str, mask: float, box: float) -> None:
    evaluation = result(head, Knowing(), tmp_path)
    assert (evaluation.metrics["probe_ap_mask"].value or 0) > mask
    assert (evaluation.metrics["probe_ap_box"].value or 0) > box
    interval = evaluation.metrics["probe_ap_mask"].ci95
    assert interval is not None and interval[0] <= (evaluation.metrics["probe_ap_mask"].value or 0) <= interval[1]
    assert f"head:{head}" in evaluation.metrics["probe_ap_box"].signature and not evaluation.counts.failed


@pytest.mark.parametrize(("head", "limit"), [("slot", 0.5), ("dense", 0.02)])
def test_features_that_name_nothing_find_little(tmp_path: Path, head: str, limit: float) -> None:
    """The masks of the slots are perfect here, so only the class (one of four) is left to chance."""
    evaluation = result(head, Knowing(random=True), tmp_path)
    assert (evaluation.metrics["probe_ap_mask"].value or 0) < limit
    assert (evaluation.metrics["probe_ap_box"].value or 0) < 0.02


@pytest.mark.parametrize("head", ["slot", "dense"])
def test_the_same_numbers_each_time(tmp_path: Path, head: str) -> None:
    short = task(head)
    assert short.fit is not None
    short = short.model_copy(update={"fit": short.fit.model_copy(update={"steps": 30})})
    values = []
    for attempt, batch_size in (("a", 8), ("b", 8)):
        torch.manual_seed(len(values))
        evaluation = result(head, Knowing(), tmp_path / attempt, task=short, batch_size=batch_size)
        values.append([metric.value for metric in evaluation.metrics.values()])
    assert values[0] == values[1]


def perfect(truth: Truth) -> Detections:
    instances = truth.instances
    return Detections(
        np.array([instance.box for instance in instances]).reshape(-1, 4),
        np.ones(len(instances)),
        np.array([instance.category for instance in instances], np.int64),
        tuple(instance.mask or {} for instance in instances),
    )


def table(adapter: ProbedDetection, truths: list[Truth], outputs: list[Detections]) -> pandas.DataFrame:
    rows = adapter.score(truths, outputs, adapter.task)
    return pandas.DataFrame([{"id": f"{k:02d}", "noise_seed": 0, **row} for k, row in enumerate(rows)])


def test_classes_count() -> None:
    adapter = ProbedDetection(task("slot"))
    truths = [truth_of(number) for number in range(8)]
    detections = [perfect(truth) for truth in truths]
    right = summarise(table(adapter, truths, detections), adapter.task, "truth")
    wrong = [replace(image, labels=np.where(image.labels == 3, 17, 3)) for image in detections]
    named_wrong = summarise(table(adapter, truths, wrong), adapter.task, "truth")
    assert right["probe_ap_mask"].value == right["probe_ap_box"].value == 1
    assert named_wrong["probe_ap_mask"].value == 0
    assert set(table(adapter, truths, detections).columns) >= set(adapter.columns(adapter.task))


def test_crowds_are_neither_asked_for_nor_punished() -> None:
    adapter = ProbedDetection(task("slot"))
    truth = truth_of(3, objects=2)
    crowd = Instance(3, (0.0, 0.0, 30.0, 30.0), box_mask(0, 0, 30, 30), 900.0, crowd=True)
    with_crowd = replace(truth, instances=(*truth.instances, crowd))
    rows = table(adapter, [with_crowd], [perfect(truth)])
    assert rows["n_objects"].tolist() == [2]
    assert summarise(rows, adapter.task, "truth")["probe_ap_mask"].value == 1


def test_no_objects_and_no_detections_are_null() -> None:
    adapter = ProbedDetection(task("slot"))
    empty = Truth(np.zeros(SHAPE, np.int16))
    summary = summarise(table(adapter, [empty], [perfect(empty)]), adapter.task, "truth")
    assert summary["probe_ap_mask"].value is None and summary["probe_ap_mask"].n_valid == 0


def head(width: int) -> dict[str, torch.Tensor]:
    """Feature c is the logit of class c, the last one that of no object; the box is always the left half."""
    classes = len(CATEGORIES) + 1
    weight2 = torch.zeros(classes + 4, width)
    weight2[:classes, :classes] = torch.eye(classes)
    bias2 = torch.zeros(classes + 4)
    bias2[-4:] = torch.tensor([-0.5, 0.0, 0.5, 1.5])
    tensors = {"mean": torch.zeros(width), "scale": torch.ones(width), "weight1": 10 * torch.eye(width)}
    return tensors | {
        "bias1": torch.zeros(width),
        "weight2": weight2,
        "bias2": bias2,
        "categories": torch.tensor(CATEGORIES),
    }


def test_each_slot_with_a_pixel_is_one_detection_at_the_size_of_the_image() -> None:
    labels = torch.zeros(6, 8, dtype=torch.int64)
    labels[2:4, 2:6] = 2
    slots = torch.zeros(4, 5)
    slots[2, 1] = 1
    detections = slot_detections(labels, slots, head(5), (48, 64))
    assert (
        len(detections) == 2
        and detections.labels[1] == CATEGORIES[1]
        and detections.scores[1] > 0.99 > detections.scores[0]
    )
    assert detections.boxes.tolist() == [[0, 0, 32, 48]] * 2
    assert detections.masks is not None and int(coco_mask.area(detections.masks[1])) == 16 * 32
    assert int(coco_mask.area(detections.masks[0])) == 48 * 64 - 16 * 32


def test_one_slot_for_everything_is_no_crash(tmp_path: Path) -> None:
    class Single(Knowing):
        def predict(self, batch: Any) -> Prediction:
            known = super().predict(batch)
            assert known.slots is not None
            return Prediction(masks=torch.ones(len(batch), 1, 4, 4), slots=known.slots[:, :1])

    values = result("slot", Single(), tmp_path).metrics
    assert values["probe_ap_mask"].value is not None and values["probe_ap_mask"].value < 0.05


def test_what_does_not_fit_is_one_line() -> None:
    with pytest.raises(NotApplicableError, match=r"Prediction\.tokens is missing"):
        ProbedDetection(task("dense")).check(Prediction(masks=torch.rand(1, 2, 4, 4)), 1, "mine")
    with pytest.raises(NotApplicableError, match=r"Prediction\.slots is missing"):
        ProbedDetection(task("slot")).check(Prediction(masks=torch.rand(1, 2, 4, 4)), 1, "mine")
    with pytest.raises(ValidationError, match=r"set crop: none"):
        task("slot", crop="center-1.0")
    with pytest.raises(ValidationError, match=r"is missing; 0\.1 is usual"):
        task("slot", matching_iou=None)
    with pytest.raises(UsageError, match="metrics: 'ap_mask' is of tasks without a head"):
        get_adapter(task("slot").model_copy(update={"metrics": ("ap_mask",), "main": "ap_mask"}))
    adapter = ProbedDetection(task("dense"))
    bad = Prediction(tokens=torch.tensor([[[[1.0]]], [[[float("nan")]]]]))
    assert adapter.finite(adapter.check(bad, 2, "mine")).tolist() == [True, False]
    assert adapter.source(bad) == "tokens"


def test_outputs_are_written_and_drawn(tmp_path: Path) -> None:
    truth = truth_of(3, objects=4)
    adapter = ProbedDetection(task("slot"))
    adapter.write(tmp_path, "000003", 0, perfect(truth))
    entries = json.loads((tmp_path / "seed-0" / "000003.json").read_text())
    assert [entry["category_id"] for entry in entries] == list(truth.categories)
    assert np.array_equal(adapter.picture(perfect(truth), truth)[0], truth.labels)
