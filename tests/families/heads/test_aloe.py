"""The head that answers from slots: what it learns, determinism, sizes, and what it cannot be fitted on."""

from __future__ import annotations

import pytest
import torch

from ocl_bench.cards.protocols import Fit
from ocl_bench.core.errors import UsageError
from ocl_bench.core.questions import Choice, Question
from ocl_bench.families.heads.aloe import MOST_SLOTS, AskedVideo, FittedAloe, encoded, fit_aloe, frames_of
from ocl_bench.models.aloe import SIZES, Aloe

FIT = Fit(head="aloe", steps=60, batch=16, learning_rates=(0.003,))
FRAMES = frames_of("embedded")
COLOURS = ("red", "blue")


def video(number: int, slots: int = 3) -> AskedVideo:
    """A slot of a red or blue object among others; the question asks for its colour, and whether it is red."""
    generator = torch.Generator().manual_seed(number)
    clip = torch.randn(FRAMES, slots, 4, generator=generator) * 0.3
    colour = number % 2
    clip[:, number % slots, colour] += 3
    asked = (
        Question(4, "What color is the object", "descriptive", COLOURS[colour]),
        Question(
            9,
            "Which event will happen next",
            "predictive",
            choices=(Choice(2, "the object exits", colour == 0), Choice(5, "the sphere exits", colour == 0)),
        ),
    )
    return AskedVideo(clip, asked)


VIDEOS = [video(number) for number in range(40)]


def test_it_learns_what_the_slots_say() -> None:
    answer = FittedAloe(fit_aloe(VIDEOS, "embedded", FIT), "embedded")
    right = []
    for number in range(100, 120):
        fresh = video(number)
        given = answer(fresh.slots, [question.asked() for question in fresh.questions])
        truth = {choice.id: bool(choice.correct) for choice in fresh.questions[1].choices}
        right += [given[4] == fresh.questions[0].answer, given[9] == truth]
    assert sum(right) >= 36


def test_the_same_seed_gives_the_same_head_and_leaves_the_generator_alone() -> None:
    short = FIT.model_copy(update={"steps": 3})
    torch.manual_seed(5)
    first = fit_aloe(VIDEOS[:4], "embedded", short)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.rand(1) == drawn
    again = fit_aloe(VIDEOS[:4], "embedded", short)
    other = fit_aloe(VIDEOS[:4], "embedded", short.model_copy(update={"seed": 1}))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["aloe.judge.0.weight"], other["aloe.judge.0.weight"])


@pytest.mark.parametrize("slots", [1, 3, 9])
def test_videos_may_have_other_numbers_of_slots(slots: int) -> None:
    head = fit_aloe([*VIDEOS[:4], video(7, slots=2)], "embedded", FIT.model_copy(update={"steps": 2}))
    answer = FittedAloe(head, "embedded")
    assert answer.slots == 3 and set(answer(torch.ones(FRAMES, slots, 4), VIDEOS[0].questions)) == {4, 9}


def test_of_many_slots_those_are_read_that_are_there_in_most_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image model's linked slots come and go: each is empty (all zero) in the frames in which it is away."""
    clip = torch.zeros(FRAMES, 30, 4)
    clip[:, 20] = 1.0
    clip[: FRAMES // 2, :11] = torch.randn(FRAMES // 2, 11, 4, generator=torch.Generator().manual_seed(0))
    clip[0, 25] = 5.0
    head = fit_aloe([AskedVideo(clip, VIDEOS[0].questions)], "embedded", FIT.model_copy(update={"steps": 2}))
    answer = FittedAloe(head, "embedded")
    assert answer.slots == MOST_SLOTS
    read: list[torch.Tensor] = []

    def descriptive(slots: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        read.append(slots)
        return torch.zeros(len(words), 22)

    monkeypatch.setattr(answer.network, "descriptive", descriptive)
    rare, often = clip.clone(), clip.clone()
    rare[0, 25], often[:, 20] = -7.0, 2.0
    for slots in (clip, rare, often):
        answer(slots, VIDEOS[0].questions[:1])
    assert torch.equal(read[0], read[1]) and not torch.equal(read[0], read[2])
    assert (read[0][0, FRAMES // 2 :, :11] == 0).all(), "an empty slot is at the mean"


def test_words_that_clevrer_does_not_have() -> None:
    with pytest.raises(UsageError, match="'banana' in 'the banana exits' is not a word of CLEVRER's vocabulary"):
        encoded(Question(1, "Which event", "predictive", choices=(Choice(0, "the banana exits"),)))


def test_without_a_question_there_is_nothing_to_learn() -> None:
    with pytest.raises(UsageError, match="there are no questions about the videos of the fit split"):
        fit_aloe([AskedVideo(VIDEOS[0].slots, ())], "embedded", FIT)


@pytest.mark.parametrize("kept", [0, 1])
def test_one_kind_of_questions_is_enough(kept: int) -> None:
    one_kind = [AskedVideo(one.slots, one.questions[kept : kept + 1]) for one in VIDEOS[:4]]
    answer = FittedAloe(fit_aloe(one_kind, "embedded", FIT.model_copy(update={"steps": 2})), "embedded")
    assert set(answer(VIDEOS[0].slots, VIDEOS[0].questions)) == {4, 9}


def test_the_official_size() -> None:
    network = Aloe(128, slots=7, **SIZES["clevrer"])
    assert sum(parameter.numel() for parameter in network.parameters()) == 2_879_437
