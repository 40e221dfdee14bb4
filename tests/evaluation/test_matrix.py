"""`--model all --task all`: what fits is evaluated, what fails is one cell, what is finished is reused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ocl_bench.cards.names import model_names, task_names
from ocl_bench.cli import app
from ocl_bench.core.errors import UsageError
from ocl_bench.evaluation.matrix import evaluate_matrix, exit_code_of, expand

MODELS = ["grid", "encoder", "no_such_file.py:build"]


def test_expand() -> None:
    models = expand("all", "model")
    assert set(models) < set(model_names()) and expand("all", "task") == task_names()
    assert {"dias", "grid", "oracle"} <= set(models) and not {"dias-paper", "slotcon-paper"} & set(models), "no weights"
    assert expand("grid, oracle,grid", "model") == ["grid", "oracle"]


def test_cells_that_fail_leave_the_others_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="ocl_bench"):
        cells = evaluate_matrix(MODELS, ["clevrtex"], results=tmp_path, limit=2, progress=False)
    lines = [record.message for record in caplog.records if record.message.startswith("clevrtex / ")]
    assert [cell.status for cell in cells] == ["ok", "n/a", "failed"]
    assert cells[0].result is not None and cells[0].result.data.limit == 2
    assert "Prediction.masks is missing" in cells[1].text and "does not exist" in cells[2].text
    assert (
        len(lines) == 3 and exit_code_of(cells) == 1 and exit_code_of(cells[:2]) == 0 and exit_code_of(cells[1:2]) == 2
    )
    again = evaluate_matrix(MODELS[:1], ["clevrtex"], results=tmp_path, limit=2, progress=False)
    assert again[0].result is not None and again[0].result.reused


def test_a_task_that_does_not_exist_is_an_error_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown task"):
        evaluate_matrix(["grid"], ["clevrtex", "clevrtx"], results=tmp_path, limit=2, progress=False)
    assert not any(tmp_path.iterdir())


def test_command_line(tmp_path: Path) -> None:
    arguments = ["eval", "--model", "grid,encoder", "--task", "clevrtex", "--limit", "2", "--results", str(tmp_path)]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0 and "mbo_fg" in shown.output and "n/a" in shown.output
    printed = CliRunner().invoke(app, [*arguments, "--json"])
    cells = json.loads(printed.stdout)
    assert [cell["status"] for cell in cells] == ["ok", "n/a"] and Path(cells[0]["path"]).is_file()
    path = Path(cells[0]["path"])
    written = path.stat().st_mtime_ns
    assert CliRunner().invoke(app, [*arguments, "--force", "--save-predictions"]).exit_code == 0
    assert path.stat().st_mtime_ns > written, "computed again"
    assert list(path.parent.rglob("*.png")), "the predictions are kept"


def test_a_misspelt_model_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown model 'gird'; did you mean .*grid"):
        evaluate_matrix(["grid", "gird"], ["clevrtex"], results=tmp_path, limit=2, progress=False)
    assert not any(tmp_path.glob("clevrtex*"))
