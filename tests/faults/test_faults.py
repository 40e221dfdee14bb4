"""The short version of the long runs in docs/reliability.md: the same generators, fewer trials.

It runs in a process of its own that has imported everything and computed nothing, and forks for each trial.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import forked
import pytest
import run
from places import ROOT

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the harness forks")


def found(part: str, *arguments: str) -> dict[str, Any]:
    """What a part of the harness reports; it must find nothing."""
    done = forked.run(run.main, [part, *arguments], environment={"OMP_NUM_THREADS": "1"}, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-4000:]
    report: dict[str, Any] = json.loads(done.stdout)[part]
    assert report["faults"] == []
    return report


def test_malformed_inputs() -> None:
    report = found("malformed", "--cases", "12", "--seed", "12")
    assert report["cases"] == 12 == sum(report["exit codes"].values())
    assert set(report["exit codes"]) <= {"0", "1", "2", "3"}


@pytest.mark.parametrize("work", ["eval", "train"])
def test_kills(work: str) -> None:
    report = found("kills", "--trials", "2", "--only", work)
    assert report["trials"] == {work: 2}


def test_two_ranks_of_which_one_is_killed() -> None:
    assert sum(found("ranks", "--trials", "1")["trials"].values()) == 2


def test_several_trainings_with_one_folder() -> None:
    assert found("together", "--only", "6")["trials"] == {"trainings with one --out": 1}


def test_the_harness_sees_what_it_looks_for(tmp_path: Path) -> None:
    """A command that writes elsewhere, runs code, prints a traceback, takes long or too much is a fault."""
    script = """
import os, pickle, sys, time
from pathlib import Path
sys.path[:0] = [sys.argv[1] + "/tests/faults", sys.argv[1] + "/tests/helpers"]
import sandbox
given = Path(sys.argv[2]) / "given"
given.mkdir()
sandbox.SECONDS, sandbox.BYTES, sandbox._NEVER_ENDS = 0.5, 300 * 2**20, 3.0

def write(): Path("elsewhere").write_text("")
def write_result():
    Path("results").mkdir()
    Path("results/a").write_text("")
def start(): os.system("true")
def load(): pickle.loads(b"cos\\nsystem\\n.")
def fail(): raise ValueError("unforeseen")
def refuse(): print("error: no such file", file=sys.stderr); sys.exit(2)
def silent(): sys.exit(2)
def regress(): sys.exit(1)
def compute():
    end = time.process_time() + 0.7
    while time.process_time() < end: pass
def wait(): time.sleep(60)
def fill(): bytearray(400 * 2**20)
for act in (write, write_result, start, load, fail, refuse, silent, regress, compute, wait, fill):
    print(act.__name__, "|", "; ".join(sandbox.run(act, given).faults()))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, ROOT, tmp_path], capture_output=True, text=True, timeout=60, check=True
    )
    seen = dict(line.split(" | ") if " | " in line else (line.rstrip(" |"), "") for line in done.stdout.splitlines())
    assert seen.pop("write").startswith("writes ") and seen.pop("start").startswith("os.system")
    assert seen.pop("load").startswith("loads a pickle") and "traceback" in seen.pop("fail")
    assert seen.pop("wait") == "does not end" and seen.pop("silent") == "no line that begins with error:"
    assert seen.pop("regress") == "exit code 1 without a reason"
    assert seen.pop("compute").endswith(" s") and seen.pop("fill").endswith(" GiB")
    assert seen == {"write_result": "", "refuse": ""}


def test_damages_are_deterministic(tmp_path: Path) -> None:
    from generators import damage_names, damages_for, odd_value

    assert len(damage_names()) == len(set(damage_names())) > 50
    texts = []
    for seed in (0, 0, 1, 2, 3):
        path = tmp_path / "a.json"
        path.write_text(json.dumps({"images": [{"id": 1, "name": "a"}], "more": {"deep": [1.5, None]}}))
        odd_value(path, random.Random(seed), tmp_path)
        texts.append(path.read_text())
    assert texts[0] == texts[1] and len(set(texts)) >= 3
    assert {act.__name__ for act in damages_for(Path("a.yaml"))} > {"empty", "yaml_that_runs_code", "utf_16"}
    assert "record_of_garbage" in {act.__name__ for act in damages_for(Path("x.tfrecord-00000-of-00002"))}
