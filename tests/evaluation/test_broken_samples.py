"""Broken samples of official layouts in a whole evaluation: counted, and the others are scored as without them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from scenes_with_classes import classed_scene
from typer.testing import CliRunner

from ocl_bench.cli import app
from ocl_bench.data.stand_ins.writers import find_writer
from ocl_bench.evaluation.evaluate import evaluate
from ocl_bench.results.record import Result

TASKS = {"coco-discovery": ("coco", "{:012d}"), "voc-discovery": ("voc2012", "2012_{:06d}")}
FIRST, COUNT, BROKEN = 20, 6, 23


def write_tree(folder: Path, task: str, numbers: range = range(FIRST, FIRST + COUNT)) -> Path:
    find_writer(TASKS[task][0])(folder, "val", [classed_scene(number) for number in numbers], numbers[0])
    return folder


def break_sample(root: Path, task: str) -> None:
    """COCO: an image that is missing. VOC: a mask that was re-saved in colour."""
    name = TASKS[task][1].format(BROKEN)
    if task == "coco-discovery":
        (root / f"val2017/{name}.jpg").unlink()
        return
    path = root / f"VOCdevkit/VOC2012/SegmentationObject/{name}.png"
    with Image.open(path) as picture:
        picture.convert("RGB").save(path)


def leave_out(root: Path, task: str) -> None:
    """Take the broken sample out of the split."""
    name = TASKS[task][1].format(BROKEN)
    if task == "coco-discovery":
        path = root / "annotations/instances_val2017.json"
        content = json.loads(path.read_text())
        content["images"] = [image for image in content["images"] if image["id"] != BROKEN]
        path.write_text(json.dumps(content))
        return
    path = root / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"
    path.write_text(path.read_text().replace(f"{name}\n", ""))


def values(result: Result) -> dict[str, float | None]:
    return {name: one.value for name, one in result.metrics.items()}


@pytest.mark.parametrize("task", TASKS)
def test_a_broken_sample_is_counted_and_the_others_are_scored(tmp_path: Path, task: str) -> None:
    root = write_tree(tmp_path / "tree", task)
    whole = evaluate("grid", task, data_root=root, results=tmp_path / "whole", progress=False)
    assert whole.counts.failed == () and whole.identity.status == "complete"
    break_sample(root, task)
    broken = evaluate("grid", task, data_root=root, results=tmp_path / "broken", progress=False)
    assert broken.identity.status == "failed samples"
    assert [failure.id for failure in broken.counts.failed] == [TASKS[task][1].format(BROKEN)]
    line = broken.counts.failed[0].error
    assert ("image file is missing" if "coco" in task else "is in colour, expected palette numbers") in line
    assert "\n" not in line and str(root) in line
    assert broken.counts.scored == whole.counts.scored - 1 == COUNT - 1
    leave_out(root, task)
    left = evaluate("grid", task, data_root=root, results=tmp_path / "left", progress=False)
    assert left.counts.failed == () and values(left) == values(broken) != values(whole)


def test_an_object_outside_its_image_changes_no_score(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "tree", "coco-discovery")
    path = root / "annotations/instances_val2017.json"
    before = evaluate("grid", "coco-discovery", data_root=root, results=tmp_path / "before", progress=False)
    content = json.loads(path.read_text())
    # Before the others, so that all their numbers change.
    stray = {**content["annotations"][0], "id": 9999, "segmentation": [[90, 90, 99, 90, 99, 99]]}
    path.write_text(json.dumps({**content, "annotations": [stray, *content["annotations"]]}))
    after = evaluate("grid", "coco-discovery", data_root=root, results=tmp_path / "after", progress=False)
    assert after.counts == before.counts and values(after) == values(before)


@pytest.mark.parametrize("task", TASKS)
def test_the_command_tells_the_failed_sample_and_exits_with_1(tmp_path: Path, task: str) -> None:
    root = write_tree(tmp_path / "tree", task)
    break_sample(root, task)
    arguments = ["eval", "--model", "grid", "--task", task, "--data-root", str(root)]
    found = CliRunner().invoke(app, [*arguments, "--results", str(tmp_path / "results")])
    assert found.exit_code == 1 and f"failed: sample {TASKS[task][1].format(BROKEN)}" in found.stderr
    shutil.rmtree(root)
    root.mkdir()
    found = CliRunner().invoke(app, [*arguments, "--results", str(tmp_path / "none")])
    assert found.exit_code == 3 and "looked in" in found.stderr and found.stderr.count("\n") <= 2
