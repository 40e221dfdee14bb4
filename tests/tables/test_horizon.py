"""Curves over the horizon: means and ratios of steps by hand, the floors of the same model, pictures, and reports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
import pytest
from clevrer_tree import clevrer_tree
from results_for_boards import image_values, write
from sliding_squares import Centres, dynamics_task, sliding

from ocl_bench.evaluation.plan import make_plan
from ocl_bench.evaluation.run import run
from ocl_bench.families import FAMILIES
from ocl_bench.pages.figures.runs import curves_of, run_figures
from ocl_bench.pages.report.build import report
from ocl_bench.pages.report.horizon import horizons
from ocl_bench.pages.report.run import Run, mean_over_seeds
from ocl_bench.results.record import Result
from ocl_bench.results.store import rows_of
from ocl_bench.tables.horizon import curves, of_the_model
from ocl_bench.tables.pictures.curves import write_curves
from ocl_bench.tables.pictures.of_result import sample_pictures

NONE = float("nan")
TASK = dynamics_task(fit={"head": "rollouter", "steps": 3, "batch": 2})


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    plan = make_plan(Centres(), TASK, data=sliding(3, first=100), train=sliding(6), device="cpu")
    return run(plan, results=tmp_path_factory.mktemp("horizon"), progress=False)


def test_steps_are_means_over_clips_and_ratios_of_sums() -> None:
    rows = pandas.DataFrame(
        {
            "steps_position_error": [[1.0, NONE, 3.0], None, [2.0, NONE, NONE]],
            "steps_slot_error": [[1.0, 2.0, 3.0], None, [3.0, 2.0, 0.0]],
            "steps_copy_error": [[4.0, 4.0, 0.0], None, [4.0, 0.0, 0.0]],
            "steps_fg_ari_future": [None, None, None],
        }
    )
    found = curves([("mine", "run", rows), ("old", "floor", rows[[]])])
    assert list(found) == ["position_error", "slot_mse_rel"], "no masks, no curve; rows of an older version have none"
    np.testing.assert_allclose(found["position_error"][0].values, [1.5, np.nan, 3.0])
    np.testing.assert_allclose(found["slot_mse_rel"][0].values, [0.5, 1.0, np.nan])
    assert [len(lines) for lines in found.values()] == [1, 1]


def test_the_mean_of_the_steps_is_the_metric(result: Result) -> None:
    """All objects of the squares are in view in all steps."""
    (curve,) = curves([("mine", "run", rows_of(result))])["position_error"]
    assert curve.values.shape == (12,) and curve.values.mean() == pytest.approx(result.value("position_error"))
    assert curve.values[:5].mean() == pytest.approx(result.value("position_error_1_5"))
    ratios = curves([("mine", "run", rows_of(result))])["slot_mse_rel"][0].values
    assert ratios.shape == (12,) and np.isfinite(ratios).all()


def test_floors_are_those_of_the_same_model(tmp_path: Path) -> None:
    values = image_values(0.5)
    mine = write(tmp_path, "copy-last", values, role="floor", model__options={"model": "dias"})
    other = write(tmp_path, "linear", values, role="floor", model__options={"model": "slotcontrast"})
    oracle = write(tmp_path, "oracle", values, role="ceiling")
    assert of_the_model([mine, other, oracle], ["dias"]) == [mine, oracle]


def test_a_report_has_a_chart_of_each_metric(result: Result) -> None:
    page = Run(result, mean_over_seeds(rows_of(result)), FAMILIES["dynamics"])
    charts = horizons([page], [])
    assert [chart["metric"] for chart in charts] == ["position_error", "slot_mse_rel", "fg_ari_future"]
    assert [chart["direction"] for chart in charts] == [-1, -1, 1]
    assert charts[0]["labels"][-1] == "12" and len(charts[0]["lines"][0]["values"]) == 12
    assert list(curves_of(page)) == [chart["metric"] for chart in charts]
    bare = replace(page, rows=page.rows.drop(columns=[name for name in page.rows if name.startswith("steps_")]))
    assert horizons([bare], []) == []


def test_the_picture_of_curves_is_drawn_and_drawn_alike(result: Result, tmp_path: Path) -> None:
    rows = rows_of(result)
    found = curves([("mine", "run", rows), ("copy-last", "floor", rows), ("linear", "floor", rows)])
    first = write_curves(tmp_path / "a.png", found, title="mine on tiny").read_bytes()
    assert first == write_curves(tmp_path / "b.png", found, title="mine on tiny").read_bytes()
    other = {metric: lines[:1] for metric, lines in found.items()}
    assert first != write_curves(tmp_path / "c.png", other, title="mine on tiny").read_bytes()


def test_a_storyboard_says_which_frames_are_predicted(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ocl_bench.tables.pictures import of_result, storyboard

    plan = make_plan(Centres(), TASK, data=sliding(3, first=100), train=sliding(6), device="cpu")
    texts: list[str] = []
    monkeypatch.setattr(storyboard, "_write", lambda figure, place, text: texts.append(text))
    monkeypatch.setattr(of_result, "_plan_of", lambda result, where: plan)
    (picture,) = sample_pictures(result, 1)
    assert picture.width > picture.height
    assert texts[:3] == ["0", "2", "5"] and texts[3].endswith(", predicted") and len(texts) == 8


def test_figures_and_report_of_a_run_show_its_clip(tmp_path: Path) -> None:
    """Of 56 frames of a video only those of the clip are saved: 6 that were seen, then 4 predicted ones."""
    root = clevrer_tree(tmp_path / "data", ("val", "train"))
    data = {"reader": "clevrer", "folder": "clevrer", "split": "val", "options": {"content": "frames"}}
    protocol = {"rollout": 4, "seen": 128}
    metrics = ["position_error", "slot_mse_rel"]
    task = dynamics_task(data=data, protocol=protocol, metrics=metrics, fit=TASK.fit.model_dump())  # type: ignore[union-attr]
    plan = make_plan(Centres(), task, data_root=root, device="cpu", progress=False)
    result = run(plan, results=tmp_path / "results", save_predictions=True, progress=False)
    assert result.path is not None
    written = run_figures(result.path, tmp_path / "figures", ("png",), task, root)
    assert [path.name for path in written] == [f"tiny-dynamics-{result.path.stem}{end}.png" for end in ("", "-steps")]
    page = report(result, out=tmp_path / "report.html", task=task, data_root=root, progress=False).read_text()
    assert "000032 (predicted)" in page and "000031 (predicted)" not in page and '"000031"' in page
    assert "slot_mse_rel against predicted step" in page
