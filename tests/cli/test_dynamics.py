"""Visual prediction on the command line: every verb, on a few videos of the stand-in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from places import ROOT
from typer.testing import CliRunner, Result

from ocl_bench import get_task
from ocl_bench.cli import app

MODEL = """
import torch
from sliding_squares import Straight

class Colours(Straight):
    fingerprint = "colours"

    def decode_slots(self, slots):
        return slots[..., 2:].softmax(1)[..., :1, None].expand(-1, -1, 8, 8)

def build():
    return Colours()
"""


def call(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two bundled cards with three videos, and two short fits."""
    place = tmp_path_factory.mktemp("dynamics")
    for name in ("clevrer-prediction", "clevrer-prediction-slotformer"):
        card = yaml.safe_load((ROOT / "tasks" / f"{name}.yaml").read_text())
        card["name"] = f"small-{name}"
        card["data"]["stand_in"] |= {"samples": 3, "fit_samples": 2}
        card["fit"] |= {"steps": 2, "samples": 2}
        card["protocol"]["input"] = 32
        (place / f"{name}.yaml").write_text(yaml.safe_dump(card))
    (place / "model.py").write_text(MODEL)
    return place


@pytest.fixture(scope="module")
def results(folder: Path) -> Path:
    """Results of the oracle and of slotmatch, with saved predictions."""
    for model in ("oracle", "slotmatch"):
        done = call("eval", "-m", model, "-t", folder / "clevrer-prediction.yaml", "--results", folder / "results",
                    "--save-predictions")  # fmt: skip
        assert done.exit_code == 0, done.output
        assert "3 of 3 videos scored" in done.output
        # So many metrics stand below each other, each in one line; in a pipe there is a tab between columns.
        line = next(line for line in done.output.splitlines() if "position_error ↓ (main)" in line)
        assert line.count("\t") >= 2 and "±" in line
    return folder / "results"


def result_of(results: Path, model: str) -> dict[str, Any]:
    (path,) = (results / "small-clevrer-prediction" / model).glob("*.json")
    content: dict[str, Any] = json.loads(path.read_text())
    return {**content, "path": path}


def test_the_oracle_is_perfect(results: Path) -> None:
    found = {name: one["value"] for name, one in result_of(results, "oracle")["metrics"].items()}
    masks = [name for name in found if "fg_ari" in name or "mbo" in name]
    assert len(masks) >= 8 and all(found[name] == 1 for name in masks)
    assert found["slot_mse_rel"] == 0 and found["position_error"] is not None


def test_a_result_says_how_it_was_fitted(results: Path) -> None:
    content = result_of(results, "slotmatch")
    assert content["fit"]["head"] == "rollouter" and content["fit"]["samples"] == 2 and not content["fit"]["left_out"]
    assert set(content["fit"]["chosen"]) == {"ridge"}
    signature = content["metrics"]["position_error"]["signature"]
    assert "│dyn:probe│decode:slots│burn-in:6│rollout:24│stride:2│clips:last-seen│seen:80│" in signature
    assert all(one["value"] is not None for one in content["metrics"].values())


def test_the_saved_frames_are_those_of_the_clip(results: Path) -> None:
    """Frames 26 to 55 of the stand-in; the predicted masks of the oracle are the true ones."""
    path = result_of(results, "oracle")["path"]
    saved = sorted((path.with_suffix(".predictions") / "seed-0" / "video_10000").iterdir())
    assert [file.stem for file in saved] == [f"{number:06d}" for number in range(26, 56)]
    assert len(np.unique(np.array(Image.open(saved[-1])))) > 1
    assert path.with_suffix(".png").stat().st_size > 10_000


