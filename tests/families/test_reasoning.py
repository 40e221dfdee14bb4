"""Reasoning: counts by hand, answers matched by number, files of answers, and models that answer."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clevrer_tree import clevrer_card, clevrer_tree
from places import PARITY
from safetensors.numpy import load_file

from ocl_bench.core.errors import NotApplicableError, UsageError
from ocl_bench.core.questions import CHOICE_KINDS, Choice, Question
from ocl_bench.core.types import Batch, Prediction
from ocl_bench.data import open_data
from ocl_bench.data.clevrer.questions import read_answers, read_questions, write_answers
from ocl_bench.evaluation.plan import make_plan
from ocl_bench.evaluation.run import run
from ocl_bench.evaluation.supplied.score import score_masks
from ocl_bench.families.reasoning import COUNTS, STRANGE, count_right

ALL = (
    "descriptive", "explanatory_option", "explanatory_question", "predictive_option", "predictive_question",
    "counterfactual_option", "counterfactual_question", "n_unanswered",
)  # fmt: skip
TASK = clevrer_card(metrics=ALL, main="descriptive")

QUESTIONS = (
    Question(0, "How many?", "descriptive", "2"),
    Question(4, "What shape?", "descriptive", "cube"),
    Question(5, "Why?", "explanatory", choices=(Choice(0, "a", True), Choice(1, "b", False), Choice(2, "c", False))),
    Question(6, "Why not?", "explanatory", choices=(Choice(0, "a", True), Choice(1, "b", True))),
    Question(9, "Next?", "predictive", choices=(Choice(0, "a", True), Choice(1, "b", False))),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clevrer_tree(tmp_path_factory.mktemp("clevrer"))


def truth_of(root: Path) -> dict[int, dict[int, Any]]:
    """The right answer to every question."""
    questions = read_questions(root / "CLEVRER/questions/val.json")
    return {
        number: {one.id: one.answer or {choice.id: choice.correct for choice in one.choices} for one in of_video}
        for number, of_video in questions.items()
    }


def test_counts_by_hand() -> None:
    given: dict[int, Any] = {0: "2", 4: "sphere", 5: {0: True, 1: False, 2: True}, 6: {1: True, 0: True}, 77: "no"}
    counts = count_right(QUESTIONS, given)
    assert {name: value for name, value in counts.items() if value} == {
        "n_descriptive": 2, "n_descriptive_right": 1,
        "n_explanatory_options": 5, "n_explanatory_options_right": 4,
        "n_explanatory_questions": 2, "n_explanatory_questions_right": 1,
        "n_predictive_options": 2, "n_predictive_questions": 1,
        "n_unanswered": 2,
    }  # fmt: skip
    assert set(counts) == set(COUNTS)


def test_answers_of_the_wrong_kind_are_wrong() -> None:
    counts = count_right(QUESTIONS, {0: {0: True}, 5: "2", 9: {0: True}})
    assert counts["n_descriptive_right"] == counts["n_explanatory_options_right"] == 0
    assert counts["n_predictive_options_right"] == 1 and counts["n_predictive_questions_right"] == 0
    assert counts["n_unanswered"] == 2 + 5 + 1


def test_counts_are_those_of_the_official_evaluation() -> None:
    """`aloe_head`: CLEVRERAloe of pairlab/SlotFormer, commit 10a6d9b; its logits as answers, its labels as truth."""
    case = load_file(PARITY / "aloe_head.safetensors")
    kinds = [CHOICE_KINDS[number - 1] for number in case["in.mc_subtype"]]
    questions = [Question(i, "", "descriptive", str(label)) for i, label in enumerate(case["in.cls_label"])]
    given: dict[int, Any] = {i: str(word) for i, word in enumerate(case["out.cls_logits"].argmax(1))}
    for number, kind in enumerate(kinds):
        rows = np.flatnonzero(case["in.mc_flag"] == number)
        choices = tuple(Choice(k, "", bool(case["in.mc_label"][row])) for k, row in enumerate(rows))
        questions.append(Question(100 + number, "", kind, choices=choices))
        given[100 + number] = {k: bool(case["out.mc_logits"][row] > 0) for k, row in enumerate(rows)}
    counts = count_right(questions, given)
    assert counts["n_descriptive"] == case["out.eval.descriptive_questions"]
    assert counts["n_descriptive_right"] == case["out.eval.descriptive_correct"]
    for kind in CHOICE_KINDS:
        assert counts[f"n_{kind}_questions"] == case[f"out.eval.{kind}_questions"]
        assert counts[f"n_{kind}_questions_right"] == case[f"out.eval.{kind}_correct"]


def test_a_file_of_right_answers_is_perfect_in_any_order(root: Path, tmp_path: Path) -> None:
    """An official file is matched by numbers: positions in it mean nothing."""
    right = truth_of(root)
    turned = {number: dict(reversed(list(right[number].items()))) for number in reversed(list(right))}
    write_answers(tmp_path / "answers.json", turned)
    result = score_masks(TASK, tmp_path / "answers.json", data_root=root, results=tmp_path, progress=False, name="mine")
    values = {name: metric.value for name, metric in result.metrics.items()}
    assert values == dict.fromkeys(ALL, 1.0) | {"n_unanswered": 0.0}
    assert result.data.kind == "supplied" and result.model.name == "mine"
    assert result.metrics["descriptive"].signature == "descriptive│from:answers│match:id│missing:wrong│v1"
    assert result.counts.scored == 2 and not result.counts.failed


def test_missing_answers_are_wrong_and_others_are_counted(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    right = truth_of(root)
    descriptive = [number for number, answer in right[10000].items() if isinstance(answer, str)]
    kept = {number: answer for number, answer in right[10000].items() if number != descriptive[0]}
    write_answers(tmp_path / "answers.json", {10000: {**kept, 555: "no"}, 12345: {0: "no", 1: "yes"}})
    with caplog.at_level(logging.WARNING, "ocl_bench"):
        result = score_masks(TASK, tmp_path / "answers.json", data_root=root, results=tmp_path, progress=False)
    total = sum(isinstance(answer, str) for of_video in right.values() for answer in of_video.values())
    assert result.metrics["descriptive"].value == pytest.approx((len(descriptive) - 1) / total)
    assert result.metrics["predictive_question"].value == 0  # only video 10001 has one
    assert "the data do not have them: 1 videos, and 1 questions of other videos" in caplog.text


def test_words_that_are_no_answer_are_counted_and_said(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`Yes` is wrong as every other word, and nobody would see why."""
    right = truth_of(root)
    write_answers(tmp_path / "answers.json", right)
    result = score_masks(TASK, tmp_path / "answers.json", data_root=root, results=tmp_path, progress=False)
    assert result.counts.remarks == {} and result.value("descriptive") == 1
    capitals = {
        video: {number: one.title() if isinstance(one, str) else one for number, one in answers.items()}
        for video, answers in right.items()
    }
    strange = sum(
        isinstance(one, str) and one != one.title() for of_video in right.values() for one in of_video.values()
    )
    write_answers(tmp_path / "answers.json", capitals)
    result = score_masks(TASK, tmp_path / "answers.json", data_root=root, results=tmp_path, progress=False)
    assert strange and result.counts.remarks == {STRANGE: strange} and (result.value("descriptive") or 0) < 1
    assert f"{strange} answers that are no answer of CLEVRER and count as wrong" in caplog.text


