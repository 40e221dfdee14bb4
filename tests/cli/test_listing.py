"""`list`: tables that fit 80 columns on a terminal, bare names in a pipe."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from ocl_bench.cards.names import model_names, task_names
from ocl_bench.cli import app


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["list", *arguments])


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal of 80 columns shows."""
    shown = io.StringIO()
    console = Console(file=shown, width=80, force_terminal=True, color_system=None)
    monkeypatch.setattr("ocl_bench.cli.console.make_console", lambda: console)
    return shown


def lines_of(terminal: io.StringIO) -> list[str]:
    return [line.rstrip() for line in terminal.getvalue().splitlines()]


def test_a_pipe_gets_bare_names() -> None:
    assert call("tasks").stdout.splitlines() == task_names()
    assert call("models").stdout.splitlines() == model_names()
    both = call().stdout.splitlines()
    assert both == [
        "tasks:",
        *(f"  {name}" for name in task_names()),
        "models:",
        *(f"  {one}" for one in model_names()),
    ]
    assert call("movi-c", "movi-e").stdout.splitlines() == ["tasks:", "  movi-c", "  movi-e"]


def test_families_and_patterns_choose_names() -> None:
    assert call("tasks", "--family", "video", "movi*").stdout.split() == [f"movi-{letter}" for letter in "abcde"]
    video = call("models", "--family", "video").stdout.split()
    assert {"slotcontrast", "dias", "grid"} <= set(video) and "odis" not in video and "majority" not in video
    assert "jf" in call("metrics", "--family", "video").stdout.split()
    assert json.loads(call("--json", "movi-[ce]").stdout) == {"tasks": ["movi-c", "movi-e"], "models": []}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["taks"], "no task or model fits 'taks'; did you mean tasks"),
        (["models", "movi*"], "no model fits 'movi*'"),
        (["--family", "vido"], "--family vido: unknown; did you mean video?"),
        (["tasks", "--family", "knn", "movi*"], "no task of family knn fits 'movi*'"),
    ],
)
def test_what_fits_nothing_is_an_error_of_one_line(arguments: list[str], message: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2 and message in result.stderr and result.stdout == ""
    assert len(result.stderr.splitlines()) == 1


def test_a_terminal_gets_a_table_of_each_family(terminal: io.StringIO) -> None:
    assert call("tasks").exit_code == 0
    lines = lines_of(terminal)
    assert max(map(len, lines)) <= 80
    families = [lines[number - 1] for number, line in enumerate(lines) if line.startswith("task ")]
    assert families == [
        "contact",
        "detection",
        "discovery",
        "dynamics",
        "knn",
        "reasoning",
        "recognition",
        "segmentation",
        "video",
    ]
    row = next(line for line in lines if line.startswith("movi-c "))
    assert "MOVi-C validation" in row and row.split()[-3:] == ["embedded", "336", "8"]


def test_a_terminal_gets_a_table_of_each_role(terminal: io.StringIO) -> None:
    assert call("models").exit_code == 0
    lines = lines_of(terminal)
    assert max(map(len, lines)) <= 80
    rows = {line.split()[0]: line.split()[1:] for line in lines if line}
    assert rows["dias"] == ["2507.23755", "boxes", "weights", "0.29", "M"]
    assert rows["dias-paper"] == ["2507.23755", "none", "no", "weights", "-"]
    assert rows["kmeans-features"] == ["-", "boxes", "none", "needed", "-"]
    assert set(model_names()) <= set(rows)


def test_a_kind_without_a_fitting_name_has_no_table(terminal: io.StringIO) -> None:
    assert call("movi*").exit_code == 0
    assert "ocl-bench show MODEL" not in terminal.getvalue() and "ocl-bench show TASK" in terminal.getvalue()
