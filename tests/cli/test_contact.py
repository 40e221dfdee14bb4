"""Contacts on the command line: every verb, on a few videos of the two stand-ins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from places import ROOT
from typer.testing import CliRunner, Result

from ocl_bench.cli import app

CARDS = ("clevrer-contact", "physion-contact")


def call(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two bundled cards with two videos, of which one has a contact, and short fits on two."""
    place = tmp_path_factory.mktemp("contact")
    for name in CARDS:
        card = yaml.safe_load((ROOT / "tasks" / f"{name}.yaml").read_text())
        card["name"] = f"small-{name}"
        card["data"]["stand_in"] |= {"samples": 2, "fit_samples": 2}
        card["fit"] |= {"steps": 2, "samples": 2}
        card["protocol"]["input"] = 32
        (place / f"{name}.yaml").write_text(yaml.safe_dump(card))
    return place


@pytest.fixture(scope="module")
def results(folder: Path) -> Path:
    """Results on both cards. Pictures take seconds, so only one evaluation draws and saves all."""
    for card, model, saved in (
        (CARDS[0], "true-states", "--no-pictures"),
        (CARDS[0], "majority", "--no-pictures"),
        (CARDS[1], "majority", "--save-predictions"),
    ):
        done = call("eval", "-m", model, "-t", folder / f"{card}.yaml", "--results", folder / "results", saved)
        assert done.exit_code == 0, done.output
        assert "2 of 2 videos scored" in done.output and "contact_accuracy ↑ (main)" in done.output
    return folder / "results"


def result_of(results: Path, card: str, model: str) -> dict[str, Any]:
    (path,) = (results / f"small-{card}" / model).glob("*.json")
    content: dict[str, Any] = json.loads(path.read_text())
    return {**content, "path": path}


def test_half_of_the_answers_are_yes_so_the_majority_is_chance(results: Path) -> None:
    for card in CARDS:
        found = {name: one["value"] for name, one in result_of(results, card, "majority")["metrics"].items()}
        assert found["contact_accuracy"] == found["contact_accuracy_best_on_test"] == 0.5, card
        assert found["n_contact"] >= 2


def test_a_result_says_how_it_was_fitted(results: Path) -> None:
    content = result_of(results, "physion-contact", "majority")
    assert content["fit"]["head"] == "contact" and content["fit"]["samples"] == 2
    signature = content["metrics"]["contact_accuracy"]["signature"]
    assert "│dyn:probe│burn-in:15│rollout:10│stride:3│clips:last-seen│seen:45│pairs:all│threshold:0.5│" in signature


def test_the_saved_frames_are_those_of_the_clip(results: Path) -> None:
    """Every second frame of the stand-in, from frame 3: 15 before the cut after frame 31, and 10 after it."""
    path = result_of(results, "physion-contact", "majority")["path"]
    (video, *_) = sorted((path.with_suffix(".predictions") / "seed-0" / "Collide").iterdir())
    assert [file.stem for file in sorted(video.iterdir())] == [f"{number:06d}" for number in range(3, 53, 2)]
    assert path.with_suffix(".png").stat().st_size > 10_000


@pytest.mark.parametrize("name", [*CARDS, "contact_accuracy_best_on_test", "constant-velocity", "true-states"])
def test_show(name: str) -> None:
    done = call("show", name)
    assert done.exit_code == 0 and name[:18] in done.output


def test_a_board_a_report_and_a_comparison(results: Path, folder: Path) -> None:
    task = folder / "clevrer-contact.yaml"
    done = call("leaderboard", "--task", task, "--results", results, "--out", folder / "boards")
    assert done.exit_code == 0, done.output
    assert "true-states" in (folder / "boards/small-clevrer-contact.csv").read_text()
    paths = [result_of(results, "clevrer-contact", model)["path"] for model in ("true-states", "majority")]
    done = call("report", *paths, "--task", task, "--out", folder / "report.html")
    assert done.exit_code == 0, done.output
    done = call("compare", "--task", task, "--results", results, "--models", "true-states,majority")
    assert done.exit_code in (0, 2) and "Traceback" not in done.output


def test_what_does_not_take_part(folder: Path) -> None:
    for model, card, message in (
        ("grid", CARDS[0], "Prediction.slots is missing"),
        ("oracle", CARDS[0], "take true-states"),
        ("true-states", CARDS[1], "need the locations of objects"),
    ):
        done = call("eval", "-m", model, "-t", folder / f"{card}.yaml", "--results", folder / "results")
        assert done.exit_code == 2 and message in done.output, done.output
    done = call("score", "--task", folder / "clevrer-contact.yaml", "--masks", folder)
    assert done.exit_code == 2 and "fits a head on what a model gives beside its masks" in done.output
