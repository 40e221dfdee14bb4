"""Answers to questions that exist already, in the form of CLEVRER's test server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...cards.model import ModelCard
from ...cards.task import TaskSpec
from ...core.errors import UsageError
from ...core.files import file_sha256
from ...core.log import logger
from ...core.types import Sample
from ...data import OpenData
from ...data.clevrer.questions import read_answers, video_number
from ...families import find_family
from ...models.loading import LoadedModel
from ..loop import GivenOutputs
from ..plan import Plan, make_plan


def answers_plan(
    task: TaskSpec, data: OpenData, path: Path, name: str, *, limit: int | None = None, split: str | None = None
) -> Plan:
    """The plan that scores one file of answers. Answers are matched by the numbers of video and question.

    What the file lacks is wrong. What it has beyond the data is not scored, and a warning counts it.

    Raises:
        UsageError: the file cannot be used, or answers no question of the data.
    """
    if find_family(task.family).output != "answers":
        raise UsageError(f"task {task.name}: {path} holds answers to questions, which are of tasks of reasoning")
    given = read_answers(path)
    by_video = {sample_id: given.pop(video_number(sample_id), {}) for sample_id in data.ids}
    answered = sum(map(len, by_video.values()))
    if not answered:
        raise UsageError(f"{path}: answers no question of {task.name} ({len(data.ids)} videos, {data.ids[0]} is first)")
    _count_unused(data, by_video, given, path)
    about: dict[str, Any] = {"notes": ("answers from a file",), "supervision": "undeclared"}
    card = ModelCard(name="supplied-answers", source="user:object", input=8, families=(task.family,), **about)
    model = LoadedModel(
        GivenOutputs({0: by_video}, "answers"), card, name, file_sha256(path), 0, None, {}, bundled=False
    )
    return make_plan(model, task, data=data, noise_seeds=(0,), limit=limit, split=split, device="cpu")


def _count_unused(
    data: OpenData, by_video: dict[str, dict[int, Any]], others: dict[int, dict[int, Any]], path: Path
) -> None:
    """Warn about videos and questions of the file that the data do not have."""
    strange = 0
    for index, sample_id in enumerate(data.ids):
        sample: Sample = data.reader[index]
        strange += len(set(by_video[sample_id]) - {question.id for question in sample.truth.questions})
    if others or strange:
        text = "%s: not scored, because the data do not have them: %d videos, and %d questions of other videos"
        logger.warning(text, path, len(others), strange)
