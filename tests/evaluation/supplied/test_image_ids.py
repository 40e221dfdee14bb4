"""Detections of COCO-like files are scored and written by the image id of the JSON file, as pycocotools does."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_trees import COCO_CATEGORIES, annotation, save_image, square, write_json
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ocl_bench.cards.names import get_task
from ocl_bench.evaluation.evaluate import evaluate
from ocl_bench.evaluation.supplied.score import replay, score_masks
from ocl_bench.families.summary import summarise
from ocl_bench.results.record import Result
from ocl_bench.results.rows import read_rows

SHAPE = (48, 64)
METRICS = ("ap_box", "ar100_box", "ap_mask", "ar100_mask")
NAMES = {1: "3.jpg", 2: "1.jpg", 12: "2.jpg", 30: "a/x.001.jpg", 7: "b/x.001.jpg", 100: "12.jpg", 9: "0100.png"}


def tree(root: Path, seed: int = 0) -> list[dict[str, Any]]:
    """Images of `NAMES` in an order of no kind, with three objects each; returns detections with many equal scores."""
    random, images, annotations, found = np.random.default_rng(seed), [], [], []
    for number, name in NAMES.items():
        save_image(root / "val2017" / name, SHAPE)
        images.append({"id": number, "file_name": name, "height": SHAPE[0], "width": SHAPE[1]})
        for _ in range(3):
            x, y, w, h = (int(value) for value in random.integers((0, 0, 8, 8), (40, 24, 20, 20)))
            polygon = square(x, y, x + w, y + h)
            box = {"bbox": [x, y, w, h], "area": w * h}
            annotations.append(annotation(len(annotations) + 1, number, polygon, **box))
            dx, dy = (int(value) for value in random.integers(-3, 4, 2))
            shifted = [max(x + dx, 0), max(y + dy, 0), w, h]
            found.append({"image_id": number, "category_id": 1, "bbox": shifted, "score": 0.5})
    content = {"images": images, "annotations": annotations, "categories": COCO_CATEGORIES}
    write_json(root / "annotations/instances_val2017.json", content)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(root / "annotations/instances_val2017.json"))
    for entry in found:
        x, y, w, h = entry["bbox"]
        image = {"segmentation": square(x, y, x + w, y + h), "image_id": entry["image_id"]}
        code = truth.annToRLE(image)
        entry["segmentation"] = {"size": list(code["size"]), "counts": code["counts"].decode()}
    return found


def expected(root: Path, found: list[dict[str, Any]]) -> dict[str, float]:
    """The numbers of pycocotools."""
    values: dict[str, float] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(root / "annotations/instances_val2017.json"))
        detections = truth.loadRes(found) if found else COCO()  # loadRes fails on an empty list
        if not found:
            detections.dataset = {**truth.dataset, "annotations": []}
            detections.createIndex()
        for kind, iou_type in (("box", "bbox"), ("mask", "segm")):
            evaluation = COCOeval(truth, detections, iou_type)
            evaluation.params.useCats = 0
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            values |= {f"ap_{kind}": float(evaluation.stats[0]), f"ar100_{kind}": float(evaluation.stats[8])}
    return values


def scored(root: Path, found: list[dict[str, Any]]) -> Result:
    path = write_json(root / "found.json", found)
    return score_masks("coco-detection", path, data_root=root, results=root / "results", progress=False)


def values(result: Result) -> dict[str, float | None]:
    return {name: result.metrics[name].value for name in METRICS}


@pytest.mark.parametrize("seed", range(3))
def test_any_names_and_ties_are_those_of_pycocotools(tmp_path: Path, seed: int) -> None:
    found = tree(tmp_path, seed)
    result = scored(tmp_path, found)
    assert values(result) == pytest.approx(expected(tmp_path, found), abs=1e-12)
    assert result.path is not None
    rows = read_rows(result.path)
    by_name = summarise(rows.drop(columns="image_id"), get_task("coco-detection"), "none")
    assert by_name["ap_box"].value != pytest.approx(result.metrics["ap_box"].value, abs=1e-9), "ties decide here"
    shuffled = summarise(rows.sample(frac=1, random_state=0), get_task("coco-detection"), "none")
    assert shuffled["ap_box"] == result.metrics["ap_box"], "the interval as well"


def test_an_empty_results_file_finds_nothing(tmp_path: Path) -> None:
    tree(tmp_path)
    result = scored(tmp_path, [])
    assert values(result) == expected(tmp_path, []) == dict.fromkeys(METRICS, 0.0)
    assert {result.metrics[name].n_valid for name in METRICS} == {len(NAMES)}


def test_saved_predictions_have_the_ids_of_the_file(tmp_path: Path) -> None:
    tree(tmp_path)
    result = evaluate(
        "grid", "coco-detection", data_root=tmp_path, results=tmp_path / "r", save_predictions=True, progress=False
    )
    assert result.path is not None
    folder = result.path.with_suffix(".predictions") / "seed-0"
    files = {path.relative_to(folder).as_posix(): json.loads(path.read_text()) for path in folder.rglob("*.json")}
    # Two folders hold `x.001`, so all samples are called by their paths.
    assert {name: {entry["image_id"] for entry in entries} for name, entries in files.items()} == {
        f"{name[:-4]}.json": {number} for number, name in NAMES.items()
    }
    assert replay(result.path, data_root=tmp_path, progress=False).equal
    known = [{**entry, "category_id": 1} for entries in files.values() for entry in entries]
    assert values(result) == pytest.approx(expected(tmp_path, known), abs=1e-12)
    assert values(scored(tmp_path, known)) == pytest.approx(values(result), abs=1e-12)
