"""`--version`, and help that is grouped by purpose, with an example for each verb that the verb accepts."""

from __future__ import annotations

import platform
import re
import shlex
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from ocl_bench.cli import app

VERBS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
PURPOSES = ("Run:", "Look:", "Compare and publish:", "Models and training:", "Checks:", "Data:")


def output_of(*arguments: str) -> str:
    run = CliRunner().invoke(app, list(arguments))
    assert run.exit_code == 0, run.output
    return run.stdout


def test_version_names_suite_python_and_torch() -> None:
    lines = dict(line.split(" ", 1) for line in output_of("--version").splitlines())
    assert lines["ocl-bench"].split(" ")[0] == version("ocl-bench")
    assert lines["python"] == platform.python_version()
    assert lines["torch"] == version("torch")


@pytest.mark.parametrize(
    ("state", "line"),
    [
        (("", False), ""),
        (("a" * 40, False), " (commit aaaaaaaaaaaa)"),
        (("a" * 40, True), " (commit aaaaaaaaaaaa, edited)"),
    ],
)
def test_version_names_the_commit_of_a_checkout(
    monkeypatch: pytest.MonkeyPatch, state: tuple[str, bool], line: str
) -> None:
    monkeypatch.setattr("ocl_bench.results.provenance.git_state", lambda: state)
    assert output_of("--version").splitlines()[0] == f"ocl-bench {version('ocl-bench')}{line}"


def test_help_lists_every_verb_once_below_its_purpose() -> None:
    text = output_of("--help")
    places = [text.index(f"\n{purpose}\n") for purpose in PURPOSES]
    assert places == sorted(places)
    listed = re.findall(r"^  ([a-z][\w-]*)  ", text[places[0] :], re.MULTILINE)
    assert sorted(listed) == sorted(VERBS)


@pytest.mark.parametrize("name", [name for name in VERBS if name != "data"])
def test_help_of_a_verb_ends_with_an_example_that_it_accepts(name: str) -> None:
    last = output_of(name, "--help").rstrip().rsplit("Example: ", 1)[1]
    words = shlex.split(last)
    assert words[:2] == ["ocl-bench", name]
    VERBS[name].make_context(name, words[2:])  # raises for an unknown option or a missing argument


def test_completion_is_installed_and_completes_verbs_and_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")  # so that the shell can be named
    run = CliRunner().invoke(app, ["--install-completion", "bash"], prog_name="ocl-bench")
    assert run.exit_code == 0, run.output
    script = tmp_path / ".bash_completions" / "ocl-bench.sh"
    assert "_OCL_BENCH_COMPLETE=complete_bash" in script.read_text()
    assert str(script) in (tmp_path / ".bashrc").read_text()
    for words, number, expected in (("ocl-bench lead", 1, "leaderboard"), ("ocl-bench eval --devi", 2, "--device")):
        asked = {"_OCL_BENCH_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(number)}
        assert CliRunner().invoke(app, [], env=asked, prog_name="ocl-bench").stdout.split() == [expected]


@pytest.mark.parametrize(
    ("arguments", "start"),
    [
        (["show", "clevrtexx"], "error: no card 'clevrtexx'; did you mean clevrtex"),
        (["eval", "-m", "dais", "-t", "clevrtex"], "error: unknown model 'dais'; did you mean "),
        (["list", "--family", "vidoe"], "error: --family vidoe: unknown; did you mean "),
        (["eval", "-m", "grid", "-t", "clevrtex", "-o", "rosw=3"], "error: model grid: option 'rosw' is unknown; "),
        (["compare", "dais", "dias", "-t", "clevrtex"], "error: unknown model 'dais': no model and no result has"),
    ],
)
def test_a_suggestion_ends_the_message(arguments: list[str], start: str) -> None:
    run = CliRunner().invoke(app, arguments)
    assert run.exit_code == 2 and run.stderr.startswith(start)
    assert "; did you mean " in run.stderr and run.stderr.endswith("?\n") and "?;" not in run.stderr
