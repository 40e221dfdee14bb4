"""Reasoning from slots: a head is fitted on the training videos, and answers; videos and questions that fail alone."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from clevrer_tree import clevrer_card, clevrer_tree
from pydantic import ValidationError

from ocl_bench.cards.task import TaskSpec
from ocl_bench.core.errors import DataMissingError, NotApplicableError, UsageError
from ocl_bench.core.types import Batch, Prediction, Truth
from ocl_bench.data import open_data
from ocl_bench.data.clevrer.questions import read_answers, read_questions
from ocl_bench.evaluation.check_model import check_model
from ocl_bench.evaluation.evaluate import evaluate
from ocl_bench.evaluation.examination.refusals import refusal
from ocl_bench.evaluation.plan import make_plan
from ocl_bench.evaluation.run import run
from ocl_bench.evaluation.video_fitting import video_predictions
from ocl_bench.models.loading import get_model
from ocl_bench.results.record import Result

METRICS = ("descriptive", "predictive_option", "counterfactual_question", "n_unanswered")
HEAD = {"head": "aloe", "split": "train", "steps": 3, "batch": 4}


def card(**changes: Any) -> TaskSpec:
    protocol = {"input": 16, "seen": 128, **changes.pop("protocol", {})}
    fields: dict[str, Any] = {"metrics": METRICS, "main": "descriptive", "protocol": protocol, "fit": HEAD}
    return clevrer_card(**(fields | changes))


TASK = card()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return clevrer_tree(tmp_path / "data", ("val", "train"))


class Quarters:
    """Four slots, one for each quarter of a frame: its mean colour. Remembers how many frames of a video it saw."""

    reads_video = True
    fingerprint = "quarters"

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}

    def predict(self, batch: Batch) -> Prediction:
        assert batch.video is not None and not batch.questions, "slots must not depend on what is asked"
        self.seen[batch.ids[0]] = self.seen.get(batch.ids[0], 0) + batch.video.shape[1]
        cells = batch.video.unflatten(3, (2, -1)).unflatten(5, (2, -1)).mean((4, 6))
        return Prediction(slots=cells.flatten(3).transpose(2, 3))


def answered(root: Path, tmp_path: Path, model: Any = None, task: TaskSpec = TASK, **keywords: Any) -> Result:
    plan = make_plan(model or Quarters(), task, data_root=root, device="cpu", progress=False)
    return run(plan, results=tmp_path / "results", progress=False, **keywords)


def test_a_head_answers_every_question(root: Path, tmp_path: Path) -> None:
    model = Quarters()
    result = answered(root, tmp_path, model, save_predictions=True)
    assert result.metrics["descriptive"].signature == (
        "descriptive│from:slots│match:id│missing:wrong│seen:128│aloe:embedded│head:aloe│v1"
    )
    assert result.fit is not None and (result.fit.head, result.fit.split, result.fit.samples) == ("aloe", "train", 2)
    assert result.counts.scored == 2 and result.value("n_unanswered") == 0
    assert {name: model.seen[name] for name in ("video_00000", "video_00001")} == {"video_00000": 8, "video_00001": 8}
    assert refusal(result, TASK) is None
    assert result.path is not None
    folder = result.path.with_suffix(".predictions")
    assert sorted(path.name for path in folder.rglob("*.*")) == ["video_10000.json", "video_10001.json"]
    for number, asked in read_questions(root / "CLEVRER/questions/val.json").items():
        given = read_answers(folder / f"seed-0/video_{number}.json")[number]
        assert set(given) == {question.id for question in asked}
        for question in asked:
            answer = given[question.id]
            assert isinstance(answer, str) == (question.kind == "descriptive")
            if not isinstance(answer, str):
                assert set(answer) == {choice.id for choice in question.choices}


def test_a_killed_fit_reads_the_slots_that_it_kept(root: Path, tmp_path: Path) -> None:
    model, kept = Quarters(), tmp_path / "kept"
    plan = make_plan(model, TASK, data_root=root, device="cpu", progress=False)
    fitting = replace(plan, data=plan.train, adapter=plan.family.for_data(plan.adapter, plan.train))  # type: ignore
    first = [prediction.slots for _, prediction in video_predictions(fitting, [], kept)]
    predicted = dict(model.seen)
    again = list(video_predictions(fitting, [], kept))
    assert model.seen == predicted and len(list(kept.iterdir())) == 2
    for before, (truth, after) in zip(first, again, strict=True):
        assert torch.equal(before, after.slots) and after.masks is None and truth[0].questions  # type: ignore[arg-type]


def test_frames_after_the_cut_are_not_seen(root: Path, tmp_path: Path) -> None:
    """The stand-in shows 32 of 56 frames: another future changes no answer."""
    before = answered(root, tmp_path / "before", save_predictions=True)
    for place in (root / "CLEVRER/videos").glob("*/*/*"):
        for number in range(32, 56):
            shutil.copy(place / "000000.png", place / f"{number:06d}.png")
    after = answered(root, tmp_path / "after", save_predictions=True)
    texts = [
        [path.read_text() for path in sorted(result.path.with_suffix(".predictions").rglob("*.json"))]
        for result in (before, after)
        if result.path is not None
    ]
    assert texts[0] == texts[1] and before.metrics == after.metrics


def test_official_videos_give_the_frames_of_slotformer(root: Path) -> None:
    """25 frames of 128, 5 apart; the start is the median of SlotFormer's random ones, 0 to 7."""
    task = card(protocol={"aloe": "clevrer"})
    (root / "CLEVRER/stand-in.json").unlink()
    place = root / "CLEVRER/videos/val/video_10000-11000/video_10000"
    for number in range(56, 128):
        shutil.copy(place / "000000.png", place / f"{number:06d}.png")
    shutil.rmtree(root / "CLEVRER/annotations")
    data = open_data(task, data_root=root)
    plan = make_plan(Quarters(), task, data=data, train=data, device="cpu")
    numbers = plan.family.clip(plan.adapter, data.reader[0].video(), False)
    assert list(numbers) == list(range(4, 125, 5))


