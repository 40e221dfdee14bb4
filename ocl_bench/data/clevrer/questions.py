"""Read CLEVRER's files of questions, and read and write files of answers in the form of its test server.

Questions: a list of `{scene_index, video_filename, questions: [{question_id, question, question_type, answer | choices:
[{choice_id, choice, answer: correct | wrong}], program}]}`. Answers: a list of `{scene_index, questions: [{question_id,
answer} | {question_id, choices: [{choice_id, answer}]}]}`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core.errors import DataMissingError, UsageError
from ...core.files import parse_json, read_text, write_atomically
from ...core.questions import KINDS, Answers, Choice, GivenAnswer, Question
from .vocabulary import ANSWERS

Questions = dict[int, tuple[Question, ...]]
"""Number of the video -> its questions, in the order of the file."""

_JUDGED = {"correct": True, "wrong": False}


def read_questions(path: Path) -> Questions:
    """Read a file of questions with their answers, such as `validation.json`.

    Raises:
        DataMissingError: the file cannot be read. UsageError: it is no such file, or has no answers (the test split);
            the message names the video and the question.
    """
    found: Questions = {}
    for number, entries in _videos(path):
        if number in found:
            raise UsageError(f"{path}: video {number} is listed twice; download the file again")
        questions = [as_question(entry, f"{path}: video {number}") for entry in entries]
        _check_different([question.id for question in questions], f"{path}: video {number}", "question_id")
        found[number] = tuple(questions)
    if not found:
        raise UsageError(f"{path}: holds no video; download the file again")
    return found


def _videos(path: Path) -> Iterator[tuple[int, list[Any]]]:
    """Number and entries of `questions` of each video of a file."""
    try:
        content = parse_json(read_text(path))
    except OSError as error:
        raise DataMissingError(f"{path}: cannot be read ({error.strerror}); see docs/clevrer.md") from error
    except ValueError as error:
        raise UsageError(f"{path}: is not JSON, perhaps a cut download ({error})") from error
    if not isinstance(content, list):
        raise UsageError(f"{path}: holds a {type(content).__name__}, expected a list of videos")
    for position, video in enumerate(content):
        fields = video if isinstance(video, dict) else {}
        if not _whole(fields.get("scene_index")) or not isinstance(fields.get("questions"), list):
            raise UsageError(f"{path}: entry {position} needs an integer 'scene_index' and a list 'questions'")
        yield fields["scene_index"], fields["questions"]


def as_question(entry: Any, where: str) -> Question:
    """An entry of `questions`. Raises UsageError, whose message begins with `where`, for a wrong field."""
    number, text, kind = _fields(entry, where, question_id=int, question=str, question_type=str)
    where = f"{where}, question {number}"
    if kind not in KINDS:
        raise UsageError(f"{where}: question_type '{kind}' is none of {', '.join(KINDS)}")
    program = tuple(map(str, entry.get("program") or ()))
    if kind == "descriptive":
        answer = entry.get("answer")
        if answer not in ANSWERS:
            raise UsageError(f"{where}: answer {answer!r} is not one of CLEVRER's{_TEST if answer is None else ''}")
        return Question(number, text, kind, answer, program=program)
    choices = entry.get("choices")
    if not isinstance(choices, list) or not choices:
        raise UsageError(f"{where}: has no 'choices'")
    read = tuple(_choice(choice, where) for choice in choices)
    _check_different([choice.id for choice in read], where, "choice_id")
    return Question(number, text, kind, choices=read, program=program)


_TEST = "; the test split has none, use validation.json"


def _choice(entry: Any, where: str) -> Choice:
    number, text = _fields(entry, where, choice_id=int, choice=str)
    answer = entry.get("answer")
    if answer not in _JUDGED:
        hint = _TEST if answer is None else "; expected correct or wrong"
        raise UsageError(f"{where}: choice {number} has answer {answer!r}{hint}")
    return Choice(number, text, _JUDGED[answer], tuple(map(str, entry.get("program") or ())))


def _fields(entry: Any, where: str, **kinds: type) -> list[Any]:
    """The values of some fields of an entry. Raises UsageError for one that is missing or of another type."""
    for name, kind in kinds.items():
        value = entry.get(name) if isinstance(entry, dict) else None
        if not (_whole(value) if kind is int else isinstance(value, kind)):
            raise UsageError(f"{where}: field '{name}' is missing or not {'an integer' if kind is int else 'a text'}")
    return [entry[name] for name in kinds]


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_different(values: Sequence[int], where: str, name: str) -> None:
    if len(set(values)) != len(values):
        twice = next(value for value in values if values.count(value) > 1)
        raise UsageError(f"{where}: {name} {twice} occurs twice")


def video_name(number: int) -> str:
    """The name of a video, such as `video_10000`."""
    return f"video_{number:05d}"


def video_number(name: str) -> int:
    """The number of a video from its name. Raises UsageError for another name."""
    digits = name.removeprefix("video_")
    if not (name.startswith("video_") and digits.isascii() and digits.isdigit()):
        raise UsageError(f"'{name}' is not the name of a CLEVRER video, such as video_10000")
    return int(digits)


# --- answers ----------------------------------------------------------------------------------------------------------


def read_answers(path: Path) -> dict[int, dict[int, GivenAnswer]]:
    """Read a file of answers: number of the video -> question id -> answer.

    Raises:
        DataMissingError: the file cannot be read. UsageError: it is no such file, or answers a question twice.
    """
    found: dict[int, dict[int, GivenAnswer]] = {}
    for number, entries in _videos(path):
        where = f"{path}: video {number}"
        given = found.setdefault(number, {})
        for entry in entries:
            (question,) = _fields(entry, where, question_id=int)
            if question in given:
                raise UsageError(f"{where}: question_id {question} is answered twice")
            given[question] = _given(entry, f"{where}, question {question}")
    return found


def _given(entry: Any, where: str) -> GivenAnswer:
    if "choices" not in entry:
        (answer,) = _fields(entry, where, answer=str)
        return str(answer)
    if not isinstance(entry["choices"], list):
        raise UsageError(f"{where}: 'choices' is not a list")
    judged: dict[int, bool] = {}
    for choice in entry["choices"]:
        number, answer = _fields(choice, where, choice_id=int, answer=str)
        if answer not in _JUDGED:
            raise UsageError(f"{where}: choice {number} has answer '{answer}'; expected correct or wrong")
        if number in judged:
            raise UsageError(f"{where}: choice_id {number} is answered twice")
        judged[number] = _JUDGED[answer]
    return judged


def write_answers(path: Path, answers: Mapping[int, Answers]) -> None:
    """Write answers in the form that CLEVRER's test server takes, atomically."""
    words = {judged: word for word, judged in _JUDGED.items()}

    def entry(number: int, given: GivenAnswer) -> dict[str, Any]:
        if isinstance(given, str):
            return {"question_id": number, "answer": given}
        choices = [{"choice_id": choice, "answer": words[judged]} for choice, judged in given.items()]
        return {"question_id": number, "choices": choices}

    content = [
        {"scene_index": video, "questions": [entry(number, given) for number, given in of_video.items()]}
        for video, of_video in answers.items()
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda place: place.write_text(json.dumps(content), encoding="utf-8"))
