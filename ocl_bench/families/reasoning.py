"""Reasoning: answers to questions about videos (CLEVRER), counted per question and per choice.

A model answers by itself, or a head that reads its slots does (`heads.aloe`), fitted on frozen slots by one recipe for
all models.

Answers are matched to questions by their numbers, and what is missing is wrong. (A script in use pairs the two by
position and skips pairs whose numbers differ.) The kinds of questions are never averaged: descriptive ones are four
fifths of all, and their accuracy would hide the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..cards.protocols import Fit
from ..cards.reasoning import ANSWERS as ANSWERED
from ..cards.reasoning import ReasoningProtocol
from ..cards.task import TaskSpec
from ..core.errors import NotApplicableError, SampleError, UsageError
from ..core.log import logger
from ..core.questions import CHOICE_KINDS, Answers, Question
from ..core.types import Prediction, Truth, Video
from ..data.clevrer.questions import video_number, write_answers
from ..data.clevrer.vocabulary import ANSWERS
from .base import Adapter, Batches, Family, Head
from .checks import check_alike, check_prediction, check_video_slots, finite_rows, missing
from .files import prediction_path
from .heads.aloe import AskedVideo, FittedAloe, encoded, fit_aloe, frames_of
from .recognition import fitted_head

if TYPE_CHECKING:
    from ..data import OpenData
    from ..models.loading import LoadedModel

COUNTS = (
    "n_descriptive",
    "n_descriptive_right",
    *(f"n_{kind}_{per}s{right}" for kind in CHOICE_KINDS for per in ("option", "question") for right in ("", "_right")),
    "n_unanswered",
)
"""Columns of counts, from which all metrics are computed."""


_NEED = (
    "a head answers from the slots (1,T,K,D) of a video; a model that answers Batch.questions by itself declares "
    "`answers_questions = True`"
)

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


class _Undrawn:
    """An adapter whose outputs have no picture."""

    def picture(self, output: object, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
        """Raise NotApplicableError."""
        raise NotApplicableError("answers to questions cannot be drawn")


class Reasoning(_Undrawn):
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
        return ANSWERED

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

    def write(self, folder: Path, sample_id: str, seed: int, output: Answers) -> None:
        """Write the answers as a file in the form of CLEVRER's test server, for one video."""
        _write(folder, sample_id, seed, output)


def _write(folder: Path, video_id: str, seed: int, answers: Answers) -> None:
    write_answers(prediction_path(folder, video_id, seed, ".json"), {video_number(video_id): answers})


@dataclass
class SlotReasoning(_Undrawn):
    """Adapter for models that give slots. The output of a frame is its slots (K, D); a head answers for a video.

    Attributes:
        task: the task.
        seen: frames of a video before its end, or before the cut of a stand-in.
        head: the fitted head; None before it is fitted.
    """

    task: TaskSpec
    seen: int
    head: Head | None = None
    scored_at_once: int | None = 1  # a killed run loses no more than one video
    alone = 0

    @property
    def protocol(self) -> ReasoningProtocol:
        """The protocol of the task."""
        return cast(ReasoningProtocol, self.task.protocol)

    @cached_property
    def answering(self) -> FittedAloe:
        """The fitted head. Raises UsageError before it is fitted."""
        return FittedAloe(fitted_head(self.head, self.task), self.protocol.aloe)

    def with_timing(self, data: OpenData) -> Self:
        """A copy with the cut of a stand-in whose videos are shorter than the official ones."""
        return replace(self, seen=data.timing.get("seen_frames", self.seen))

    def clip(self, video: Video) -> range:
        """Numbers of the frames that the head reads, evenly spread over the seen ones: of 128 and 25, 4, 9, .. 124.

        Raises SampleError for a video that is too short, and for a question with words that CLEVRER does not have.
        """
        count = frames_of(self.protocol.aloe)
        stride = self.seen // count
        if len(video) < self.seen or not stride:
            needed = f"{self.seen} are needed, of which {count} are read"
            raise SampleError(video.id, f"has {len(video)} frames; {needed}; extract or download the video again")
        first = (self.seen - (count - 1) * stride) // 2  # the median of SlotFormer's random starts
        numbers = range(first, first + (count - 1) * stride + 1, stride)
        for question in video.frames[numbers[0]].truth.questions:
            try:
                encoded(question)
            except UsageError as error:
                raise SampleError(video.id, f"question {question.id}: {error}") from error
        return numbers

    def check(self, prediction: object, size: int, name: str) -> Prediction:
        """Require the slots of one video; the returned prediction is that of `size` images, and has slots only.

        Raises UsageError naming model and field, and NotApplicableError without slots.
        """
        checked = check_prediction(prediction, name)
        if checked.slots is None:
            raise missing(checked, name, "slots", _NEED)
        return Prediction(slots=check_video_slots(checked, size, name), state=checked.state)

    def finite(self, prediction: Prediction) -> np.ndarray:
        """(T,) bool: the frames whose slots are finite."""
        return finite_rows(prediction.slots)

    def slot_shape(self, prediction: Prediction) -> tuple[int, ...]:
        """(K, D): number of slots, and their length."""
        return tuple(cast(Tensor, prediction.slots).shape[1:])

    def source(self, prediction: Prediction) -> str:
        """`slots`."""
        return "slots"

    def outputs(
        self, prediction: Prediction, shapes: Sequence[tuple[int, int]], side: int | None = None
    ) -> list[Tensor]:
        """The slots of each frame. Raises UsageError for slots of another length than those of the fit."""
        del shapes, side
        slots = cast(Tensor, prediction.slots)
        if self.head is not None:
            check_alike("slots", slots.shape[2:], self.head["slot_mean"].shape)
        return list(slots)

    def fit(self, batches: Batches, split: OpenData) -> Head:
        """Fit the head on the slots and the questions of all videos."""
        videos: list[AskedVideo] = []
        for truth, prediction in batches:
            slots = cast(Tensor, prediction.slots).cpu()
            videos.append(AskedVideo(slots, truth[0].questions))
            check_alike("slots", slots.shape[2:], videos[0].slots.shape[2:])
        fit = cast(Fit, self.task.fit)
        logger.info("aloe: %d steps on the questions about %d videos of %s", fit.steps, len(videos), split.root)
        return fit_aloe(videos, self.protocol.aloe, fit)

    def with_head(self, head: Head) -> Self:
        """A copy of this adapter that uses a head from `fit`."""
        return replace(self, head=head)

    def columns(self, task: TaskSpec) -> dict[str, str]:
        """A column for each count, and the number of frames."""
        del task
        return dict.fromkeys((*COUNTS, "n_frames"), "float64")

    def tally(self, task: TaskSpec) -> AnswerTally:
        """A new `AnswerTally` for one video."""
        del task
        return AnswerTally(self)

    def score(self, truth: Sequence[Truth], outputs: Sequence[Tensor], task: TaskSpec) -> list[dict[str, Any]]:
        """The row of one video from all its frames."""
        tally = self.tally(task)
        tally.add(truth, outputs)
        return [tally.row()]

    def write(self, folder: Path, sample_id: str, seed: int, output: Answers | None) -> None:
        """Write the answers that come with the last frame of a video; other frames have none."""
        if output is not None:
            _write(folder, sample_id.partition("/")[0], seed, output)


