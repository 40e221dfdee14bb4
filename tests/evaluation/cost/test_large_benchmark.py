"""The simulation of official sizes: it runs at toy size, its data are read, and it sees a kill and unequal rows."""

from __future__ import annotations

import importlib
import json
import runpy
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from places import ROOT

from ocl_bench.cards.names import get_task
from ocl_bench.core.errors import UsageError
from ocl_bench.data import open_data

BENCHMARKS = ROOT / "benchmarks"

EVALUATION = """
import hashlib, json, sys, time
from pathlib import Path
results, name = Path(sys.argv[1]), sys.argv[2]
work = results / "x.work"
work.mkdir(parents=True, exist_ok=True)
for number in range(8):
    shard = work / f"shard-{number:05d}.parquet"
    if not shard.exists():
        if number > 4 and results.name == "killed" and not (results / "mark").exists():
            (results / "mark").touch()
            time.sleep(60)
        shard.touch()
rows = hashlib.sha256(results.name.encode() if name == "different" else b"rows").hexdigest()
(results / "x.json").write_text(json.dumps({"rows": {"sha256": rows}}))
"""
"""Works off eight shards. The first run in the folder `killed` waits after five of them."""


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """`large_runs` and `large_parts`."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("large_runs"), importlib.import_module("large_parts")


def disturb(runs: Any, place: Path, name: str) -> Any:
    def command(results: Path, limit: int) -> list[str]:
        assert limit in (2, 8)
        return ["-c", EVALUATION, str(results), name]

    return runs.disturbed(place, 8, command, runs.shards_done, 4)


def test_the_command_measures_the_bank_at_toy_size_and_keeps_what_is_there(
    modules: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script, out, page = runpy.run_path(str(BENCHMARKS / "large.py")), tmp_path / "toy.json", tmp_path / "page.md"
    page.write_text("".join(f"<!-- begin {name} -->\n<!-- end {name} -->\n" for name in ("large-runs", "large-parts")))
    for _ in range(2):
        words = ["large.py", "--out", str(out), "--scale", "0.0001", "--parts", "neighbours", "--write", str(page)]
        monkeypatch.setattr(sys, "argv", words)
        script["main"]()
        found = json.loads(out.read_text())
        found["parts"]["neighbours"]["bank"] = 77  # the second run reads this and measures nothing
        out.write_text(json.dumps(found))
    part = found["parts"]["neighbours"]
    assert part["queries"] == 8 and part["search"]["top1"] > 0.1  # of 1000 classes
    assert "bank written (77 x 768" in page.read_text() and "these numbers say nothing" in page.read_text()
    monkeypatch.setattr(sys, "argv", ["large.py", "--out", str(out), "--scale", "0.5"])
    with pytest.raises(SystemExit, match="choose another --out"):
        script["main"]()


def test_a_run_is_killed_half_way_and_goes_on(modules: Any, tmp_path: Path) -> None:
    begin = time.monotonic()
    found = disturb(modules[0], tmp_path, "equal")
    assert found["killed"]["killed"] and not found["resumed"]["killed"] and 4 <= found["kept"] <= 5
    assert time.monotonic() - begin < 60  # the sleep was ended


def test_unequal_rows_and_a_run_that_ends_too_early_are_said(modules: Any, tmp_path: Path) -> None:
    runs = modules[0]
    with pytest.raises(UsageError, match="differ"):
        disturb(runs, tmp_path, "different")
    with pytest.raises(UsageError, match="larger --scale"):
        runs.disturbed(tmp_path, 8, lambda results, limit: ["-c", EVALUATION, str(results), ""], lambda path: 0, 4)
    with pytest.raises(UsageError, match="failed, see"):
        runs.run(["-c", "raise SystemExit(3)"], tmp_path)


def test_readers_read_the_data_that_are_made(modules: Any, tmp_path: Path) -> None:
    parts = modules[1]
    sizes = replace(parts.Sizes().scaled(0.001), images=65, videos=3)
    (made,) = parts.pictures(tmp_path / "pictures")[:1]
    parts.write_images(tmp_path / "coco", sizes, [made] * parts.DISTINCT)
    coco = open_data(get_task("coco-discovery"), data_root=tmp_path)
    assert len(coco.ids) == 65 and coco.kind == "official" and len(coco.reader[64].truth.categories) == 7
    parts.write_videos(tmp_path / "ytvis2021", sizes)
    videos = open_data(get_task("ytvis-2021-all300"), data_root=tmp_path)
    assert len(videos.ids) == 3 and [len(videos.reader[n].frames) for n in range(3)] == [3, 3, 3]


def test_the_thread_that_looks_ends_when_the_measured_part_fails(modules: Any) -> None:
    watching = importlib.import_module("watching")
    looks: list[int] = []

    def look() -> float:
        looks.append(1)
        return 1.0

    with pytest.raises(ValueError, match="here"), watching.looking(look, 0.001):
        while not looks:
            time.sleep(0.001)
        raise ValueError("here")
    count = len(looks)
    time.sleep(0.02)
    assert len(looks) == count


def test_the_page_shows_what_the_script_writes(modules: Any) -> None:
    """Before somebody has run it at full size and committed the JSON, it invents no number."""
    stored, script = BENCHMARKS / "large.json", runpy.run_path(str(BENCHMARKS / "large.py"))
    found = json.loads(stored.read_text()) if stored.is_file() else {"scale": 1.0, "processors": 0, "parts": {}}
    page = (ROOT / "docs/at-scale.md").read_text()
    for name, text in script["tables"](found).items():
        assert f"<!-- begin {name} -->\n{text}\n<!-- end {name} -->" in page
