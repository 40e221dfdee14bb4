"""A model with a synthetic input, ready to be counted and timed. What an image shows changes no cost of our models."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ...cards.protocols import LARGEST_SIDE
from ...core.errors import UsageError
from ...core.machine import synchronise
from ...core.types import Batch, Truth
from ...models.frames import video_model
from ...models.loading import LoadedModel, get_model
from ..check_model import synthetic_images
from ..loop import name_failures
from ..plan import check_batch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Types of arithmetic. Those below float32 are those of torch.autocast, which keeps the weights in float32."""

DEFAULT_SIZE = 128
"""Side in pixels of images for a model that declares none, such as floors and ceilings, which take any size."""


@dataclass(frozen=True)
class ProfileSetup:
    """How models are measured. All of it is printed, since all of it changes the numbers.

    Attributes:
        device: of torch.
        dtype: a name in `DTYPES`.
        threads: of torch on the CPU.
        batch: clips or images of a pass.
        clip: frames of a clip, for models that read videos.
        size: side of a frame in pixels; None takes each model's own.
        streaming: give the frames of a clip one by one, each with the state that the one before left.
        warmup: passes of each model that are not timed.
        repeats: passes of each model that are timed.
    """

    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 1
    batch: int = 1
    clip: int = 4
    size: int | None = None
    streaming: bool = False
    warmup: int = 1
    repeats: int = 10

    def __post_init__(self) -> None:
        """Check the numbers. Raises UsageError naming the option of the command line."""
        if self.dtype not in DTYPES:
            raise UsageError(f"--dtype {self.dtype}: is unknown; use {', '.join(DTYPES)}")
        least = {"threads": 1, "batch": 1, "clip": 1, "warmup": 0, "repeats": 2}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise UsageError(f"--{name} {getattr(self, name)}: give at least {smallest}")
        if self.size is not None and not 8 <= self.size <= LARGEST_SIDE:
            raise UsageError(f"--size {self.size}: give at least 8 and at most {LARGEST_SIDE} pixels")


@dataclass(frozen=True)
class ModelChoice:
    """A model to profile: its name and options. untrained: accept random weights where there are no trained ones."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    untrained: bool = False


class Subject:
    """A loaded model and its input.

    Args:
        choice: the model.
        setup: how it is measured.
        as_video: give clips to a model of images as well; it then sees frame after frame.

    Raises:
        UsageError: for a model whose weights are missing, unless `choice.untrained`.
    """

    def __init__(self, choice: ModelChoice, setup: ProfileSetup, *, as_video: bool = False) -> None:
        torch.manual_seed(0)  # the same random weights in every run and process
        self.loaded: LoadedModel = get_model(choice.name, options=choice.options, device=setup.device)
        if self.loaded.untrained and not choice.untrained:
            raise UsageError(
                f"model {choice.name} has no weights here; "
                "--untrained profiles it with random ones, which cost the same"
            )
        self.choice, self.setup = choice, setup
        self.video = as_video or self.reads_video
        self.model = video_model(self.loaded.model) if self.video else self.loaded.model
        declared = getattr(self.loaded.model, "input_size", None) or self.loaded.card.input
        self.size = int(setup.size or declared or DEFAULT_SIZE)
        check_batch(self.frames, self.size)
        images, labels = synthetic_images(self.frames, self.size)
        self._images = images.to(setup.device) if callable(getattr(self.loaded.model, "to", None)) else images
        # Only ceilings read it, and it is made here so that its making is not timed.
        self._truth = [Truth(label_map, label=0) for label_map in labels]

    @property
    def reads_video(self) -> bool:
        """Whether the model itself takes clips."""
        return bool(getattr(self.loaded.model, "reads_video", False))

    @property
    def frames(self) -> int:
        """The number of frames (or images) of one pass."""
        return self.setup.batch * (self.setup.clip if self.video else 1)

    @property
    def in_float32(self) -> Subject:
        """The same model and input, to count parameters and operations, which are those of any dtype.

        Autocast casts nothing of an operation that a counter breaks up, and the product of two types fails.
        """
        plain = copy(self)
        plain.setup = replace(self.setup, dtype="float32")
        return plain

    def run(self) -> None:
        """Run one pass over the clips or images, and wait until the device has finished.

        Raises UsageError when the model fails.
        """
        failures = name_failures(self.choice.name, f"{self.frames} frames of side {self.size}")
        with failures, torch.inference_mode(), self._arithmetic():
            if self.video:
                self._run_clips()
            else:
                self._ask(Batch(self._ids, self._images), self._truth)
        synchronise(self.setup.device)

    def _run_clips(self) -> None:
        """Predict all frames at once, or one by one with the state that the frame before left."""
        clips = self._images.unflatten(0, (self.setup.batch, self.setup.clip))
        length, state = 1 if self.setup.streaming else self.setup.clip, None
        for start in range(0, self.setup.clip, length):
            part = clips[:, start : start + length]
            batch = Batch(self._ids, part[:, 0], video=part, start=start, state=state)
            state = self._ask(batch, self._truth[start : start + length]).state

    def _ask(self, batch: Batch, truth: list[Truth]) -> Any:
        """The model's answer; only ceilings are given the truth."""
        return self.model.predict(batch, *((truth,) if self.loaded.needs_truth else ()))

    @property
    def _ids(self) -> tuple[str, ...]:
        return tuple(f"input-{number}" for number in range(self.setup.batch))

    def _arithmetic(self) -> AbstractContextManager[Any]:
        """The context in which the model computes with the type of the setup."""
        if self.setup.dtype == "float32":
            return nullcontext()
        return torch.autocast(torch.device(self.setup.device).type, dtype=DTYPES[self.setup.dtype])
