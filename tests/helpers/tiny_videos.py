"""Videos in memory, a task card for them and small video models, for the tests of the video family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ocl_bench.cards.task import TaskSpec
from ocl_bench.core.errors import SampleError
from ocl_bench.core.types import Batch, Prediction, Sample, Truth, Video
from ocl_bench.data import OpenData

SIDE = 24


def video_task(**changes: Any) -> TaskSpec:
    content: dict[str, Any] = {
        "name": "tiny-video",
        "version": 1,
        "family": "video",
        "data": {"reader": "davis"},
        "protocol": {"input": SIDE, "score_at": SIDE, "crop": "square", "interpolation": "bicubic-tensor"},
        "metrics": ["fg_ari_video", "mbo_video", "fg_ari_frame", "mbo_frame", "jf", "j", "f"],
        "main": "fg_ari_video",
    }
    return TaskSpec.model_validate({**content, **changes})


def moving_squares(number: int, frames: int = 6, side: int = SIDE) -> Video:
    """Two squares that move in opposite directions; the second is hidden in the first frame of odd videos."""
    generator = np.random.default_rng(number)
    speed = int(generator.integers(1, 3))

    def frame(position: int) -> Sample:
        labels = np.zeros((side, side), np.int16)
        left, right = 2 + speed * position, side - 8 - speed * position
        labels[3:9, left : left + 6] = 1
        if position or not number % 2:
            labels[13:20, right : right + 6] = 2
        colours = np.array([[40, 40, 40], [220, 30, 30], [30, 30, 220]], np.uint8)
        return Sample(f"video{number}", colours[labels], Truth(labels, categories=(1, 1)))

    return Video(f"video{number}", LazyFrames(frame, frames), tuple(f"{k:05d}" for k in range(frames)))


@dataclass
class LazyFrames(Sequence[Sample]):
    """Frames that are made when asked for; `read` lists which were."""

    make: Any
    count: int
    read: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: Any) -> Any:
        self.read.append(index)
        return self.make(range(self.count)[index])


class VideoMemory:
    """Reader of `moving_squares`. broken: videos whose last frame cannot be read."""

    def __init__(self, count: int, frames: int = 6, broken: tuple[int, ...] = ()) -> None:
        self.ids = tuple(f"video{number}" for number in range(count))
        self.frames, self.broken = frames, broken

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Video:
        video = moving_squares(index, self.frames)
        if index not in self.broken:
            return video
        made = video.frames.make  # type: ignore[attr-defined]

        def frame(position: int) -> Sample:
            if position == self.frames - 1:
                raise SampleError(video.id, "frame 00005 is missing; unpack the archive again")
            return made(position)  # type: ignore[no-any-return]

        return replace(video, frames=LazyFrames(frame, self.frames))


def memory_videos(count: int = 4, **keywords: Any) -> OpenData:
    reader = VideoMemory(count, **keywords)
    return OpenData(reader, "supplied", "supplied-1", Path("."), reader.ids, "data: in memory")  # type: ignore[arg-type]


class Colours:
    """An image model: slot 0 dark, then red and blue pixels, but numbered differently from frame to frame."""

    shuffle = True

    def predict(self, batch: Batch) -> Prediction:
        red, blue = batch.image[:, 0] > 0.5, batch.image[:, 2] > 0.5
        masks = torch.stack([~red & ~blue, red, blue], 1).float()
        slots = torch.eye(3).expand(len(batch), 3, 3) * masks.flatten(2).any(2)[:, :, None]
        if self.shuffle:
            turn = [torch.roll(torch.arange(3), k) for k in range(len(batch))]
            masks = torch.stack([mask[order] for mask, order in zip(masks, turn, strict=True)])
            slots = torch.stack([slot[order] for slot, order in zip(slots, turn, strict=True)])
        return Prediction(masks=masks, mask_source="decoder", slots=slots)


class ColourMaps(Colours):
    """The same as label maps without slots, so that only the masks can be linked."""

    def predict(self, batch: Batch) -> Prediction:
        found = super().predict(batch)
        assert found.masks is not None
        return Prediction(masks=found.masks.argmax(1), mask_source="clusters")
