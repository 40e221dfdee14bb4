"""`new` writes examples that work at once: their tests pass, and the suite evaluates them."""

from __future__ import annotations

import json
from pathlib import Path

import forked
import pytest
from typer.testing import CliRunner

from ocl_bench.cli import app

KINDS = ("model", "task", "metric")


def new(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["new", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("new")
    for kind in KINDS:
        new(kind, f"my_{kind}", "--out", folder / kind)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_the_tests_of_an_example_pass(written: Path, kind: str) -> None:
    done = forked.run(forked.tests, ".", cwd=written / kind, timeout=600)
    assert done.returncode == 0, done.stdout


def test_the_tests_of_an_example_find_a_mistake(tmp_path: Path) -> None:
    new("model", "mistaken_example", "--out", tmp_path)  # no other test loads a module of this name
    path = tmp_path / "mistaken_example.py"
    path.write_text(path.read_text().replace("noise = batch.noise(", "noise = torch.randn(images, "))
    done = forked.run(forked.tests, ".", "-k", "asks_of_a_model", cwd=tmp_path, timeout=600)
    assert done.returncode == 1 and "deterministic" in done.stdout


def test_an_example_of_a_task_is_evaluated(written: Path, tmp_path: Path) -> None:
    arguments = ["eval", "--task", "my_task.yaml", "--data-root", ".", "--limit", "16", "--json", "--no-pictures"]
    done = forked.run(forked.command, *arguments, "--model", "grid", "--results", str(tmp_path), cwd=written / "task")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["counts"]["scored"], result["data"]["kind"]) == (16, "supplied")


def test_each_command_that_comes_next_names_what_was_written(tmp_path: Path) -> None:
    lines = new("model", "mine", "--out", tmp_path / "a").splitlines()
    assert f"next: ocl-bench check-model --model {tmp_path}/a/mine.py:build" in lines
    assert f"next: pytest {tmp_path}/a" in lines


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_overwritten(written: Path, kind: str) -> None:
    before = {path: path.read_bytes() for path in (written / kind).rglob("*.*") if path.is_file()}
    message = new(kind, f"my_{kind}", "--out", written / kind, code=2)
    assert "is there already" in message and len(message.splitlines()) == 1
    assert before == {path: path.read_bytes() for path in before}


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("model", "my-model", "such as my_model"),
        ("task", "2nd", "use a letter, then letters"),
        ("model", "class", "use a letter, then letters"),
        ("metric", "../up", "such as up"),
        ("model", "torch", "is that of an installed module"),
        ("metric", "fg_ari", "is that of a metric of the suite"),
    ],
)
def test_names_that_do_not_work_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    output = new(kind, name, code=2)
    assert message in output and len(output.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