class AnswerTally:
    """Gathers the slots of one video, and answers the questions about it."""

    def __init__(self, adapter: SlotReasoning) -> None:
        self.adapter = adapter
        self.questions: tuple[Question, ...] = ()
        self.slots: list[Tensor] = []

    def add(self, truth: Sequence[Truth], outputs: Sequence[Tensor]) -> None:
        """Add the next frames."""
        self.questions = truth[0].questions
        self.slots += outputs

    @cached_property
    def answers(self) -> Answers:
        """The answers to the questions, which the head gets without theirs."""
        most = max(len(frame) for frame in self.slots)
        slots = torch.stack([F.pad(frame, (0, 0, 0, most - len(frame))) for frame in self.slots])
        return self.adapter.answering(slots.cpu(), [question.asked() for question in self.questions])

    def shown(self) -> Sequence[Answers | None]:
        """The answers in the place of the last frame, which is when they are known."""
        return [*[None] * (len(self.slots) - 1), self.answers]

    def row(self) -> dict[str, Any]:
        """The row of counts. `n_objects` is the number of questions."""
        counts = count_right(self.questions, self.answers)
        return {"n_objects": len(self.questions), "n_frames": float(len(self.slots)), **counts}


def _adapter(task: TaskSpec, loaded: LoadedModel | None) -> Adapter:
    """The adapter of a task for a model; without a model, as for files of answers, that of answers."""
    if loaded is None or task.fit is None or getattr(loaded.model, "answers_questions", False):
        return Reasoning()
    return SlotReasoning(task, cast(int, cast(ReasoningProtocol, task.protocol).seen))


def _for_data(adapter: Adapter, data: OpenData) -> Adapter:
    return adapter.with_timing(data) if isinstance(adapter, SlotReasoning) else adapter


def _remarks(
    adapter: Adapter, outputs: Sequence[Answers], shapes: Sequence[tuple[int, int]], side: int | None
) -> Mapping[str, int]:
    del shapes, side
    return cast(Reasoning, adapter).remarks(outputs)


REASONING = Family(
    name="reasoning",
    protocol=ReasoningProtocol,
    adapter=_adapter,
    unit=ReasoningProtocol.unit,
    whole=lambda adapter: not isinstance(adapter, SlotReasoning),
    output="answers",
    picture="none",
    for_data=_for_data,
    remarks=_remarks,
    clip=lambda adapter, video, fitting: cast(SlotReasoning, adapter).clip(video),
)
"""The family of tasks that ask questions about videos."""
