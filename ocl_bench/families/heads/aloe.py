"""Aloe's head (`models.aloe`), fitted on the frozen slots of videos and the questions about them.

The recipe is one for all models, and that of SlotFormer but for three points: slots are standardised, the frames have a
fixed start, and steps, batch and rate are those of the card. Empty slots (all zero) are left at the mean. Of a video
with many slots, those are read that are there in most frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...cards.protocols import Fit
from ...core.errors import UsageError
from ...core.questions import Answers, GivenAnswer, Question
from ...data.clevrer.vocabulary import ANSWERS, encode, encode_answer
from ...models.aloe import SIZES, Aloe
from ..base import Head
from .fitting import mean_and_scale, used_slots, warmed_up

MOST_SLOTS = 12
"""Slots of a frame that the head reads: each is a token, and attention takes time proportional to their square."""
WARM_UP, FALL = 0.1, 4.0
"""Share of the steps in which the rate rises, and its first value / its last one, 1 % of the rate (SlotFormer)."""
_PREFIX = "aloe."


@dataclass(frozen=True)
class AskedVideo:
    """The slots (T, K, D) float32 on the CPU of the frames of a video, and the questions about it."""

    slots: Tensor
    questions: Sequence[Question]


@dataclass(frozen=True)
class _Sequences:
    """All questions without choices, or all choices: number of the video (N,), words (N, 32), what is right (N,)."""

    videos: Tensor
    words: Tensor
    right: Tensor


def frames_of(size: str) -> int:
    """Number of frames that a head of this size reads."""
    return SIZES[size]["frames"]


def encoded(question: Question) -> list[list[int]]:
    """The numbers of the words of a question, or of the question with each of its choices.

    Raises UsageError for a word that CLEVRER does not have, and for a text that is too long.
    """
    if question.kind == "descriptive":
        return [encode(question.text)]
    return [encode(question.text, choice.text) for choice in question.choices]


def fit_aloe(videos: Sequence[AskedVideo], size: str, fit: Fit) -> Head:
    """Fit the head. The result is deterministic for one number of threads.

    Args:
        videos: of the fit split; all have as many frames as a head of this size reads.
        size: of the head.
        fit: the recipe of the task card: steps, batch, the learning rate, and the seed of weights and draws.

    Returns:
        Tensors `slot_mean` and `slot_scale` (D,), and those of the network, `aloe.*`.

    Raises:
        UsageError: there is no question with an answer.
    """
    everything = torch.cat([video.slots.flatten(0, 1) for video in videos])
    mean, scale = mean_and_scale(everything[used_slots(everything)])
    most = min(max(video.slots.shape[1] for video in videos), MOST_SLOTS)
    slots = torch.stack([_standard(video.slots, mean, scale, most) for video in videos])
    descriptive, choices = _descriptive(videos), _choices(videos)
    if not len(descriptive.videos) + len(choices.videos):
        raise UsageError("there are no questions about the videos of the fit split")
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), torch.inference_mode(False):
        torch.manual_seed(fit.seed)  # weights, draws and dropout
        network = _network(size, len(mean), most)
        _descend(network, slots.clone(), descriptive, choices, fit)
    weights = {f"{_PREFIX}{name}": value.detach() for name, value in network.state_dict().items()}
    return {"slot_mean": mean, "slot_scale": scale, **weights}


def _network(size: str, slot_dim: int, slots: int) -> Aloe:
    """A head of this size with new weights."""
    return Aloe(slot_dim, slots=slots, **SIZES[size])


def _standard(slots: Tensor, mean: Tensor, scale: Tensor, count: int) -> Tensor:
    """The `count` slots that are there in most frames, standardised, (T, count, D); filled up with empty ones."""
    there = slots.abs().amax(2) > 0
    chosen = there.sum(0).argsort(descending=True, stable=True)[:count].sort().values
    standard = torch.where(there[..., None], (slots - mean) / scale, 0.0)[:, chosen]
    return F.pad(standard, (0, 0, 0, count - len(chosen)))


def _descriptive(videos: Sequence[AskedVideo]) -> _Sequences:
    found = [
        (number, encoded(question)[0], encode_answer(question.answer))
        for number, video in enumerate(videos)
        for question in video.questions
        if question.kind == "descriptive"
    ]
    return _sequences(found)


def _choices(videos: Sequence[AskedVideo]) -> _Sequences:
    found = [
        (number, words, int(bool(choice.correct)))
        for number, video in enumerate(videos)
        for question in video.questions
        if question.kind != "descriptive"
        for words, choice in zip(encoded(question), question.choices, strict=True)
    ]
    return _sequences(found)


def _sequences(found: Sequence[tuple[int, list[int], int]]) -> _Sequences:
    videos, words, right = zip(*found, strict=True) if found else ((), (), ())
    return _Sequences(*(torch.tensor(values, dtype=torch.int64) for values in (videos, words, right)))


def _descend(network: Aloe, slots: Tensor, descriptive: _Sequences, choices: _Sequences, fit: Fit) -> None:
    """Train in place: Adam; the loss is the cross entropy of words plus the binary one of choices.

    A batch is drawn from all questions and choices alike.
    """
    rate = fit.learning_rates[0] if fit.learning_rates else 1e-3
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=rate)
    schedule = warmed_up(optimizer, rate, fit.steps, WARM_UP, FALL)
    words = len(descriptive.videos)
    network.train()
    for _ in range(fit.steps):
        drawn = torch.randint(words + len(choices.videos), (fit.batch,))
        asked, judged = drawn[drawn < words], drawn[drawn >= words] - words
        losses = []
        if len(asked):
            logits = network.descriptive(slots[descriptive.videos[asked]], descriptive.words[asked])
            losses.append(F.cross_entropy(logits, descriptive.right[asked]))
        if len(judged):
            logits = network.choices(slots[choices.videos[judged]], choices.words[judged])
            losses.append(F.binary_cross_entropy_with_logits(logits, choices.right[judged].float()))
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
        schedule.step()
    network.eval()


class FittedAloe:
    """A head from its tensors. size: of the head."""

    def __init__(self, head: Head, size: str) -> None:
        self.mean, self.scale = head["slot_mean"], head["slot_scale"]
        weights = {name.removeprefix(_PREFIX): value for name, value in head.items() if name.startswith(_PREFIX)}
        sizes = SIZES[size]
        words = len(encode(""))
        self.slots = (weights["positions"].shape[1] - 1 - words) // sizes["frames"]
        self.network = _network(size, len(self.mean), self.slots).eval()
        self.network.load_state_dict(weights)

    def __call__(self, slots: Tensor, questions: Sequence[Question]) -> Answers:
        """The answers to the questions about a video from the slots (T, K, D) of its frames."""
        standard = _standard(slots, self.mean, self.scale, self.slots)
        with torch.inference_mode():
            return {question.id: self._answer(standard, question) for question in questions}

    def _answer(self, slots: Tensor, question: Question) -> GivenAnswer:
        words = torch.tensor(encoded(question))
        videos = slots.expand(len(words), -1, -1, -1)
        if question.kind == "descriptive":
            logits = self.network.descriptive(videos, words)[0]
            return ANSWERS[int(logits[1:].argmax())]  # 0 is padding
        judged = self.network.choices(videos, words) > 0
        return {choice.id: bool(one) for choice, one in zip(question.choices, judged, strict=True)}
