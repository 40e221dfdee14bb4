"""`ocl-bench profile --train`: what a step costs, on a made-up clock and on tiny trainings. No test asserts a time."""

from __future__ import annotations

import json
import threading
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from ocl_bench.cards.names import get_card
from ocl_bench.cli import app
from ocl_bench.models.encoder import build as build_encoder
from ocl_bench.training import data, objectives, parts, step_cost
from ocl_bench.training.parts import PARTS, Stopwatch, part, timed
from ocl_bench.training.recipe import read_recipe
from ocl_bench.training.step_cost import PartCost, StepCost

ENCODER = {"width": 8, "dim": 8, "blocks": [1]}
SLOTS = {"width": 8, "dim": 8, "blocks": [1], "slots": 3, "slot_dim": 8, "decoder_layers": 1, "decoder_heads": 2}
TRAIN = {"steps": 9, "batch": 2, "warmup": 3, "scenes": {"count": 4}, "precision": "fp32"}


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny cards `encoder` and `dias`, and files of 4 scenes."""
    cards = {
        "encoder": ({"kind": "neighbour", "anchors": 4, "zoom": 1.0}, ENCODER),
        "dias": ({"kind": "slots", "encoder": "encoder"}, SLOTS),
    }
    made = {
        name: (card := get_card(name)).model_copy(
            update={"options": {**card.options, **options}, "train": {**TRAIN, "objective": objective}}
        )
        for name, (objective, options) in cards.items()
    }
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(data, "CHUNK", 4)
    monkeypatch.setattr(objectives, "training_scenes", partial(data.training_scenes, workers=1))
    monkeypatch.setattr(step_cost, "get_card", lambda name: made.get(name) or get_card(name))
    # The encoder has no trained weights of this size; random ones cost the same.
    monkeypatch.setattr(objectives, "_trained_model", lambda *_: build_encoder(**ENCODER))


def profile(*arguments: Any) -> Result:
    return CliRunner().invoke(app, ["profile", "--device", "cpu", "--threads", "1", *map(str, arguments)])


def test_time_inside_an_inner_part_counts_for_the_inner_one_only(monkeypatch: pytest.MonkeyPatch) -> None:
    wall, processor = count(), count(step=10)  # each look at a clock is one tick
    clock = SimpleNamespace(perf_counter=lambda: next(wall), process_time=lambda: next(processor))
    monkeypatch.setattr(parts, "time", clock)
    watch = Stopwatch(torch.device("cpu"))

    def elsewhere() -> None:
        with part("backward"):
            pass

    with part("optimiser"):  # nobody asks yet
        pass
    with timed(watch):
        with part("forward"), part("augmentation"):
            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()
        with pytest.raises(ZeroDivisionError), part("preparation"):
            raise ZeroDivisionError
    assert watch.wall == {"preparation": 1, "augmentation": 1, "forward": 2, "backward": 0, "optimiser": 0}
    assert watch.processor["forward"] == 20


def test_rates_from_the_parts() -> None:
    costs = dict.fromkeys(PARTS, PartCost(0.5, 0.1)) | {"preparation": PartCost(1.0, 0.1)}
    cost = StepCost("m", {}, {"batch": 6}, "images", 4, "fp32", False, "here", None, 0.0, 2, costs)
    assert cost.rates == pytest.approx({"in_turn": 2.0, "prepared_aside": 3.0, "processor": 12.0})
    slow = StepCost(
        "m", {}, {"batch": 6}, "images", 4, "fp32", False, "here", None, 0.0, 2, costs | {"preparation": PartCost(4, 4)}
    )
    assert slow.rates["prepared_aside"] == pytest.approx(1.5)  # the preparation is then what all the rest waits for


@pytest.mark.usefixtures("tiny")
def test_the_parts_of_a_training_step_are_printed_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    numbers: list[int] = []
    batch = objectives.EncoderObjective.batch
    monkeypatch.setattr(objectives.EncoderObjective, "batch", lambda self, n: (numbers.append(n), batch(self, n))[1])
    arguments = (
        "--model",
        "encoder",
        "--train",
        "--repeats",
        2,
        "--warmup",
        1,
        "--set",
        "batch=3",
        "--out",
        "cost.json",
    )
    done = profile(*arguments, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found == json.loads((tmp_path / "cost.json").read_text())
    assert numbers == [3, 4, 5]  # after the warm-up of the learning rate
    assert found["steps"] == 2 and found["recipe"]["batch"] == 3 and found["scenes"] == 4 and found["unit"] == "images"
    assert list(found["parts"]) == list(PARTS) and all(cost["wall"] > 0 for cost in found["parts"].values())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "cost.json"]  # nothing of a training


@pytest.mark.usefixtures("tiny")
def test_slot_models_have_no_augmentation() -> None:
    done = profile("--model", "dias", "--train", "--repeats", 2, "--warmup", 0, "--limit", 4)
    assert done.exit_code == 0, done.output
    rows = {cells[0].strip(): cells for line in done.stdout.splitlines() if len(cells := line.split("\t")) == 4}
    shares = {name: rows[name][2].strip() for name in PARTS}
    assert shares["augmentation"] == "0%" and shares["backward"] != "0%"
    assert "images per second" in done.stdout and "4 scenes" in done.stdout


@pytest.mark.usefixtures("tiny")
def test_the_loss_is_compiled_where_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []
    monkeypatch.setattr(torch, "compile", lambda loss: compiled.append(loss) or loss)
    for asked in ([], ["--compile"]):
        done = profile("--model", "dias", "--train", "--repeats", 2, "--warmup", 0, "--limit", 4, *asked)
        assert done.exit_code == 0, done.output
        assert ("compiled" in done.stdout) == bool(compiled) == bool(asked)


@pytest.mark.parametrize(("name", "scenes"), [("odis", 64), ("slotcontrast", 4), ("encoder-boxes", 64)])
def test_few_scenes_are_rendered_for_a_measurement(name: str, scenes: int) -> None:
    card = get_card(name)
    recipe = step_cost._with_few_scenes(card, {}, None)
    assert (recipe.scenes.count, recipe.validate_limit, recipe.batch) == (scenes, 1, card.train["batch"])
    assert step_cost._with_few_scenes(card, {"scenes.count": 7}, 5).scenes.count == 7  # what the user says holds
    assert step_cost._with_few_scenes(card, {}, 10**6).scenes.count == read_recipe(card.train, name).scenes.count


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--model", "dias", "--train", "--against", "encoder"), "--against: not with --train"),
        (("--model", "dias", "--train", "--batch", 2), "--batch: not with --train"),
        (("--model", "dias", "--limit", 2), "--limit: needs --train"),
        (("--model", "dias", "--set", "batch=2"), "--set: needs --train"),
        (("--model", "dias", "--compile"), "--compile: needs --train"),
        (("--model", "grid", "--train"), "field 'train' is empty"),
        (("--model", "dias", "--train", "--set", "batch=no"), "field 'train.batch'"),
    ],
)
def test_what_does_not_fit_is_one_line(arguments: tuple[Any, ...], text: str) -> None:
    done = profile(*arguments)
    assert done.exit_code == 2
    assert text in done.output and "Traceback" not in done.output
