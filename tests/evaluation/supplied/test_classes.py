"""`score --classes`: detection results by category, equal to pycocotools, and never beside class-agnostic results."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rectangles_with_boxes import TASK, rectangles

from ocl_bench.cards.names import get_task, is_task
from ocl_bench.core.errors import UsageError
from ocl_bench.core.types import Batch, Prediction
from ocl_bench.evaluation.plan import make_plan
from ocl_bench.evaluation.supplied.score import score_masks
from ocl_bench.results.record import Result
from ocl_bench.tables.leaderboard.build import make_board

SIDE = 64
CATEGORIES = (3, 7, 9)


def box(generator: np.random.Generator) -> list[float]:
    x, y, width, height = generator.integers((0, 0, 12, 12), (40, 40, 24, 24))
    return [float(x), float(y), float(width), float(height)]


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Eight images with objects of two of three categories, and detections that often name the wrong one."""
    generator = np.random.default_rng(3)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2017").mkdir()
    images, annotations, found = [], [], []
    for number in range(1, 9):
        images.append({"id": number, "file_name": f"{number:012d}.jpg", "width": SIDE, "height": SIDE})
        Image.fromarray(np.full((SIDE, SIDE, 3), 90, np.uint8)).save(tmp_path / "val2017" / f"{number:012d}.jpg")
        for _ in range(3):
            x, y, width, height = box(generator)
            category = int(generator.choice(CATEGORIES[:2]))
            corners = [x, y, x + width, y, x + width, y + height, x, y + height]
            about: dict[str, Any] = {
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": category,
                "iscrowd": 0,
            }
            about |= {"bbox": [x, y, width, height], "area": width * height, "segmentation": [corners]}
            annotations.append(about)
            for shift in (0.0, 2.0):
                named = category if generator.random() < 0.6 else int(generator.choice(CATEGORIES))
                detected = [x + shift, y, width, height]
                score = float(generator.random())
                found.append({"image_id": number, "category_id": named, "bbox": detected, "score": score})
    categories = [{"id": one, "name": f"category {one}"} for one in CATEGORIES]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    (tmp_path / "dets.json").write_text(json.dumps(found))
    return tmp_path


def of_pycocotools(folder: Path, kind: str = "bbox") -> tuple[float, float]:
    """AP and AR@100 of boxes or masks with categories."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(folder / "annotations" / "instances_val2017.json"))
        found = truth.loadRes(copy.deepcopy(json.loads((folder / "dets.json").read_text())))
        evaluation = COCOeval(truth, found, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0]), float(evaluation.stats[8])


def scored(folder: Path, **keywords: Any) -> Result:
    where = {"data_root": folder, "results": folder / "results", "progress": False}
    return score_masks("coco-detection", folder / "dets.json", **where, **keywords)


def test_values_are_those_of_pycocotools(coco: Path) -> None:
    result = scored(coco, classes=True)
    precision, recall = of_pycocotools(coco)
    assert 0.1 < precision < 0.9
    assert result.value("class_ap_box") == pytest.approx(precision, abs=1e-9)
    assert result.value("class_ar100_box") == pytest.approx(recall, abs=1e-9)
    assert scored(coco).value("ap_box") != pytest.approx(precision, abs=0.02)


def test_the_two_protocols_never_meet(coco: Path) -> None:
    agnostic, by_class = scored(coco), scored(coco, classes=True)
    assert "classes:each" in by_class.task.signature and "classes" not in agnostic.task.signature
    assert agnostic.task.hash != by_class.task.hash and by_class.task.name == "coco-detection-classes"
    assert not set(agnostic.metrics) & set(by_class.metrics)
    for task, result in (("coco-detection", agnostic), ("coco-detection-classes", by_class)):
        board = make_board([coco / "results"], task)
        assert [row.signature for _, rows in board.groups for row in rows] == [result.task.signature]


def test_a_detection_without_a_category_is_refused(coco: Path) -> None:
    entries = json.loads((coco / "dets.json").read_text())
    (coco / "dets.json").write_text(json.dumps([{**entries[0], "category_id": 0}, *entries[1:]]))
    assert scored(coco).value("ap_box")
    with pytest.raises(UsageError, match="category_id is 0, which the data set does not have"):
        scored(coco, classes=True)


def test_what_has_no_categories_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="coco-discovery: only detection can be scored within each category"):
        get_task("coco-discovery").with_classes()
    with pytest.raises(UsageError, match="scored within each category already"):
        get_task("coco-detection-slot").with_classes()
    with pytest.raises(UsageError, match="--classes is for COCO results files"):
        score_masks("coco-detection", tmp_path, classes=True)
    with pytest.raises(UsageError, match=r"'ap_box' is class-agnostic; metrics of each category begin with class_"):
        card = get_task("coco-detection-classes")
        card.model_copy(update={"metrics": ("ap_box",), "main": "ap_box"}).check()
    assert is_task("coco-detection-classes") and not is_task("clevrtex-classes") and not is_task("../x-classes")


def test_a_model_names_categories_or_is_refused() -> None:
    class Boxes:
        name = "named"

        def predict(self, batch: Batch) -> Prediction:
            boxes = torch.tensor([[[0.0, 0.0, 8.0, 8.0]]]).expand(len(batch), 1, 4)
            return Prediction(boxes=boxes, scores=torch.ones(len(batch), 1), labels=torch.ones(len(batch), 1).long())

    plan = make_plan(Boxes(), TASK.with_classes(), data=rectangles(), device="cpu")
    named = Boxes().predict(Batch(("a",), torch.zeros(1, 3, 8, 8)))
    assert plan.adapter.check(named, 1, "named") is not None
    with pytest.raises(UsageError, match=r"needs boxes .* scores and labels"):
        plan.adapter.check(Prediction(boxes=named.boxes, scores=named.scores), 1, "nameless")


def test_masks_by_class_are_pycocotools(coco: Path) -> None:
    entries = json.loads((coco / "dets.json").read_text())
    for entry in entries:
        x, y, width, height = (int(value) for value in entry["bbox"])
        mask = np.zeros((SIDE, SIDE), np.uint8, order="F")
        mask[y : y + height, x : x + width] = 1
        mask[y : y + height // 3, x : x + width // 3] = 0  # so that masks and boxes have other overlaps
        code = coco_mask.encode(mask)
        entry["segmentation"] = {"size": code["size"], "counts": code["counts"].decode()}
    (coco / "dets.json").write_text(json.dumps(entries))
    result = scored(coco, classes=True)
    for kind, iou in (("mask", "segm"), ("box", "bbox")):
        precision, recall = of_pycocotools(coco, iou)
        assert result.value(f"class_ap_{kind}") == pytest.approx(precision, abs=1e-9)
        assert result.value(f"class_ar100_{kind}") == pytest.approx(recall, abs=1e-9)
    assert result.value("class_ap_mask") != result.value("class_ap_box")
    assert not result.counts.remarks
