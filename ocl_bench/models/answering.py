"""Floors of reasoning: answers without a look at the video.

Both know how often each answer is right in the questions about 48 training worlds of the scenes `collisions`, which are
simulated at the first question. `majority` gives the most frequent answer of a kind of questions. `question-only`
gives that of questions and choices with the same words, apart from the names of objects.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import cache

import torch

from ..core.questions import Answers, GivenAnswer, Question
from ..core.types import Batch, Prediction
from ..data.clevrer.facts import COLOURS, MATERIALS, SHAPES
from ..data.clevrer.questions import as_question
from ..data.scenes.collisions import sample_world, simulate
from ..data.stand_ins.clevrer import questions_about

WORLDS = 48
"""Training worlds whose questions are counted."""

_NAME = re.compile(rf"\b(({'|'.join((*COLOURS, *MATERIALS, *SHAPES))})('s|s)?\s*)+")
_Counts = dict[str, Counter[str]]


class Guessing:
    """Answers with what was most frequent for a template.

    Args:
        by_words: whether the template is the words, or else the kind of question.
    """

    answers_questions = True

    def __init__(self, by_words: bool) -> None:
        self.by_words = by_words

    def predict(self, batch: Batch) -> Prediction:
        """Answers (B,) to the questions about each video. Without questions, slots that are the same in every frame:
        a readout of these can only learn which answer is more frequent.
        """
        if not batch.questions:
            return Prediction(masks=torch.ones(len(batch), 1, 1, 1), slots=torch.ones(len(batch), 1, 1))
        return Prediction(answers=tuple(self.answers(questions) for questions in batch.questions))

    def answers(self, questions: Iterable[Question]) -> Answers:
        """Answer the questions about one video."""
        given: dict[int, GivenAnswer] = {}
        for question in questions:
            if question.kind == "descriptive":
                given[question.id] = self._guess(question)
            else:
                choices = question.choices
                given[question.id] = {one.id: self._guess(question, one.text) == "correct" for one in choices}
        return given

    def _guess(self, question: Question, choice: str = "") -> str:
        by_template = _counted()
        counts = by_template.get(_template(question, choice)) if self.by_words else None
        counts = counts or by_template[question.kind]
        return min(counts, key=lambda answer: (-counts[answer], answer))  # of equal counts the first word


def _template(question: Question, choice: str) -> str:
    """The words of a question and a choice, with OBJECT for each name of an object."""
    return _NAME.sub("OBJECT ", f"{question.text} {choice}".lower()).strip()


@cache
def _counted() -> _Counts:
    """Kind, and template -> how often each answer is right."""
    counts: _Counts = defaultdict(Counter)
    for question in _training_questions():
        if question.kind == "descriptive":
            right = [("", question.answer)]
        else:
            right = [(one.text, "correct" if one.correct else "wrong") for one in question.choices]
        for choice, answer in right:
            counts[question.kind][answer] += 1
            counts[_template(question, choice)][answer] += 1
    return dict(counts)


def _training_questions() -> Iterator[Question]:
    for index in range(WORLDS):
        world = sample_world(1, "train", index)
        for entry in questions_about(world, simulate(world)):
            yield as_question(entry, f"world {index}")


def build_majority() -> Guessing:
    """The model of the card `majority`."""
    return Guessing(by_words=False)


def build_question_only() -> Guessing:
    """The model of the card `question-only`."""
    return Guessing(by_words=True)
