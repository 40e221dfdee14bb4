"""Reasoning: answers to questions about videos (CLEVRER), counted per question and per choice.

Answers are matched to questions by their numbers, and what is missing is wrong. (A script in use pairs the two by
position and skips pairs whose numbers differ.) The kinds of questions are never averaged: descriptive ones are four
fifths of all, and their accuracy would hide the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..cards.protocols import ReasoningProtocol
from ..cards.task import TaskSpec
from ..core.errors import NotApplicableError, UsageError
from ..core.questions import CHOICE_KINDS, Answers, Question
from ..core.types import Prediction, Truth
from ..data.clevrer.questions import video_number, write_answers
from ..data.clevrer.vocabulary import ANSWERS
from .base import Adapter, Family
from .checks import check_prediction, missing
from .files import prediction_path

COUNTS = (
    "n_descriptive",
    "n_descriptive_right",
    *(f"n_{kind}_{per}s{right}" for kind in CHOICE_KINDS for per in ("option", "question") for right in ("", "_right")),
    "n_unanswered",
)
"""Columns of counts, from which all metrics are computed."""


STRANGE = f"answers that are no answer of CLEVRER and count as wrong ({', '.join(ANSWERS)}, in small letters)"


def count_right(questions: Sequence[Question], answers: Answers) -> dict[str, float]:
    """The `COUNTS` of one video."""
    counts = dict.fromkeys(COUNTS, 0.0)
    for question in questions:
        given = answers.get(question.id)
        if question.kind == "descriptive":
            counts["n_descriptive"] += 1
            counts["n_descriptive_right"] += given == question.answer
            counts["n_unanswered"] += not isinstance(given, str)
            continue
        judged: Mapping[int, bool] = given if isinstance(given, Mapping) else {}
        right = [judged.get(choice.id) == choice.correct for choice in question.choices]
        at = f"n_{question.kind}"
        counts[f"{at}_options"] += len(right)
        counts[f"{at}_options_right"] += sum(right)
        counts[f"{at}_questions"] += 1
        counts[f"{at}_questions_right"] += all(right)
        counts["n_unanswered"] += sum(choice.id not in judged for choice in question.choices)
    return counts


class Reasoning:
    """Adapter of the `reasoning` family. An output is the `Answers` to the questions about one video."""

    scored_at_once: int | None = None

    def check(self, prediction: object, size: int, name: str) -> Prediction:
        """Require `answers`, one mapping for each video. Raises UsageError naming model and field."""
        checked = check_prediction(prediction, name)
        if checked.answers is None:
            raise missing(checked, name, "answers", "reasoning needs the answers to Batch.questions")
        if len(checked.answers) != size or not all(isinstance(one, Mapping) for one in checked.answers):
            got = f"{len(checked.answers)} entries"
            raise UsageError(f"model {name}: Prediction.answers has {got}, expected {size} mappings of question ids")
        return checked

    def finite(self, prediction: Prediction) -> np.ndarray:
        """(B,) bool, all true: answers are words."""
        return np.ones(len(prediction.answers or ()), dtype=bool)

    def source(self, prediction: Prediction) -> str:
        """`answers`."""
        return "answers"

    def outputs(
        self, prediction: Prediction, shapes: Sequence[tuple[int, int]], side: int | None = None
    ) -> list[Answers]:
        """The answers of each video."""
        del shapes, side
        return list(prediction.answers or ())

    def remarks(self, outputs: Sequence[Answers]) -> dict[str, int]:
        """How many words are none of CLEVRER's."""
        words = [given for answers in outputs for given in answers.values() if isinstance(given, str)]
        strange = sum(word not in ANSWERS for word in words)
        return {STRANGE: strange} if strange else {}

    def columns(self, task: TaskSpec) -> dict[str, str]:
        """A column for each count."""
        return dict.fromkeys(COUNTS, "float64")

    def score(self, truth: Sequence[Truth], outputs: Sequence[Answers], task: TaskSpec) -> list[dict[str, Any]]:
        """A row of counts for each video. `n_objects` is the number of questions."""
        return [
            {"n_objects": len(video.questions), **count_right(video.questions, answers)}
            for video, answers in zip(truth, outputs, strict=True)
        ]

    def picture(self, output: Answers, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
        """Answers have no picture. Raises NotApplicableError."""
        raise NotApplicableError("answers to questions cannot be drawn")

    def write(self, folder: Path, sample_id: str, seed: int, output: Answers) -> None:
        """Write the answers as a file in the form of CLEVRER's test server, for one video."""
        path = prediction_path(folder, sample_id, seed, ".json")
        write_answers(path, {video_number(sample_id): output})


def _remarks(
    adapter: Adapter, outputs: Sequence[Answers], shapes: Sequence[tuple[int, int]], side: int | None
) -> Mapping[str, int]:
    del shapes, side
    return cast(Reasoning, adapter).remarks(outputs)


REASONING = Family(
    name="reasoning",
    protocol=ReasoningProtocol,
    adapter=lambda task, model: Reasoning(),
    unit="videos",
    whole=True,
    output="answers",
    picture="none",
    remarks=_remarks,
)
"""The family of tasks that ask questions about videos."""
