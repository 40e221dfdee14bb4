"""From a reader to what a model sees: samples, prepared as the protocol says.

Processes that only read run this too (`workers.py`): it imports as little as it can.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from torch import Tensor

from ..cards.protocols import Protocol
from ..core.errors import SampleError
from ..core.types import OVERLAP, Sample, Truth, Video
from ..data.base import Reader
from ..data.transforms import granted_boxes, prepare
from ..results.record import Failure


@dataclass(frozen=True)
class Item:
    """One sample, or one frame of a video, as the protocol prepares it.

    Attributes:
        id: of the sample.
        image: (3, S, S) float32 in [0, 1].
        truth: at the size at which it is scored.
        boxes: (N, 4) xyxy pixels of `image`, where the card grants boxes to the model's attention; else None.
    """

    id: str
    image: Tensor
    truth: Truth
    boxes: Tensor | None = None

    @property
    def pixels(self) -> np.ndarray:
        """The image as the model sees it, (S, S, 3) uint8."""
        return (self.image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)


def make_item(sample: Sample, protocol: Protocol, side: int) -> Item:
    """A sample as the protocol prepares it, for a model that sees `side` x `side` pixels.

    Raises SampleError for objects that overlap, where the card says `overlap: error`.
    """
    image, truth = prepare(sample, protocol, side)
    if protocol.overlap == "error" and (truth.labels == OVERLAP).any():
        raise SampleError(sample.id, "two objects claim one pixel, and the task card says `overlap: error`")
    boxes = granted_boxes(sample, protocol, side) if protocol.grants == "attention" else None
    return Item(sample.id, image, truth, boxes)


@dataclass(frozen=True)
class ImageSource:
    """Reads batches of images.

    Attributes:
        reader: gives the samples.
        ids: their ids.
        protocol: of the task.
        side: of the square that the model sees, in pixels.
    """

    reader: Reader[Any]
    ids: tuple[str, ...]
    protocol: Protocol
    side: int

    def __call__(self, positions: Sequence[int]) -> tuple[list[Item], list[Failure]]:
        """The prepared samples, and the failures of those that cannot be read."""
        items, failed = [], []
        for position in positions:
            try:
                items.append(make_item(self.reader[position], self.protocol, self.side))
            except SampleError as error:
                failed.append(Failure(id=self.ids[position], error=str(error)))
        return items, failed


def video_of(found: Sample | Video) -> Video:
    """The video that a reader gives, or that the questions of its sample are about."""
    return cast(Callable[[], Video], found.video)() if isinstance(found, Sample) else found


@dataclass(frozen=True)
class Clip:
    """Frames of one video that are read together.

    Attributes:
        position: of the video in the data.
        frames: their numbers in the video as its reader returns it.
        first: number of the first frame of the video that counts.
    """

    position: int
    frames: tuple[int, ...]
    first: int


@dataclass
class ClipSource:
    """Reads clips; the video of the last one stays open. Attributes are those of `ImageSource`."""

    reader: Reader[Any]
    protocol: Protocol
    side: int
    opened: tuple[int, Video] | None = field(default=None, init=False, repr=False)

    def __call__(self, clip: Clip) -> list[Item]:
        """The prepared frames. Raises SampleError where one cannot be read, or is of another size than the first."""
        if self.opened is None or self.opened[0] != clip.position:
            video = video_of(self.reader[clip.position])
            _ = video.frames[clip.first]  # the frame that sets the size of the video, whoever reads the others
            self.opened = clip.position, video
        video = self.opened[1]
        return [make_item(video.frames[frame], self.protocol, self.side) for frame in clip.frames]
