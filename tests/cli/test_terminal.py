"""What verbs print fits a terminal of 80 columns; in a pipe every statement is one line that can be searched."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import forked
import pytest
import terminals

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs the pseudo-terminals of POSIX")
WHOLE = ("result:", "per image:", "picture:", "leaderboard:", "written:")
"""Lines with a path or a name that a break would make useless."""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"OCL_BENCH_RESULTS": str(tmp_path / "results")}


@pytest.mark.parametrize(
    "arguments",
    [
        "list models",
        "list --like CARD",
        "show coco-discovery",
        "show fg_ari",
        "show dias",
        "leaderboard -t clevrer-reasoning --out OUT",
        "compare dias dinosaur -t clevrtex",
        "train --suite embedded --dry-run",
        "check-model -m grid",
        "check-model -m MODEL",
        "data where clevrtex --data-root OUT",
    ],
)
def test_what_a_verb_prints_fits_a_terminal(arguments: str, tmp_path: Path, environment: dict[str, str]) -> None:
    card = Path("tasks/clevrtex.yaml").read_text().replace("crop: center-0.8", "crop: center-0.7")
    (tmp_path / "mine.yaml").write_text(card)
    (tmp_path / "broken.py").write_text(
        "def build():\n    return Broken()\nclass Broken:\n    def predict(self, batch):\n        return None\n"
    )
    places = {"CARD": str(tmp_path / "mine.yaml"), "OUT": str(tmp_path), "MODEL": f"{tmp_path}/broken.py:build"}
    lines = terminals.run(*(places.get(word, word) for word in arguments.split()), environment=environment)
    assert len(lines) > 2, lines
    assert [line for line in lines if len(line) > 80 and not line.startswith(WHOLE) and "/" not in line] == []


def test_compare_cuts_no_word_on_a_terminal() -> None:
    lines = terminals.run("compare", "dias-label-free", "slot-attention", "-t", "clevrtex")
    assert lines[0].strip() == "dias-label-free minus slot-attention"
    words = {word for line in lines for word in line.split()}
    assert {"clevrtex", "mbo_fg", "metric", "better", "bootstrap"} <= words


def test_an_evaluation_fits_a_terminal_and_its_commands_can_be_copied(environment: dict[str, str]) -> None:
    options = ["--option", "rows=2", "--option", "columns=3"]
    words = ["eval", "--model", "grid", "--task", "davis-2017", *options, "--limit", "2", "--no-pictures"]
    lines = terminals.run(*words, environment=environment)
    assert [line for line in lines if len(line) > 80 and not line.startswith(WHOLE) and "left" not in line] == []
    start = next(number for number, line in enumerate(lines) if line.startswith("next: "))
    end = next(number for number in range(start, len(lines)) if not lines[number].endswith("\\"))
    assert end > start, "too long for one line"
    command = "\n".join(lines[start : end + 1]).removeprefix("next: ").replace("\\\n", "")
    copied = ["ocl-bench", "eval", "--model", "grid", "--task", "davis-2017", *options]
    assert shlex.split(command, comments=True) == copied
    assert "jf ↑ (main)" in re.sub(" +", " ", "\n".join(lines)), "metrics below each other, not cut into signs"


def test_a_pipe_gets_one_line_for_each_statement(environment: dict[str, str]) -> None:
    done = forked.run(
        forked.command, "eval", "-m", "grid", "-t", "clevrtex", "--limit", "2", "--no-pictures", environment=environment
    )
    (signature,) = [line for line in done.stdout.splitlines() if line.startswith("signature: ")]
    assert signature.endswith("│v1") and len(signature) > 80
    assert "next: ocl-bench eval --model grid --task clevrtex   # all images" in done.stdout.splitlines()
    (speed,) = [line for line in done.stdout.splitlines() if line.startswith("supervision in training")]
    assert speed.endswith("pixels")
