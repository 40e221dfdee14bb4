"""A COCO results file, and the files that a run kept, score like the model that made them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rectangles_with_boxes import TASK, rectangles

from ocl_bench.cards.names import get_task
from ocl_bench.core.errors import UsageError
from ocl_bench.evaluation.plan import make_plan
from ocl_bench.evaluation.run import run
from ocl_bench.evaluation.supplied.detections import kept_plan, results_plan
from ocl_bench.models.floors import build_grid
from ocl_bench.results.record import Result


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
