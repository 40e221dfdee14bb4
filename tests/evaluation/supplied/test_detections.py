"""A COCO results file, and the files that a run kept, score like the model that made them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from pycocotools import mask as coco_mask
from rectangles_with_boxes import TASK, rectangles

from ocl_bench.cards.names import get_task
from ocl_bench.core.boxes import FIRST_PIXEL, OUTSIDE, SWAPPED
from ocl_bench.core.errors import UsageError
from ocl_bench.core.types import Batch, Prediction
from ocl_bench.evaluation.plan import make_plan
from ocl_bench.evaluation.run import run
from ocl_bench.evaluation.shards import Shard, WorkFolder
from ocl_bench.evaluation.supplied.detections import kept_plan, results_plan
from ocl_bench.families.detection import NOT_ITS_MASK
from ocl_bench.models.floors import build_grid
from ocl_bench.results.record import Result, read_result


def evaluated(folder: Path, keep: bool = False) -> Result:
    plan = make_plan(build_grid(3, 3), TASK, data=rectangles(), device="cpu")
    return run(plan, results=folder, save_predictions=keep, progress=False)


def kept_files(result: Result) -> Path:
    assert result.path is not None
    return result.path.with_suffix(".predictions")


def values(result: Result) -> dict[str, float | None]:
    return {name: metric.value for name, metric in result.metrics.items()}


def test_kept_predictions_give_the_same_numbers(tmp_path: Path) -> None:
    result = evaluated(tmp_path / "first", keep=True)
    plan = kept_plan(TASK, rectangles(), kept_files(result), "again", "none", (0,), None, None)
    assert values(run(plan, results=tmp_path / "second", progress=False)) == values(result)
    next(kept_files(result).glob("seed-0/*.json")).unlink()
    with pytest.raises(UsageError, match="evaluate again"):
        kept_plan(TASK, rectangles(), kept_files(result), "again", "none", (0,), None, None)


def test_one_results_file_gives_the_same_numbers(tmp_path: Path) -> None:
    result = evaluated(tmp_path / "first", keep=True)
    files = sorted(kept_files(result).glob("seed-0/*.json"))
    entries = [entry for path in files for entry in json.loads(path.read_text())]
    merged = tmp_path / "results.json"
    merged.write_text(json.dumps(entries))
    scored = run(results_plan(TASK, rectangles(), merged, "mine"), results=tmp_path / "second", progress=False)
    assert values(scored) == pytest.approx(values(result), abs=1e-12)
    assert scored.data.kind == "supplied" and scored.model.name == "mine"


def test_a_bad_file_or_task_is_one_line(tmp_path: Path) -> None:
    merged = tmp_path / "results.json"
    merged.write_text(json.dumps([{"image_id": 77, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5}]))
    with pytest.raises(UsageError, match=r"image_id is 77, which is not one of the 6 images"):
        results_plan(TASK, rectangles(), merged, "mine")
    merged.write_text("[]")
    with pytest.raises(UsageError, match="scored on detection tasks without a head"):
        results_plan(get_task("coco-discovery"), rectangles(), merged, "mine")


class Boxes:
    """A detector whose boxes are those of the first object, after a change; in pixels of the 256 x 256 image."""

    def __init__(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.change = change

    def predict(self, batch: Batch) -> Prediction:
        data = rectangles()
        truth = [data.reader[data.ids.index(sample_id)].truth.instances[0].box for sample_id in batch.ids]
        pixels = torch.tensor(truth, dtype=torch.float32)[:, None] * torch.tensor([256 / 48, 256 / 32] * 2)
        return Prediction(boxes=self.change(pixels), scores=torch.ones(len(truth), 1))


def corners_to_sides(boxes: torch.Tensor) -> torch.Tensor:
    return torch.cat([boxes[..., :2] + 128, (boxes[..., 2:] - boxes[..., :2]) / 4], -1)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda boxes: boxes, None),
        (lambda boxes: boxes / 256, FIRST_PIXEL),
        (corners_to_sides, SWAPPED),
        (lambda boxes: boxes + 256, OUTSIDE),
    ],
)
def test_odd_boxes_of_a_model_are_counted_in_the_result_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: Callable[[torch.Tensor], torch.Tensor], kind: str | None
) -> None:
    plan = make_plan(Boxes(change), TASK, data=rectangles(), device="cpu", batch_size=4)
    result = run(plan, results=tmp_path, progress=False)
    value = result.value("ar100_box")
    assert value is not None and (value > 0) == (kind is None)
    assert result.path is not None
    assert read_result(result.path).counts.remarks == ({kind: 6} if kind else {})
    assert (f"6 {kind}" in caplog.text) if kind else not caplog.text


def test_odd_boxes_of_a_results_file_are_counted_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mask = np.zeros((32, 48), np.uint8, order="F")
    mask[20:30, 30:44] = 1
    code = coco_mask.encode(mask)
    segmentation = {"size": [32, 48], "counts": code["counts"].decode()}
    boxes = [[30, 20, 14, 10], [29, 18, 16, 13], [0.6, 0.6, 0.3, 0.3], [60, 40, 5, 5], [0, 0, 14, 10]]
    entries = [
        {"image_id": 1, "category_id": 1, "bbox": box, "score": 0.5, "segmentation": segmentation} for box in boxes
    ]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(entries))
    result = run(results_plan(TASK, rectangles(), path, "mine"), results=tmp_path, progress=False)
    assert result.counts.remarks == {FIRST_PIXEL: 1, OUTSIDE: 1, NOT_ITS_MASK: 3}
    assert "3 boxes that hold less than half of their own mask" in caplog.text


def test_kept_predictions_of_a_killed_run_keep_their_remarks(tmp_path: Path) -> None:
    shard = Shard(pandas.DataFrame({"id": ["a"]}), (), "boxes", 1.0, 1.0, {OUTSIDE: 2})
    work = WorkFolder(tmp_path / "work", {})
    work.write(0, shard)
    again = work.read(0)
    assert again is not None and again.remarks == {OUTSIDE: 2}
