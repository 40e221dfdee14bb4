"""Saved detections and videos are scored again, and what differs is named; maps are tested in test_examine.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rectangles_with_boxes import TASK, rectangles
from tiny_videos import Colours, memory_videos, video_task

# score binds `open_data` when it is imported, which must not happen while a test replaces it.
import ocl_bench.evaluation.supplied.score  # noqa: F401
from ocl_bench import data as readers
from ocl_bench.cards.task import TaskSpec
from ocl_bench.data import OpenData
from ocl_bench.evaluation.plan import make_plan
from ocl_bench.evaluation.run import run
from ocl_bench.models.floors import build_grid
from ocl_bench.results.record import Result, read_rows
from ocl_bench.tables.validation.rescoring import Rescored, rescore

Case = tuple[TaskSpec, Result, OpenData]


@pytest.fixture(params=["detection", "video"])
def case(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    """A run with saved predictions, and its data where `rescore` looks for them."""
    if request.param == "detection":
        task, opened, model = TASK, rectangles(), build_grid(3, 3)
    else:
        task, opened, model = video_task(), memory_videos(3), Colours()
    monkeypatch.setattr(readers, "open_data", lambda *arguments, **keywords: opened)
    plan = make_plan(model, task, data=opened, device="cpu")
    return task, run(plan, results=tmp_path, save_predictions=True, progress=False), opened


def again(case: Case, root: Path) -> Rescored | str:
    task, result, _ = case
    assert result.path is not None
    return rescore(result, read_rows(result.path), task, result.path.with_suffix(".predictions"), root)


def files(case: Case) -> list[Path]:
    assert case[1].path is not None
    return sorted(path for path in case[1].path.with_suffix(".predictions").rglob("*") if path.is_file())


def test_what_was_predicted_scores_the_same(case: Case, tmp_path: Path) -> None:
    assert again(case, tmp_path) == Rescored(len(case[2].ids), [])


def test_predictions_of_another_sample_are_found(case: Case, tmp_path: Path) -> None:
    kept = files(case)
    if case[0].family == "detection":
        first, last = json.loads(kept[0].read_text()), json.loads(kept[-1].read_text())
        swapped = [{**entry, "image_id": first[0]["image_id"]} for entry in last[:2]]
        kept[0].write_text(json.dumps(swapped))
    else:
        kept[0].write_bytes(kept[-1].read_bytes())
    outcome = again(case, tmp_path)
    assert isinstance(outcome, Rescored) and outcome.problems
    assert all(field.startswith("rows.") and case[2].ids[0] in message for field, message in outcome.problems)


def test_a_missing_prediction_is_a_problem(case: Case, tmp_path: Path) -> None:
    files(case)[0].unlink()
    outcome = again(case, tmp_path)
    assert isinstance(outcome, Rescored) and {field for field, _ in outcome.problems} == {"predictions"}
