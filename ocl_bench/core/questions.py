"""Questions about a video, and answers to them (CLEVRER, Yi et al., ICLR 2020, arXiv:1910.01442)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

QuestionKind = Literal["descriptive", "explanatory", "predictive", "counterfactual"]
KINDS: tuple[QuestionKind, ...] = ("descriptive", "explanatory", "predictive", "counterfactual")
CHOICE_KINDS = KINDS[1:]
"""Kinds whose questions have choices, each of which is right or wrong."""

GivenAnswer: TypeAlias = str | Mapping[int, bool]
"""The word that answers a descriptive question, or choice id -> whether the choice is judged correct."""

Answers: TypeAlias = Mapping[int, GivenAnswer]
"""Question id -> answer, for the questions of one video. A question that is not in it counts as wrong."""


@dataclass(frozen=True)
class Choice:
    """One choice of a question: number, text, whether it is correct (None: not said), and program."""

    id: int
    text: str
    correct: bool | None = None
    program: tuple[str, ...] = ()


@dataclass(frozen=True)
class Question:
    """One question. Descriptive ones have an `answer` (empty: not said), the others have `choices`."""

    id: int
    text: str
    kind: QuestionKind
    answer: str = ""
    choices: tuple[Choice, ...] = ()
    program: tuple[str, ...] = ()

    def asked(self) -> Question:
        """The question as a model gets it: without answer, truth of its choices and programs."""
        return Question(self.id, self.text, self.kind, choices=tuple(Choice(one.id, one.text) for one in self.choices))
