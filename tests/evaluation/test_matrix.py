"""`--model all --task all`: what fits is evaluated, what fails is one cell, what is finished is reused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest
from typer.testing import CliRunner

from ocl_bench.cards.names import get_task, model_names, task_names
from ocl_bench.cli import app
from ocl_bench.core.errors import UsageError
from ocl_bench.evaluation.matrix import evaluate_matrix, exit_code_of, expand, several

MODELS = ["grid", "encoder", "no_such_file.py:build"]


def test_expand() -> None:
    models = expand("all", "model")
    assert set(models) < set(model_names()) and expand("all", "task") == task_names()
    assert {"dias", "grid", "oracle"} <= set(models) and not {"dias-paper", "slotcon-paper"} & set(models), "no weights"
    assert expand("grid, oracle,grid", "model") == ["grid", "oracle"]


def test_suites_and_patterns_stand_for_names() -> None:
    assert expand("movi-[ce],clevrtex", "task") == ["movi-c", "movi-e", "clevrtex"]
    tasks = expand("suite:video", "task")
    assert {get_task(name).family for name in tasks} == {"video"} and "movi-c" in tasks and "ytvis-2021" in tasks
    with_weights = ["dias", "dias-clevrer", "dias-label-free", "dias-odis"]
    assert expand("dias*", "model") == with_weights, "dias-paper has none here"
    models = expand("suite:reasoning,odis", "model")
    assert {"majority", "dias"} <= set(models) and models[-1] == "odis" and "ibot" not in models
    assert several("suite:video") and several("movi*") and several("a,b") and several("all")
    assert not any(map(several, ("movi-c", "dias:1", "folder[1]/card.yaml", "folder[1]/model.py:build")))


def test_names_and_paths_stand_in_one_list() -> None:
    assert expand("my.py:build,grid,other.py:build", "model") == ["my.py:build", "grid", "other.py:build"]
    assert expand("clevrtex,movi-[ce],my-task.yaml", "task") == ["clevrtex", "movi-c", "movi-e", "my-task.yaml"]
    assert all(map(several, ("grid,my.py:build", "my.py:build,grid", "my.py:build,my.py:other", "clevrtex,card.yaml")))


def test_a_file_with_a_comma_in_its_name_is_one(tmp_path: Path) -> None:
    card, code = tmp_path / "my,card.yaml", tmp_path / "a,b.py"
    for path in (card, code):
        path.touch()
    assert not several(str(card)) and not several(f"{code}:build")
    assert expand(str(card), "task") == [str(card)] and expand(f"{code}:build", "model") == [f"{code}:build"]


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("suite:vido", "task", "--task suite:vido: there is no such suite; there are suite:FAMILY with discovery, "),
        ("mov*x", "task", r"--task 'mov\*x': fits no task; see `ocl-bench list tasks`"),
        ("dias-p*", "model", r"--model 'dias-p\*': fits no model that runs without --checkpoint"),
    ],
)
def test_what_stands_for_nothing_is_an_error(text: str, kind: Literal["model", "task"], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        expand(text, kind)


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


def test_each_pair_ends_with_a_line_that_can_be_searched(tmp_path: Path) -> None:
    arguments = ["eval", "-m", "gri*,no such", "-t", "clevrtex", "--limit", "2", "--results", str(tmp_path)]
    assert CliRunner().invoke(app, arguments).exit_code == 2, "a name that does not exist stops all before the start"
    arguments[2] = "gri*,encoder"
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0
    done, unfit = shown.stdout.splitlines()[-2:]
    content = json.loads(next(tmp_path.glob("clevrtex/grid/*.json")).read_text())
    metric = content["metrics"]["mbo_fg"]
    fields = dict(field.split("=") for field in done.removeprefix("result: ").split(" "))
    assert [*fields] == ["model", "task", "metric", "value", "interval", "key"]
    assert (fields["model"], fields["task"], fields["metric"]) == ("grid", "clevrtex", "mbo_fg")
    assert float(fields["value"]) == pytest.approx(metric["value"], rel=1e-5)
    assert [float(end) for end in fields["interval"].split(",")] == pytest.approx(metric["ci95"], rel=1e-5)
    assert fields["key"] == content["identity"]["key"]
    assert unfit == "result: model=encoder task=clevrtex status=n/a"
    printed = CliRunner().invoke(app, [*arguments, "--json"])
    assert done in printed.stderr.splitlines() and "result: " not in printed.stdout


def test_a_log_hears_of_the_work_within_a_cell(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="ocl_bench"):
        evaluate_matrix(["grid"], ["clevrtex"], results=tmp_path, limit=2)
    assert "grid on clevrtex: 2 images" in [record.message for record in caplog.records]


def test_a_misspelt_model_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown model 'gird'; did you mean .*grid"):
        evaluate_matrix(["grid", "gird"], ["clevrtex"], results=tmp_path, limit=2, progress=False)
    assert not any(tmp_path.glob("clevrtex*"))
