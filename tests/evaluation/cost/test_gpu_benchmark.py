"""The run that waits for its GPU works at the size of a toy, goes on where it stopped, and invents no number."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from places import ROOT

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of the script, which finds its neighbours as it does when it is called."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return runpy.run_path(str(BENCHMARKS / "gpu.py"), run_name="gpu")


def run(script: dict[str, Any], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py", *arguments])
    script["main"]()


def test_every_part_runs_at_toy_size_and_is_written(
    script: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out, page = tmp_path / "toy.json", tmp_path / "page.md"
    run(script, monkeypatch, "--toy", "--out", str(out))
    assert "all parts are measured" in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert found["toy"] and list(found["parts"]) == list(script["PARTS"])
    for name in script["LOSSES"]:
        assert found["parts"][f"step {name}"]["bf16 compiled"]["seconds"] > 0
    page.write_text("".join(f"<!-- begin {name} -->\n<!-- end {name} -->\n" for name in ("gpu-steps", "gpu-parts")))
    run(script, monkeypatch, "--toy", "--out", str(out), "--write", str(page))
    text = page.read_text()
    assert "not measured" not in text and "a toy: these numbers say nothing" in text and text.count("| DIAS |") == 1


def test_parts_that_are_there_are_kept_and_time_that_is_over_begins_none(
    script: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out, measured = tmp_path / "toy.json", []

    def part(scale: Any, device: str) -> dict[str, int]:
        measured.append(device)
        if len(measured) == 2:
            raise KeyboardInterrupt
        return {"number": len(measured)}

    names = {"PARTS": {"one": part, "two": part}, "tables": lambda found: {}}
    for name, value in names.items():
        monkeypatch.setitem(script["main"].__globals__, name, value)
    with pytest.raises(KeyboardInterrupt):
        run(script, monkeypatch, "--toy", "--out", str(out))
    assert json.loads(out.read_text())["parts"] == {"one": {"number": 1}}
    run(script, monkeypatch, "--toy", "--out", str(out), "--minutes", "-1")
    assert "not measured yet, give the same command again: two" in capsys.readouterr().out and len(measured) == 2
    run(script, monkeypatch, "--toy", "--out", str(out))
    assert json.loads(out.read_text())["parts"] == {"one": {"number": 1}, "two": {"number": 3}}


def test_a_run_of_another_machine_is_not_continued_and_without_a_gpu_nothing_is_measured(
    script: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "other.json"
    out.write_text(json.dumps({"toy": False, "machine": {"device": "NVIDIA H200"}, "parts": {}}))
    with pytest.raises(SystemExit, match="choose another --out"):
        run(script, monkeypatch, "--toy", "--out", str(out))
    with pytest.raises(SystemExit, match="no GPU here"):
        run(script, monkeypatch, "--device", "cpu", "--out", str(tmp_path / "none.json"))


def test_the_page_shows_what_the_script_writes_before_anybody_had_a_gpu(script: dict[str, Any]) -> None:
    """When somebody has run it, this compares the page with the committed JSON instead."""
    stored = BENCHMARKS / "gpu.json"
    found = json.loads(stored.read_text()) if stored.is_file() else script["NOTHING"]
    page = (ROOT / "docs/at-scale.md").read_text()
    for name, text in script["tables"](found).items():
        assert f"<!-- begin {name} -->\n{text}\n<!-- end {name} -->" in page
