"""The executor: stored answers of NS-DR's from files in its form, every question of the stand-in, and bad files."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clevrer_tree import clevrer_card, clevrer_tree
from places import PARITY
from typer.testing import CliRunner

from ocl_bench.cli import app
from ocl_bench.core.errors import DataMissingError, SampleError
from ocl_bench.core.questions import Question
from ocl_bench.core.types import Batch, Truth
from ocl_bench.data import open_data
from ocl_bench.data.clevrer.programs import run
from ocl_bench.data.clevrer.questions import as_question
from ocl_bench.data.clevrer.simulations import read_facts
from ocl_bench.data.scenes.collisions import SEEN, sample_world, simulate
from ocl_bench.data.stand_ins.clevrer import questions_about, simulations
from ocl_bench.evaluation.evaluate import evaluate
from ocl_bench.families.reasoning import count_right
from ocl_bench.models.executor import build_executor

SIMULATION = "CLEVRER/propnet_preds/sim_10000.json"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return clevrer_tree(tmp_path / "data")


def as_file(world: dict[str, Any]) -> dict[str, Any]:
    """A stored world in the fields of NS-DR's files."""
    kinds = {one["id"]: {name: one[name] for name in ("color", "material", "shape")} for one in world["objects"]}
    cases = []
    for entry in world["predictions"]:
        moments = [
            {"frame_index": frame, "objects": [{**kinds[n], "x": x, "y": y} for n, x, y in objects]}
            for frame, objects in entry.get("trajectory", [])
        ]
        hits = [{"frame": frame, "objects": [kinds[a], kinds[b]]} for a, b, frame in entry["collisions"]]
        cases.append({"what_if": entry["what_if"], "trajectory": moments, "collisions": hits})
    return {"objects": world["objects"], "predictions": cases}


def test_stored_answers_of_nsdr(tmp_path: Path) -> None:
    stored = json.loads(gzip.decompress((PARITY / "nsdr_executor.json.gz").read_bytes()))["worlds"]
    path, checked = tmp_path / "sim_10000.json", 0
    for world in stored:
        path.write_text(json.dumps(as_file(world["world"])))
        facts = read_facts(path, "video_10000", 128)
        assert [(one.kind, one.frame) for one in facts.visible] == [
            (one["type"], one["frame"]) for one in world["visible_events"]
        ]
        for question in world["questions"]:
            if isinstance(question.get("answer"), str):
                assert run(question["program"], facts) == question["answer"], question
                checked += 1
    assert checked > 300


def of_stand_in(folder: Path) -> Iterator[tuple[tuple[Question, ...], Truth]]:
    for index in range(12):
        world = sample_world(1, "test", index)
        events = simulate(world)
        path = folder / f"sim_{index}.json"
        path.write_text(json.dumps(simulations(world, events)))
        questions = tuple(as_question(entry, "") for entry in questions_about(world, events))
        yield questions, Truth(np.zeros((2, 2)), questions=questions, facts=partial(read_facts, path, "video", SEEN))


def test_every_answer_of_the_stand_in_is_right(tmp_path: Path) -> None:
    model, kinds = build_executor(), set()
    for questions, truth in of_stand_in(tmp_path):
        answers = model.predict(Batch(("v",), torch.zeros(1, 3, 8, 8)), [truth]).answers
        assert answers is not None
        counts = count_right(questions, answers[0])
        wrong = {name: counts[name] - counts[f"{name}_right"] for name in counts if f"{name}_right" in counts}
        assert not any(wrong.values()) and counts["n_unanswered"] == 0, counts
        kinds |= {question.kind for question in questions}
    assert len(kinds) == 4


def test_the_card_scores_one_and_floors_never_see_the_facts(root: Path, tmp_path: Path) -> None:
    card = clevrer_card(metrics=["descriptive", "counterfactual_question", "predictive_question", "n_unanswered"])
    result = evaluate("executor", card, data_root=root, results=tmp_path, progress=False)
    assert [one.value for one in result.metrics.values()] == [1, 1, 1, 0]
    assert result.model.role == "ceiling" and not hasattr(Batch(("v",), torch.zeros(1, 3, 8, 8)), "facts")


def test_without_a_program_or_a_value_there_is_no_answer(root: Path) -> None:
    sample = open_data(clevrer_card(), data_root=root).reader[0]
    bare = tuple(question.asked() for question in sample.truth.questions)
    truth = Truth(sample.truth.labels, questions=bare, facts=sample.truth.facts)
    answers = build_executor().predict(Batch((sample.id,), torch.zeros(1, 3, 8, 8)), [truth]).answers
    assert answers is not None and not any(given for given in answers[0].values())


def test_no_simulation_is_missing_data(root: Path, tmp_path: Path) -> None:
    shutil.rmtree(root / "CLEVRER/propnet_preds")
    with pytest.raises(DataMissingError, match=r"no simulation of video_10000; put NS-DR's sim files into .*propnet"):
        evaluate("executor", clevrer_card(), data_root=root, results=tmp_path, progress=False)
    arguments = ["--task", "clevrer-reasoning", "--data-root", str(root), "--results", str(tmp_path)]
    assert CliRunner().invoke(app, ["eval", "--model", "executor", *arguments]).exit_code == 3


@pytest.mark.parametrize("text", ["{", "[]", '{"objects": []}', '{"objects": [], "predictions": []}'])
def test_a_broken_simulation_fails_its_video(root: Path, tmp_path: Path, text: str) -> None:
    (root / SIMULATION).write_text(text)
    with pytest.raises(SampleError, match=r"sim_10000.json: is no simulation .*download NS-DR's files again"):
        open_data(clevrer_card(), data_root=root).reader[0].truth.facts()
    result = evaluate("executor", clevrer_card(), data_root=root, results=tmp_path, progress=False)
    assert result.counts.scored == 1 and [one.id for one in result.counts.failed] == ["video_10000"]


def test_an_unknown_object_in_a_simulation(root: Path) -> None:
    content = json.loads((root / SIMULATION).read_text())
    content["predictions"][0]["trajectory"][0]["objects"][0]["color"] = "pink"
    (root / SIMULATION).write_text(json.dumps(content))
    with pytest.raises(SampleError, match="is no simulation"):
        open_data(clevrer_card(), data_root=root).reader[0].truth.facts()
