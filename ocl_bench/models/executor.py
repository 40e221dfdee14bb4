"""The ceiling of reasoning: the programs of questions, run on what is true of the video (NS-DR's symbolic executor)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from ..core.errors import DataMissingError
from ..core.questions import Answers, GivenAnswer
from ..core.types import Batch, Prediction, Truth
from ..data.clevrer.facts import Facts
from ..data.clevrer.programs import run
from ..data.clevrer.simulations import FOLDER

_JUDGED = {"yes": True, "no": False}


class Executor:
    """Answers with what the program of a question gives; without a program, or a value, there is no answer."""

    needs_truth = True
    answers_questions = True

    def predict(self, batch: Batch, truth: Sequence[Truth]) -> Prediction:
        """Answers (B,) to the questions about each video. Raises DataMissingError for one without a simulation."""
        return Prediction(answers=tuple(_answers(*one) for one in zip(batch.ids, truth, strict=True)))


def _answers(name: str, truth: Truth) -> Answers:
    if truth.facts is None:
        raise DataMissingError(f"no simulation of {name}", f"put NS-DR's sim files into <root>/CLEVRER/{FOLDER}/")
    facts = cast(Facts, truth.facts())
    given: dict[int, GivenAnswer] = {}
    for question in truth.questions:
        if question.kind == "descriptive":
            if question.program:
                given[question.id] = str(run(question.program, facts))
            continue
        programs = {one.id: (*one.program, *question.program) for one in question.choices if one.program}
        values = {number: run(program, facts) for number, program in programs.items()}
        given[question.id] = {number: _JUDGED[value] for number, value in values.items() if value in _JUDGED}
    return given


def build_executor() -> Executor:
    """The model of the card `executor`."""
    return Executor()
