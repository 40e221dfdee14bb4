"""The GitHub Action: its inputs are used, its scripts are bash, and what they run is a gate that can be red."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from clevrtex_tree import SCENES, write_scenes
from places import ROOT
from typer.testing import CliRunner, Result

from ocl_bench.cli import app
from ocl_bench.tables.gate.golden import Tolerance
from ocl_bench.tables.gate.recording import make_golden

ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
STEPS: list[dict[str, Any]] = ACTION["runs"]["steps"]


def step(name: str) -> dict[str, Any]:
    (found,) = [one for one in STEPS if one["name"] == name]
    return found


def test_steps_stand_in_an_order_that_works() -> None:
    assert ACTION["runs"]["using"] == "composite"
    assert [one.get("uses", one["name"]) for one in STEPS] == [
        "actions/setup-python@v5",
        "actions/cache@v4",
        "Install ocl-bench",
        "Gate",
    ]
    assert all(one["shell"] == "bash" for one in STEPS if "run" in one)
    assert "constraints.txt" in step("Install ocl-bench")["run"]


def test_every_input_is_declared_described_and_used() -> None:
    used = set(re.findall(r"inputs\.([\w-]+)", json.dumps(STEPS)))
    assert used == set(ACTION["inputs"]) == {"golden", "task", "model", "python-version", "args"}
    assert all(one["description"] and isinstance(one["default"], str) for one in ACTION["inputs"].values())


@pytest.mark.parametrize("name", [one["name"] for one in STEPS if "run" in one])
def test_scripts_are_bash_and_hold_no_expression(name: str) -> None:
    script = step(name)["run"]
    assert "${{" not in script  # text of a pull request would become code
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def gate_line(tmp_path: Path, **inputs: str) -> list[str]:
    """The words of the command that the step runs for these inputs: `ocl-bench` is replaced by one that says them."""
    shim = tmp_path / "bin" / "ocl-bench"
    shim.parent.mkdir(exist_ok=True)
    shim.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    shim.chmod(0o755)
    given = {name: one["default"] for name, one in ACTION["inputs"].items()} | inputs
    gate = step("Gate")
    values = {k: re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda m: given[m[1]], v) for k, v in gate["env"].items()}
    outcome = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", gate["run"]],
        env={"PATH": f"{shim.parent}:{os.environ['PATH']}", **values},
        capture_output=True,
        text=True,
        check=True,
    )
    return outcome.stdout.splitlines()


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden files")  # a space in the name
    write_scenes(folder / "scenes")
    for model in ("grid", "single-slot"):
        exact = Tolerance(absolute=1e-9)
        make_golden("clevrtex", model, folder, limit=SCENES, scenes="scenes", tolerance=exact, reason="first")
    return folder


def call(words: list[str], **environment: str) -> Result:
    return CliRunner(env=environment).invoke(app, words)


def test_its_command_is_green_and_checks_what_the_inputs_choose(golden: Path, tmp_path: Path) -> None:
    assert gate_line(tmp_path) == ["regress", "--baseline", "golden"]
    every = call(gate_line(tmp_path, golden=str(golden)))
    assert every.exit_code == 0 and "2 golden files" in every.stdout
    one = call(gate_line(tmp_path, golden=str(golden), task="clevrtex", model="grid", args="--device cpu --json"))
    assert one.exit_code == 0 and json.loads(one.stdout)["failed"] is False
    none = call(gate_line(tmp_path, golden=str(golden), model="dias"))
    assert none.exit_code == 2 and "it has clevrtex/grid, clevrtex/single-slot" in none.stderr


def test_inputs_are_words_and_never_code(tmp_path: Path) -> None:
    words = gate_line(tmp_path, golden="a b; $(touch x)", task='"; exit 1', args="--device `id` *")
    assert words == ["regress", "--baseline", "a b; $(touch x)", "--task", '"; exit 1', "--device", "`id`", "*"]
    lines = gate_line(tmp_path, args="--device cpu\n--annotations none\n")
    assert lines[-4:] == ["--device", "cpu", "--annotations", "none"], "a block of YAML has several lines"


def test_a_fall_is_red_and_marked_in_the_golden_file(golden: Path, tmp_path: Path) -> None:
    path = golden / "clevrtex" / "grid.json"
    kept = path.read_text()
    content = json.loads(kept)
    content["rows"]["mbo_fg"] = [value + 0.1 for value in content["rows"]["mbo_fg"]]
    content["metrics"]["mbo_fg"]["value"] += 0.1
    content["rows"]["ari"] = [value - 0.1 for value in content["rows"]["ari"]]
    content["metrics"]["ari"]["value"] -= 0.1
    path.write_text(json.dumps(content))
    words = gate_line(tmp_path, golden=str(golden), model="grid")
    try:
        outcome = call(words, GITHUB_ACTIONS="true")
        silent = call([*words, "--annotations", "none"], GITHUB_ACTIONS="true")
        document = call([*words, "--json", "--annotations", "github"])
    finally:
        path.write_text(kept)
    assert outcome.exit_code == silent.exit_code == document.exit_code == 1
    marks = [line for line in outcome.stderr.splitlines() if line.startswith("::")]
    (error,), (warning,) = ([m for m in marks if m.startswith(f"::{level} ")] for level in ("error", "warning"))
    place = str(path).replace(":", "%3A").replace(",", "%2C")
    assert error.startswith(f"::error file={place},title=clevrtex/grid::mbo_fg: ") and "95%25 interval" not in error
    assert "paired 95 %25 interval" in error and "rose by 0.1" in warning
    assert "::" not in silent.stderr and "::error" in document.stderr
    assert {finding["file"] for finding in json.loads(document.stdout)["findings"]} == {str(path)}


def test_a_first_golden_file_of_a_users_own_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As docs/ci.md says: accept once with the reason, then the gate measures the same again."""
    write_scenes(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    Path("src").mkdir()
    Path("src/model.py").write_text(
        "from ocl_bench import Prediction\n\n\nclass Halves:\n"
        "    def predict(self, batch):\n"
        "        left = batch.image[:, :1] * 0\n"
        "        left[..., : left.shape[-1] // 2] = 1\n"
        "        return Prediction(masks=__import__('torch').cat([left, 1 - left], 1))\n\n\n"
        "def build():\n    return Halves()\n"
    )
    chosen = ["regress", "--baseline", "golden", "--task", "clevrtex", "--model", "src/model.py:build"]
    assert call([*chosen, "--accept", "--limit", "2"]).exit_code == 2  # without a reason
    first = call([*chosen, "--accept", "--why", "first", "--limit", "2", "--absolute", "0.02", "--relative", "0"])
    path = Path("golden/clevrtex/src-model.py-build.json")
    assert first.exit_code == 0 and path.is_file(), first.output
    content = json.loads(path.read_text())
    assert content["tolerance"] == {"absolute": 0.02, "relative": 0} and content["accepted"][0]["reason"] == "first"
    assert call(chosen).exit_code == 0
    Path("src/model.py").write_text(Path("src/model.py").read_text().replace("= 1\n", "= 0\n"))
    assert call(chosen).exit_code == 1
    again = call([*chosen, "--accept", "--why", "the halves were too easy"])
    reasons = [entry["reason"] for entry in json.loads(path.read_text())["accepted"]]
    assert again.exit_code == 0 and reasons == ["first", "the halves were too easy"]
    assert call(gate_line(tmp_path, task="clevrtex", model="src/model.py:build")).exit_code == 0


def documented() -> dict[str, Any]:
    page = (ROOT / "docs" / "ci.md").read_text()
    (body,) = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return yaml.safe_load(body)


def test_the_documented_workflow_gives_inputs_that_exist() -> None:
    (job,) = documented()["jobs"].values()
    (use,) = [one for one in job["steps"] if "ocl-bench@" in one.get("uses", "")]
    assert set(use["with"]) <= set(ACTION["inputs"])
    assert use["with"]["python-version"] == next(
        one["with"]["python-version"] for one in job["steps"] if "setup-python" in one.get("uses", "")
    )
    assert documented()["permissions"] == {"contents": "read"}
    for script in (one["run"] for one in job["steps"] if "run" in one):
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
        assert shlex.split(script)
