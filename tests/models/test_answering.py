"""Floors of reasoning: what they count, what they answer, and that they score near chance."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from ocl_bench.cards.names import get_card
from ocl_bench.cli import app
from ocl_bench.core.questions import Choice, Question
from ocl_bench.core.types import Batch
from ocl_bench.data.clevrer.questions import as_question
from ocl_bench.data.scenes.collisions import sample_world, simulate
from ocl_bench.data.stand_ins.clevrer import questions_about
from ocl_bench.evaluation.evaluate import evaluate
from ocl_bench.families.reasoning import count_right
from ocl_bench.models.answering import _template, build_majority, build_question_only


def test_names_of_objects_do_not_matter() -> None:
    first = Question(0, "If the red cube is removed, which event will happen?", "counterfactual")
    second = Question(0, "If the rubber sphere is removed, which event will happen?", "counterfactual")
    assert _template(first, "The cube and the gray metal cylinder collide") == _template(
        second, "The blue sphere and the cylinder collide"
    )
    assert _template(Question(0, "What is the color of the cube's?", "descriptive"), "").count("OBJECT") == 1
    negated = Question(0, "If the red cube is removed, which event will not happen?", "counterfactual")
    assert _template(negated, "") != _template(first, "")


def test_majority_gives_one_answer_per_kind_and_question_only_one_that_fits_the_words() -> None:
    count = Question(0, "How many collisions happen?", "descriptive")
    material = Question(1, "What is the material of the first object to enter the scene?", "descriptive")
    choices = (Choice(0, "The cube and the sphere collide"), Choice(1, "The cube and the cylinder collide"))
    following = Question(2, "What will happen next?", "predictive", choices=choices)
    batch = Batch(("video_00000",), torch.zeros(1, 3, 8, 8), questions=((count, material, following),))
    majority, words = (model.predict(batch).answers for model in (build_majority(), build_question_only()))
    assert majority is not None and words is not None
    assert majority[0][0] == majority[0][1]
    assert words[0][0] in tuple("012345") and words[0][1] in ("metal", "rubber")
    for given in (majority[0], words[0]):
        judged = given[2]
        assert not isinstance(judged, str) and set(judged) == {0, 1} and judged[0] == judged[1]


def test_floors_are_near_chance_on_worlds_that_they_do_not_know() -> None:
    """Options at about one half, so that nothing is won without the video; words alone help descriptive ones."""
    sums: dict[str, dict[str, float]] = {}
    for name, model in (("majority", build_majority()), ("question-only", build_question_only())):
        total = sums.setdefault(name, {})
        for index in range(24):
            world = sample_world(1, "test", index)
            questions = [as_question(entry, "") for entry in questions_about(world, simulate(world))]
            counts = count_right(questions, model.answers([question.asked() for question in questions]))
            for key, value in counts.items():
                total[key] = total.get(key, 0.0) + value
    for total in sums.values():
        assert total["n_unanswered"] == 0
        for kind in ("explanatory", "predictive", "counterfactual"):
            assert 0.3 < total[f"n_{kind}_options_right"] / total[f"n_{kind}_options"] < 0.7, (kind, total)
    share = {name: total["n_descriptive_right"] / total["n_descriptive"] for name, total in sums.items()}
    assert share["majority"] < share["question-only"] < 0.6, share


def test_the_command_line_prints_floors_and_draws_nothing(tmp_path: Path) -> None:
    arguments = ["--task", "clevrer-reasoning", "--limit", "2", "--results", str(tmp_path), "--floors"]
    outcome = CliRunner().invoke(app, ["eval", "--model", "majority", *arguments])
    assert outcome.exit_code == 0, outcome.output
    assert "question-only" in outcome.output and not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize("name", ["majority", "question-only"])
def test_cards(name: str, tmp_path: Path) -> None:
    card = get_card(name)
    families = ("reasoning", "contact") if name == "majority" else ("reasoning",)
    assert card.role == "floor" and card.families == families
    result = evaluate(name, "clevrer-reasoning", limit=2, results=tmp_path, progress=False)
    assert result.counts.scored == 2 and result.metrics["n_unanswered"].value == 0
    assert result.metrics["descriptive"].signature == "descriptive│from:answers│match:id│missing:wrong│v2"
