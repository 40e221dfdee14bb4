"""The command line with models and results of users: names, seeds, errors of their code, and where files go."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from ocl_bench.cli import app
from ocl_bench.core.paths import bundled

NET = "import torch\ndef masks(batch):\n    m = torch.zeros(len(batch), 2, 8, 8)\n    m[:, 0, :4] = 1\n    return m\n"
MODEL = """
from __future__ import annotations
from dataclasses import dataclass
from pathlib import Path
import torch
from ocl_bench import Prediction
from net import masks
import net

@dataclass
class Net:
    bias: torch.Tensor

    def predict(self, batch):
        return Prediction(masks=(masks(batch) * self.bias).sigmoid(), mask_source="clusters")

def build():
    return Net(torch.tensor(float((Path(__file__).parent / "bias.txt").read_text())))
"""
BROKEN = """
import torch
def runtime():
    torch.nn.Linear(2, 2).load_state_dict({"weight": torch.zeros(3, 2)})
def key():
    return {}["state_dict"]
def attribute():
    return torch.nn.Identity().encoder
def missing():
    import a_package_that_is_not_there
def leave():
    raise SystemExit(1)
class Moved:
    def predict(self, batch): ...
    def to(self, device):
        raise KeyError("moved")
class Counted(Moved):
    def to(self, device):
        return self
    def parameters(self):
        raise RuntimeError("counted")
class Predicting:
    def predict(self, batch):
        raise LookupError("predicting")