def test_models_that_answer_need_neither_videos_nor_a_fit(root: Path, tmp_path: Path) -> None:
    shutil.rmtree(root / "CLEVRER/videos")
    (root / "CLEVRER/questions/train.json").unlink()
    for name in ("majority", "question-only", "executor"):
        result = evaluate(name, TASK, data_root=root, results=tmp_path, progress=False)
        assert result.fit is None and refusal(result, TASK) is None
        assert result.metrics["descriptive"].signature == "descriptive│from:answers│match:id│missing:wrong│v1"
    with pytest.raises(DataMissingError, match=r"questions/train.json"):
        answered(root, tmp_path)


def test_true_states_know_what_objects_are(root: Path) -> None:
    """Place, distance, in view, then colour, material and shape; slot 0 is no object."""
    data = open_data(TASK, data_root=root)
    video = data.reader[0].video()
    truth = [video.frames[number].truth for number in (0, 31)]
    slots = get_model("true-states").model.predict(Batch((video.id,), torch.zeros(1, 3, 8, 8)), truth).slots
    assert slots is not None and slots.shape == (1, 2, len(truth[0].categories) + 1, 17)
    kinds = slots[0, :, 1:, 4:]
    assert (slots[0, :, 0, 4:] == 0).all() and (kinds.sum(-1) == 3).all() and torch.equal(kinds[0], kinds[1])
    assert len({tuple(kind.tolist()) for kind in kinds[0]}) == len(truth[0].categories)
    bare = [Truth(truth[0].labels, locations=truth[0].locations)]
    assert get_model("true-states").model.predict(Batch((video.id,), torch.zeros(1, 3, 8, 8)), bare).slots.shape[3] == 4


def test_true_states_are_a_ceiling_of_the_card(root: Path, tmp_path: Path) -> None:
    result = answered(root, tmp_path, "true-states")
    assert result.model.role == "ceiling" and result.fit is not None and result.counts.scored == 2
    shutil.rmtree(root / "CLEVRER/annotations")
    with pytest.raises(NotApplicableError, match="true states need the locations of objects"):
        answered(root, tmp_path / "other", "true-states")


def test_check_model_compares_slots_where_no_masks_are_needed() -> None:
    checks = {check.name: check for check in check_model(Quarters(), TASK)}
    assert all(check.passed is not False for check in checks.values()), checks
    assert checks["independent of clips"].passed and "slots (4, 4, 3)" in checks["fields and shapes"].detail


# --- what fails, and what is refused ----------------------------------------------------------------------------------


def questions(root: Path, edit: Callable[[Any], None]) -> None:
    path = root / "CLEVRER/questions/val.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def no_video(root: Path) -> None:
    shutil.rmtree(root / "CLEVRER/videos/val/video_10000-11000/video_10000")


def short_video(root: Path) -> None:
    shutil.rmtree(root / "CLEVRER/annotations")
    for number in range(31, 56):
        (root / f"CLEVRER/videos/val/video_10000-11000/video_10000/{number:06d}.png").unlink()


def longer_than_its_annotation(root: Path) -> None:
    place = root / "CLEVRER/videos/val/video_10000-11000/video_10000"
    shutil.copy(place / "000000.png", place / "000056.png")


def unknown_word(root: Path) -> None:
    questions(root, lambda content: content[0]["questions"][0].update(question="How many bananas are there?"))


