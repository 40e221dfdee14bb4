"""Files of questions and of answers: what is read, what is refused, and that answers come back as they were written."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ocl_bench.core.errors import DataMissingError, UsageError
from ocl_bench.data.clevrer.questions import read_answers, read_questions, video_name, video_number, write_answers

FILE: list[Any] = [
    {
        "scene_index": 10000,
        "video_filename": "video_10000.mp4",
        "questions": [
            {
                "question_id": 0,
                "question": "How many cubes enter the scene?",
                "question_type": "descriptive",
                "question_subtype": "count",
                "program": ["events", "objects", "cube", "filter_shape", "filter_in", "count"],
                "answer": "2",
            },
            {
                "question_id": 7,
                "question": "What will happen next?",
                "question_type": "predictive",
                "program": ["unseen_events", "belong_to"],
                "choices": [
                    {"choice_id": 0, "choice": "The cube and the sphere collide", "program": [], "answer": "wrong"},
                    {"choice_id": 1, "choice": "The cube and the cylinder collide", "answer": "correct"},
                ],
            },
        ],
    },
    {"scene_index": 10001, "video_filename": "video_10001.mp4", "questions": []},
]


def saved(folder: Path, content: Any) -> Path:
    path = folder / "validation.json"
    path.write_text(json.dumps(content))
    return path


def test_questions_are_read(tmp_path: Path) -> None:
    questions = read_questions(saved(tmp_path, FILE))
    assert list(questions) == [10000, 10001] and questions[10001] == ()
    first, second = questions[10000]
    assert (first.id, first.kind, first.answer, first.program[-1]) == (0, "descriptive", "2", "count")
    assert [(choice.id, choice.correct) for choice in second.choices] == [(0, False), (1, True)]
    asked = second.asked()
    assert asked.text == second.text and asked.program == () and [one.correct for one in asked.choices] == [None, None]
    assert first.asked().answer == ""


def change(place: str, value: Any) -> Callable[[Any], None]:
    """A change of the file: `place` is keys and positions joined by dots; None removes the field."""

    def apply(content: Any) -> None:
        *path, last = [int(part) if part.isdigit() else part for part in place.split(".")]
        for part in path:
            content = content[part]
        if value is None:
            del content[last]
        else:
            content[last] = value

    return apply


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("0.scene_index", "10000", "entry 0 needs an integer 'scene_index' and a list 'questions'"),
        ("0.questions", None, "entry 0 needs an integer 'scene_index' and a list 'questions'"),
        ("1.scene_index", 10000, "video 10000 is listed twice"),
        ("0.questions.0.question_id", True, "video 10000: field 'question_id' is missing or not an integer"),
        ("0.questions.1.question_id", 0, "video 10000: question_id 0 occurs twice"),
        ("0.questions.0.question", None, "video 10000: field 'question' is missing or not a text"),
        ("0.questions.0.question_type", "magic", "question 0: question_type 'magic' is none of descriptive"),
        ("0.questions.0.answer", "seven", "question 0: answer 'seven' is not one of CLEVRER's"),
        ("0.questions.0.answer", None, "question 0: answer None is not one of CLEVRER's; the test split has none, use"),
        ("0.questions.1.choices", None, "question 7: has no 'choices'"),
        ("0.questions.1.choices", [], "question 7: has no 'choices'"),
        ("0.questions.1.choices.1.answer", None, "question 7: choice 1 has answer None; the test split has none"),
        ("0.questions.1.choices.1.answer", "yes", "question 7: choice 1 has answer 'yes'; expected correct or wrong"),
        ("0.questions.1.choices.1.choice_id", 0, "question 7: choice_id 0 occurs twice"),
        ("0.questions.1.choices.0", "x", "question 7: field 'choice_id' is missing or not an integer"),
    ],
)
def test_bad_questions_are_named(place: str, value: Any, message: str, tmp_path: Path) -> None:
    content = copy.deepcopy(FILE)
    change(place, value)(content)
    with pytest.raises(UsageError, match=r"validation\.json: ") as error:
        read_questions(saved(tmp_path, content))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_files_that_hold_no_questions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds a dict, expected a list of videos"):
        read_questions(saved(tmp_path, {"questions": FILE}))
    with pytest.raises(UsageError, match="holds no video"):
        read_questions(saved(tmp_path, []))
    path = saved(tmp_path, FILE)
    path.write_text(path.read_text()[:100])
    with pytest.raises(UsageError, match="is not JSON, perhaps a cut download"):
        read_questions(path)
    with pytest.raises(DataMissingError, match=r"nothing\.json: cannot be read"):
        read_questions(tmp_path / "nothing.json")


ANSWERS = {10000: {0: "2", 7: {0: False, 1: True}}, 10001: {}}


def test_answers_have_the_form_of_the_test_server_and_come_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "answers.json"
    write_answers(path, ANSWERS)
    assert json.loads(path.read_text())[0] == {
        "scene_index": 10000,
        "questions": [
            {"question_id": 0, "answer": "2"},
            {
                "question_id": 7,
                "choices": [{"choice_id": 0, "answer": "wrong"}, {"choice_id": 1, "answer": "correct"}],
            },
        ],
    }
    assert read_answers(path) == ANSWERS


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("0.questions.1.question_id", 0, "video 10000: question_id 0 is answered twice"),
        ("0.questions.0.answer", 2, "question 0: field 'answer' is missing or not a text"),
        ("0.questions.1.choices.0.answer", "no", "choice 0 has answer 'no'; expected correct or wrong"),
        ("0.questions.1.choices.1.choice_id", 0, "choice_id 0 is answered twice"),
        ("0.questions.1.choices", "all", "'choices' is not a list"),
    ],
)
def test_bad_answers_are_named(place: str, value: Any, message: str, tmp_path: Path) -> None:
    write_answers(tmp_path / "answers.json", ANSWERS)
    content = json.loads((tmp_path / "answers.json").read_text())
    change(place, value)(content)
    with pytest.raises(UsageError) as error:
        read_answers(saved(tmp_path, content))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_names_of_videos() -> None:
    assert video_name(7) == "video_00007" and video_number("video_10000") == 10000
    with pytest.raises(UsageError, match="'clip_1' is not the name of a CLEVRER video"):
        video_number("clip_1")