"""


def call(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images, a card, and two models of one file name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OCL_BENCH_RESULTS", raising=False)
    monkeypatch.delenv("OCL_BENCH_DEBUG", raising=False)
    generator = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for number in range(6):
        labels = np.zeros((16, 16), np.uint8)
        labels[:8] = 1
        labels[10:14, 2 * number : 2 * number + 4] = 2
        Image.fromarray(labels).save(tmp_path / "data" / "masks" / f"i{number}.png")
        Image.fromarray(generator.integers(0, 255, (16, 16, 3), np.uint8)).save(
            tmp_path / "data" / "images" / f"i{number}.png"
        )
    (tmp_path / "card.yaml").write_text(
        "name: mine\nversion: 1\nfamily: discovery\ndata: {reader: folder}\n"
        "protocol: {input: 16, score_at: 16}\nmetrics: [mbo_fg, ari]\nmain: mbo_fg\n"
    )
    for name, bias in (("a", "1.0"), ("b", "-1.0")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.py").write_text(MODEL)
        (tmp_path / name / "net.py").write_text(NET)
        (tmp_path / name / "bias.txt").write_text(bias)
    (tmp_path / "broken.py").write_text(BROKEN)
    return tmp_path


def evaluate(*arguments: Any) -> Result:
    return call("eval", "-t", "card.yaml", "--data-root", "data", "--no-pictures", *arguments)


def test_two_model_files_of_one_name_give_two_rows(place: Path) -> None:
    for name in "ab":
        outcome = evaluate("-m", f"{name}/model.py:build")
        assert outcome.exit_code == 0, outcome.output
        assert "supervision in training: undeclared" in outcome.stdout and "--supervision none" in outcome.stdout
    assert call("leaderboard", "-t", "card.yaml").exit_code == 0
    lines = list(csv.DictReader((place / "results" / "leaderboards" / "mine.csv").read_text().splitlines()))
    assert len({line["model"] for line in lines}) == 2 == len({line["mbo_fg"] for line in lines})
    assert all(line["model"].startswith("model-build ") and line["supervision"] == "undeclared" for line in lines)


def test_names_and_seeds_of_a_user_reach_a_verdict(place: Path) -> None:
    """Three trainings of each method, named by their seeds, by name and by files."""
    for name, sign in (("a", 1), ("b", -1)):
        for seed in range(3):
            (place / name / "bias.txt").write_text(str(sign * (1 + seed)))
            outcome = evaluate("-m", f"{name}/model.py:build", "--name", f"method-{name}", "--training-seed", seed)
            assert outcome.exit_code == 0, outcome.output
    assert (
        f"--name method-b --training-seed {seed}"
        in evaluate(*("-m", "b/model.py:build", "--name", "method-b", "--training-seed", seed, "--limit", 3)).stdout
    )
    by_name = call("compare", "method-a", "method-b", "-t", "card.yaml", "--json")
    assert by_name.exit_code == 0, by_name.output
    (first,) = json.loads(by_name.stdout)["comparisons"]
    assert first["training_seeds_a"] == [0, 1, 2] and first["verdict"] == "worse" and first["seed_signs"] == [-1] * 3
    files = [
        sorted(path for path in (place / "results" / "mine").glob(f"method-{name}*/*.json") if not limited(path))
        for name in "ab"
    ]
    by_files = call("compare", *files[0], "--against", *files[1], "-t", "card.yaml", "--json")
    assert by_files.exit_code == 0, by_files.output
    assert json.loads(by_files.stdout)["comparisons"][0]["difference"] == first["difference"]
    refused = call("compare", *files[0], "-t", "card.yaml")
    assert refused.exit_code == 2 and "--against B1 B2 B3" in refused.stderr


def limited(path: Path) -> bool:
    return json.loads(path.read_text())["data"]["limit"] is not None


def test_compare_takes_a_model_as_eval_does(place: Path) -> None:
    assert evaluate("-m", "a/model.py:build").exit_code == 0
    assert evaluate("-m", "grid").exit_code == 0
    outcome = call("compare", "a/model.py:build", "grid", "-t", "card.yaml")
    assert outcome.exit_code == 0 and "model-build minus grid" in outcome.stdout, outcome.output


def test_an_unknown_name_is_named_first(place: Path) -> None:
    outcome = call("compare", "dias", "mein", "-t", "card.yaml")
    assert outcome.exit_code == 2
    assert outcome.stderr.startswith("error: unknown model 'mein': no model and no result has this name")


def test_a_reserved_name_is_refused(place: Path) -> None:
    outcome = evaluate("-m", "a/model.py:build", "--name", "dias")
    assert outcome.exit_code == 2 and "name 'dias': is that of a bundled model" in outcome.stderr
    outcome = call("score", "-t", "card.yaml", "--data-root", "data", "--masks", "data/masks", "--name", "dias")
    assert outcome.exit_code == 2 and "is the name of a bundled model" in outcome.stderr
    outcome = call("eval", "-m", "grid,random", "-t", "card.yaml", "--name", "two")
    assert outcome.exit_code == 2 and "are of one model" in outcome.stderr


def test_supplied_masks_have_seeds_and_a_declaration(place: Path) -> None:
    arguments = ("score", "-t", "card.yaml", "--data-root", "data", "--masks", "data/masks", "--json")
    content = json.loads(call(*arguments).stdout)
    assert content["model"]["supervision"] == "undeclared" and content["model"]["input_size"] is None
    content = json.loads(call(*arguments, "--name", "own", "--training-seed", 2, "--supervision", "none").stdout)
    assert (content["model"]["name"], content["model"]["training_seed"]) == ("own:2", 2)
    assert content["model"]["supervision"] == "none"


@pytest.mark.parametrize(
    ("attribute", "text"),
    [
        ("runtime", "RuntimeError: Error(s) in loading state_dict for Linear"),
        ("key", "KeyError: 'state_dict'"),
        ("attribute", "AttributeError: 'Identity' object has no attribute 'encoder'"),
        ("missing", "ModuleNotFoundError: No module named 'a_package_that_is_not_there'"),
        ("leave", "SystemExit: 1"),
        ("Moved", "KeyError: 'moved'"),
        ("Counted", "RuntimeError: counted"),
        ("Predicting", "LookupError: predicting"),
    ],
)
@pytest.mark.parametrize("verb", ["eval", "check-model", "profile"])
def test_an_error_of_their_code_names_their_line(place: Path, verb: str, attribute: str, text: str) -> None:
    task = () if verb == "profile" else ("-t", "card.yaml")
    data = ("--data-root", "data") if verb == "eval" else ()
    outcome = call(verb, "-m", f"broken.py:{attribute}", *task, *data)
    said = " ".join((outcome.stderr + outcome.stdout).split())
    assert outcome.exit_code == 2, outcome.output
    assert "Traceback" not in said
    if verb == "check-model" and attribute == "Predicting":  # in a table, whose cells are folded
        assert "LookupError:" in said and "line 2" in said, said
    else:
        assert text in said and "broken.py line " in said, said


def test_debug_shows_the_traceback_and_keeps_line_and_code(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("eval", "-m", "broken.py:key", "-t", "card.yaml", "--data-root", "data")
    plain = call(*arguments)
    for outcome in (call("--debug", *arguments), call(*arguments, "--debug")):
        assert outcome.exit_code == 2 and 'return {}["state_dict"]' in outcome.stderr
        assert outcome.stderr.startswith("Traceback") and outcome.stderr.endswith(plain.stderr)
    monkeypatch.setenv("OCL_BENCH_DEBUG", "1")
    assert call(*arguments).stderr.startswith("Traceback")
    assert "--debug" in call("--help").stdout


@pytest.mark.parametrize("verb", ["eval", "check-model", "profile"])
def test_an_ordinary_model_file_works_in_every_verb(place: Path, verb: str) -> None:
    """A dataclass with postponed annotations, a module beside it, and a data file beside it."""
    task = () if verb == "profile" else ("-t", "card.yaml")
    data = ("--data-root", "data", "--no-pictures") if verb == "eval" else ()
    outcome = call(verb, "-m", "a/model.py:build", *task, *data)
    assert outcome.exit_code == 0, outcome.output


def test_leaderboard_and_claims_leave_committed_files_alone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a checkout `leaderboards` is the committed folder."""
    monkeypatch.chdir(bundled("leaderboards").parent)
    monkeypatch.setenv("OCL_BENCH_RESULTS", str(place / "mine"))
    before = {path: path.stat().st_mtime_ns for path in bundled("leaderboards").rglob("*")}
    outcome = call("leaderboard", "-t", "clevrtex")
    assert outcome.exit_code == 0 and str(place / "mine" / "leaderboards" / "clevrtex.csv") in outcome.stdout
    (place / "mine").mkdir(exist_ok=True)
    outcome = call("claims", "--results", place / "mine")
    assert outcome.exit_code == 0 and (place / "mine" / "leaderboards" / "claims.md").is_file()
    assert {path: path.stat().st_mtime_ns for path in bundled("leaderboards").rglob("*")} == before


def test_a_huge_option_is_one_line() -> None:
    for option in ("iterations=1000000000", "slots=100000", "width=1" + "0" * 5000):
        outcome = call("eval", "-m", "dias", "-t", "clevrtex", "-o", option)
        assert outcome.exit_code == 2 and outcome.stderr.count("\n") == 1, outcome.output
        assert outcome.stderr.startswith("error: ") and len(outcome.stderr) < 400
    outcome = call("train", "-m", "dias", "-o", "iterations=1000000000", "--steps", 1)
    assert outcome.exit_code == 2 and "option iterations: 1000000000 is too large; use at most 1000" in outcome.stderr