@pytest.mark.parametrize(
    "arguments",
    [
        ("list", "tasks"),
        ("list", "models"),
        ("list", "metrics"),
        ("show", "clevrer-prediction"),
        ("show", "clevrer-prediction-slotformer"),
        ("show", "position_error_6_10"),
        ("show", "copy-last"),
        ("show", "true-slots"),
    ],
)
def test_list_and_show(arguments: tuple[str, ...]) -> None:
    done = call(*arguments)
    assert done.exit_code == 0, done.output
    wanted = {"tasks": "clevrer-prediction", "models": "copy-last", "metrics": "slot_mse_rel"}
    assert wanted.get(arguments[1], arguments[1])[:18] in done.output


def test_the_board_ranks_by_the_smaller_error(results: Path, folder: Path) -> None:
    task, out = folder / "clevrer-prediction.yaml", folder / "boards"
    done = call("leaderboard", "--task", task, "--results", results, "--out", out)
    assert done.exit_code == 0, done.output
    board = (out / "small-clevrer-prediction.csv").read_text().splitlines()
    assert len(board) == 3 and "oracle" in "".join(board) and "slotmatch" in "".join(board)


def test_a_report_and_a_comparison(results: Path, folder: Path) -> None:
    paths = [result_of(results, model)["path"] for model in ("slotmatch", "oracle")]
    done = call("report", *paths, "--task", folder / "clevrer-prediction.yaml", "--out", folder / "report.html")
    assert done.exit_code == 0, done.output
    assert "position_error" in (folder / "report.html").read_text()
    task = folder / "clevrer-prediction.yaml"
    done = call("compare", "--task", task, "--results", results, "--models", "slotmatch,oracle")
    assert done.exit_code in (0, 2) and "Traceback" not in done.output


def test_slotformers_card_leaves_videos_out(folder: Path) -> None:
    done = call("eval", "-m", "oracle", "-t", folder / "clevrer-prediction-slotformer.yaml", "--no-pictures",
                "--results", folder / "results", "--json")  # fmt: skip
    assert done.exit_code == 0, done.output
    metrics = json.loads(done.stdout)["metrics"]
    counted = metrics["miou_future"]["n_valid"]
    assert 0 < counted < 3 and metrics["position_error"]["n_valid"] == counted
    # Officially a pixel that no mask claims goes to the background slot, and boxes of one pixel are missed.
    assert metrics["miou_future"]["value"] == metrics["ari_future"]["value"] == 1
    assert metrics["box_recall_future"]["value"] > 0.9


def test_a_model_of_a_user_is_checked_with_its_methods(folder: Path) -> None:
    task = folder / "clevrer-prediction.yaml"
    done = call("check-model", "-m", f"{folder / 'model.py'}:build", "--task", task)
    assert done.exit_code == 0, done.output
    (folder / "wrong.py").write_text(MODEL.replace("8, 8)", "8, 8) * 5"))
    done = call("check-model", "-m", f"{folder / 'wrong.py'}:build", "--task", task)
    assert done.exit_code == 2 and "decode_slots" in done.output


def test_what_has_no_slots_does_not_take_part(folder: Path) -> None:
    done = call("eval", "-m", "grid", "-t", folder / "clevrer-prediction.yaml", "--results", folder / "results")
    assert done.exit_code == 2 and "Prediction.slots is missing" in done.output
    masks = folder / "masks.npz"
    np.savez(masks, video_10000=np.zeros((56, 8, 8), np.int64))
    done = call("score", "--task", folder / "clevrer-prediction.yaml", "--masks", masks)
    assert done.exit_code == 2 and "Traceback" not in done.output
    for task in (folder / "clevrer-prediction.yaml", "coco-recognition"):
        done = call("score", "--task", task, "--masks", folder)
        assert done.exit_code == 2 and "fits a head on what a model gives beside its masks" in done.output


def test_the_bundled_cards_differ_in_what_they_must() -> None:
    ours, official = (get_task(name) for name in ("clevrer-prediction", "clevrer-prediction-slotformer"))
    assert ours.fit == official.fit and ours.data.stand_in == official.data.stand_in
    assert ours.hash != official.hash