def test_files_that_answer_nothing_are_refused(root: Path, tmp_path: Path) -> None:
    write_answers(tmp_path / "answers.json", {0: {0: "no"}})
    with pytest.raises(UsageError, match=r"answers no question of tiny-clevrer \(2 videos, video_10000 is first\)"):
        score_masks(TASK, tmp_path / "answers.json", data_root=root, results=tmp_path, progress=False)
    with pytest.raises(UsageError, match="entry 0 needs an integer 'scene_index'"):
        (tmp_path / "coco.json").write_text(json.dumps([{"image_id": 1, "bbox": [0, 0, 1, 1]}]))
        score_masks(TASK, tmp_path / "coco.json", data_root=root, results=tmp_path, progress=False)


def test_masks_are_no_answers(root: Path, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks.npz").touch()
    for name in ("masks", "masks.npz"):
        with pytest.raises(UsageError, match=rf"{name}: task tiny-clevrer scores a file of answers \(.json\)"):
            score_masks(TASK, tmp_path / name, data_root=root, results=tmp_path, progress=False)


class Answering:
    """Answers from the texts alone; remembers what it was asked."""

    answers_questions = True

    def __init__(self, answers: Any = None) -> None:
        self.asked: list[Question] = []
        self.given = answers

    def predict(self, batch: Batch) -> Prediction:
        self.asked += [question for of_video in batch.questions for question in of_video]
        if self.given is not None:
            return Prediction(answers=self.given)
        answers = tuple(
            {
                one.id: "yes" if one.kind == "descriptive" else {choice.id: False for choice in one.choices}
                for one in of_video
            }
            for of_video in batch.questions
        )
        return Prediction(answers=answers)


def plan(model: Any, root: Path) -> Any:
    return make_plan(model, TASK, data=open_data(TASK, data_root=root), options=None)


def test_a_model_that_answers_is_asked_without_truth(root: Path, tmp_path: Path) -> None:
    model = Answering()
    result = run(plan(model, root), results=tmp_path, progress=False, save_predictions=True)
    assert model.asked and all(one.answer == "" and one.program == () for one in model.asked)
    assert all(choice.correct is None for one in model.asked for choice in one.choices)
    questions = [one for of_video in read_questions(root / "CLEVRER/questions/val.json").values() for one in of_video]
    options = [choice for one in questions if one.kind == "counterfactual" for choice in one.choices]
    assert result.metrics["counterfactual_option"].value == np.mean([not choice.correct for choice in options])
    yes = [one.answer == "yes" for one in questions if one.kind == "descriptive"]
    assert result.metrics["descriptive"].value == np.mean(yes) and result.metrics["n_unanswered"].value == 0
    assert result.path is not None
    saved = result.path.with_suffix(".predictions") / "seed-0" / "video_10001.json"
    assert set(read_answers(saved)[10001]) == {one.id for one in read_questions(
        root / "CLEVRER/questions/val.json")[10001]}  # fmt: skip


@pytest.mark.parametrize(
    ("answers", "error", "message"),
    [
        ((), UsageError, "Prediction.answers has 0 entries, expected 16 mappings"),
        (("yes",) * 16, UsageError, "Prediction.answers has 16 entries, expected 16 mappings"),
        (None, NotApplicableError, "Prediction.answers is missing"),
    ],
)
def test_answers_that_cannot_be_used(answers: Any, error: type[Exception], message: str, root: Path) -> None:
    class Wrong:
        def predict(self, batch: Batch) -> Prediction:
            return Prediction(answers=answers)

    with pytest.raises(error, match=message):
        run(plan(Wrong(), root), progress=False)
