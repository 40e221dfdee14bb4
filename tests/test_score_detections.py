"""A COCO results file, and the files that a run kept, score like the model that made them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from ocl_bench.cards.names import get_task
from ocl_bench.core.errors import UsageError
from ocl_bench.core.types import Instance, Sample, Truth
from ocl_bench.data import OpenData
from ocl_bench.data.base import SampleSequence
from ocl_bench.evaluation.plan import make_plan
from ocl_bench.evaluation.run import run
from ocl_bench.evaluation.supplied.detections import kept_plan, results_plan
from ocl_bench.models.floors import build_grid
from ocl_bench.results.record import Result

TASK = get_task("coco-detection")


class Rectangles(SampleSequence):
    """Images with two rectangles, 32 x 48."""

    ids = tuple(f"{number:012d}" for number in range(6))

    def __getitem__(self, index: int) -> Sample:
        generator = np.random.default_rng(index)
        labels, instances = np.zeros((32, 48), np.int16), []
        for number in (1, 2):
            y, x = generator.integers(0, 16), generator.integers(0, 28)
            labels[y : y + 12, x : x + 16] = number
        for number in (1, 2):
            code = coco_mask.encode(np.asfortranarray((labels == number).astype(np.uint8)))
            x, y, w, h = coco_mask.toBbox(code)
            instances.append(Instance(1, (x, y, x + w, y + h), code, float(coco_mask.area(code))))
        return Sample(self.ids[index], np.zeros((32, 48, 3), np.uint8), Truth(labels, (1, 1), None, tuple(instances)))


def data() -> OpenData:
    reader = Rectangles()
    return OpenData(reader, "supplied", "r1", Path("."), reader.ids, "", {1: "rectangle"})


def evaluated(folder: Path, keep: bool = False) -> Result:
    plan = make_plan(build_grid(3, 3), TASK, data=data(), device="cpu")
    return run(plan, results=folder, save_predictions=keep, progress=False)


def kept_files(result: Result) -> Path:
    assert result.path is not None
    return result.path.with_suffix(".predictions")


def values(result: Result) -> dict[str, float | None]:
    return {name: metric.value for name, metric in result.metrics.items()}


def test_kept_predictions_give_the_same_numbers(tmp_path: Path) -> None:
    result = evaluated(tmp_path / "first", keep=True)
    plan = kept_plan(TASK, data(), kept_files(result), "again", "none", (0,), None, None)
    assert values(run(plan, results=tmp_path / "second", progress=False)) == values(result)
    next(kept_files(result).glob("seed-0/*.json")).unlink()
    with pytest.raises(UsageError, match="evaluate again"):
        kept_plan(TASK, data(), kept_files(result), "again", "none", (0,), None, None)


def test_one_results_file_gives_the_same_numbers(tmp_path: Path) -> None:
    result = evaluated(tmp_path / "first", keep=True)
    files = sorted(kept_files(result).glob("seed-0/*.json"))
    entries = [entry for path in files for entry in json.loads(path.read_text())]
    merged = tmp_path / "results.json"
    merged.write_text(json.dumps(entries))
    scored = run(results_plan(TASK, data(), merged, "mine"), results=tmp_path / "second", progress=False)
    assert values(scored) == pytest.approx(values(result), abs=1e-12)
    assert scored.data.kind == "supplied" and scored.model.name == "mine"


def test_a_bad_file_or_task_is_one_line(tmp_path: Path) -> None:
    merged = tmp_path / "results.json"
    merged.write_text(json.dumps([{"image_id": 77, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5}]))
    with pytest.raises(UsageError, match=r"image_id is 77, which is none of the 6 images"):
        results_plan(TASK, data(), merged, "mine")
    merged.write_text("[]")
    with pytest.raises(UsageError, match="scored on detection tasks without a head"):
        results_plan(get_task("coco-discovery"), data(), merged, "mine")