def long_question(root: Path) -> None:
    questions(root, lambda content: content[0]["questions"][0].update(question="how " * 40))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_video, "no such folder of frames, and no film video_10000.mp4; extract or download"),
        (short_video, "has 31 frames; 32 are needed, of which 8 are read; extract or download the video again"),
        (longer_than_its_annotation, "has 56 frames, the video has 57"),
        (unknown_word, "question 0: 'bananas' in 'How many bananas are there?' is not a word of CLEVRER's vocabulary"),
        (long_question, "has 40 words, at most 32 are allowed"),
    ],
)
def test_a_video_fails_alone_and_is_counted(
    root: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(root)
    result = answered(root, tmp_path)
    assert result.counts.scored == 1 and [one.id for one in result.counts.failed] == ["video_10000"]
    assert message in result.counts.failed[0].error and "\n" not in result.counts.failed[0].error


def test_the_video_with_a_broken_annotation_is_answered(root: Path, tmp_path: Path) -> None:
    """SlotFormer leaves it out of the videos, but asks the questions about it."""
    base = root / "CLEVRER"
    (base / "videos/val/video_10000-11000/video_10000").rename(base / "videos/val/video_10000-11000/video_10800")
    place = base / "annotations/val/annotation_10000-11000"
    (place / "annotation_10000.json").unlink()
    (place / "annotation_10800.json").write_text("{")
    questions(root, lambda content: content[0].update(scene_index=10800))
    result = answered(root, tmp_path)
    assert result.counts.scored == 2 and not result.counts.failed


def test_choices_without_answers_and_missing_videos_are_said(root: Path, tmp_path: Path) -> None:
    def strip(content: Any) -> None:
        asked = next(one for one in content[0]["questions"] if "choices" in one)
        asked["choices"][0].pop("answer")

    shutil.rmtree(root / "CLEVRER/videos/val")
    with pytest.raises(DataMissingError, match=r"no folder of videos: .*videos/val; slots need the videos"):
        answered(root, tmp_path)
    questions(root, strip)
    with pytest.raises(
        UsageError, match=r"video 10000, question \d+: choice \d+ has answer None; the test split has none"
    ):
        answered(root, tmp_path)


def test_training_videos_that_fail_are_left_out_and_counted(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A tenth may fail; here it is every second one."""
    shutil.rmtree(root / "CLEVRER/videos/train/video_00000-01000/video_00001")
    with pytest.raises(UsageError, match=r"1 of 2 videos of the fit split fail, first: .*video_00001"):
        answered(root, tmp_path)
    with caplog.at_level(logging.INFO, "ocl_bench"):
        answered(clevrer_tree(tmp_path / "again", ("val", "train")), tmp_path)
    assert "aloe: 3 steps on the questions about 2 videos" in caplog.text


class Broken(Quarters):
    """Slots that cannot be used."""

    def __init__(self, slots: Any) -> None:
        super().__init__()
        self.slots = slots

    def predict(self, batch: Batch) -> Prediction:
        assert batch.video is not None
        return Prediction(slots=self.slots(batch.video.shape[1]))


@pytest.mark.parametrize(
    ("slots", "error", "message"),
    [
        (lambda frames: None, NotApplicableError, "slots is missing .*by itself declares `answers_questions = True`"),
        (
            lambda frames: torch.ones(frames, 4, 3),
            UsageError,
            r"slots is \(8, 4, 3\), expected for one video \(1,8,K,D\)",
        ),
        (lambda frames: torch.ones(1, frames, 4, 3).long(), UsageError, "dtype torch.int64, expected floating"),
        (lambda frames: torch.full((1, frames, 4, 3), torch.nan), UsageError, "the prediction is not finite"),
    ],
)
def test_slots_that_cannot_be_used(
    root: Path, tmp_path: Path, slots: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        answered(root, tmp_path, Broken(slots))


def test_slots_of_another_length_than_those_of_the_fit(root: Path, tmp_path: Path) -> None:
    class Growing(Quarters):
        def predict(self, batch: Batch) -> Prediction:
            found = super().predict(batch)
            slots = found.slots if batch.ids[0] < "video_10000" else found.slots[..., :2]  # type: ignore[index]
            return Prediction(slots=slots)

    with pytest.raises(UsageError, match="has 2 numbers for one image and 3 for another"):
        answered(root, tmp_path, Growing())


def test_a_card_without_a_head_does_not_read_slots(root: Path, tmp_path: Path) -> None:
    with pytest.raises(NotApplicableError, match=r"Prediction\.answers is missing"):
        answered(root, tmp_path, "slot-attention", card(fit=None, protocol={"seen": None}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": {"seen": None}}, "is missing; a head needs the number of frames"),
        ({"protocol": {"aloe": "huge"}}, "aloe"),
        ({"fit": {"head": "contact"}}, "'contact' is not a head of reasoning"),
    ],
)
def test_cards_that_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises((UsageError, ValidationError), match=message):
        card(**changes)
