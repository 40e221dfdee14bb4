"""`train --suite`: the order of the trainings, what is known to be finished, and a small suite from end to end."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ocl_bench.cards.names import CARDS, get_card
from ocl_bench.cli import app
from ocl_bench.core.errors import UsageError
from ocl_bench.training.suite import cost_of, plan_suite, train_suite


def test_every_model_comes_after_what_it_needs() -> None:
    plan = plan_suite(seeds=2)
    done: set[Path] = set()
    for planned in plan:
        assert set(planned.needs.values()) <= done, planned.model
        done.add(planned.weights)
    assert {planned.model for planned in plan} == {
        card.name
        for card in (get_card(path.stem) for path in CARDS.glob("*.yaml"))
        if card.train and card.train.get("objective", {}).get("images") != "reader"
    }
    seeds = {name: [planned.seed for planned in plan if planned.model == name] for name in ("dias", "encoder-boxes")}
    assert seeds == {"dias": [0, 1], "encoder-boxes": [0]}, "the seeds of a model share their encoder"


def test_a_model_brings_what_it_needs_and_starts_from_it(tmp_path: Path) -> None:
    plan = plan_suite(models=["slotmatch"], out=tmp_path, scale=0.5)
    names = [planned.model for planned in plan]
    assert names[-1] == "slotmatch" and set(names[:-1]) == {
        *("encoder", "encoder-segments", "encoder-segments-large", "slotcontrast"),
    }
    slotmatch, card = plan[-1], get_card("slotmatch")
    assert slotmatch.recipe.steps == card.train["steps"] // 2
    teacher = str(tmp_path / "slotcontrast-seed0" / "slotcontrast.safetensors")
    assert slotmatch.recipe.objective["teacher_checkpoint"] == teacher
    assert slotmatch.images == slotmatch.recipe.steps * card.train["batch"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"suite": "official"}, "--suite official: unknown"),
        ({"models": ["dias", "grid"]}, "grid: is not in suite"),
        ({"models": ["slotcon-paper"]}, "slotcon-paper: is not in suite"),
        ({"scale": 0.0}, "--scale"),
        ({"scale": float("nan")}, "--scale"),
        ({"seeds": 0}, "--seeds"),
    ],
)
def test_wrong_plans_are_refused(arguments: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        plan_suite(**arguments)


def tiny_plan(out: Path) -> list:
    """An encoder of two steps and `slot-attention` on it, with four scenes each."""
    small = {"steps": 2, "batch": 2, "scenes.count": 4, "validate_limit": 1, "validate_every": 2}
    plan = []
    for planned in plan_suite(models=["slot-attention"], out=out):
        overrides = planned.overrides | small
        recipe = type(planned.recipe).model_validate(
            planned.recipe.model_dump()
            | {name: value for name, value in small.items() if "." not in name}
            | {"scenes": planned.recipe.scenes.model_dump() | {"count": 4}}
        )
        plan.append(type(planned)(**(vars(planned) | {"overrides": overrides, "recipe": recipe})))
    return plan


def test_a_suite_is_trained_once_and_again_after_its_encoder_changed(tmp_path: Path) -> None:
    def trained() -> list[tuple[str, bool]]:
        plan = tiny_plan(tmp_path)
        return [(planned.model, record is not None) for planned, record in train_suite(plan, progress=False)]

    assert trained() == [("encoder-boxes", True), ("slot-attention", True)]
    assert trained() == [("encoder-boxes", False), ("slot-attention", False)], "what is finished is not trained again"
    assert cost_of(tiny_plan(tmp_path)) | {"unknown": []} == {
        "trainings": 2,
        "finished": 2,
        "images": 0,
        "minutes": 0.0,
        "unknown": [],
    }
    weights = tmp_path / "encoder-boxes-seed0" / "encoder-boxes.safetensors"
    stamp = (tmp_path / "slot-attention-seed0" / "slot-attention.safetensors").stat().st_mtime + 5
    os.utime(weights, (stamp, stamp))
    # Newer weights of the encoder: what was trained on the older ones is not kept, nor continued.
    assert trained() == [("encoder-boxes", False), ("slot-attention", True)]


def test_the_command_prints_the_plan_and_its_cost(tmp_path: Path) -> None:
    arguments = ["train", "--suite", "embedded", "--model", "dias", "--seeds", "3", "--scale", "2", "--dry-run"]
    outcome = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path), "--json"])
    assert outcome.exit_code == 0, outcome.output
    content = json.loads(outcome.stdout)
    assert [(row["model"], row["seed"]) for row in content["plan"]] == [
        ("encoder-boxes", 0),
        *(("dias", seed) for seed in range(3)),
    ]
    images = [row["images"] for row in content["plan"]]
    assert content["cost"]["images"] == sum(images) and images[1] == 2 * 1000 * 16
    assert not any(tmp_path.iterdir())
    outcome = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path)])
    assert "4 trainings" in outcome.output and "encoder-boxes-seed0" in outcome.output


@pytest.mark.parametrize("arguments", [[], ["--model", "dias", "--model", "encoder"]])
def test_without_a_suite_one_model_is_asked_for(arguments: list[str]) -> None:
    outcome = CliRunner().invoke(app, ["train", *arguments])
    assert outcome.exit_code == 2 and "--suite embedded" in outcome.output
