"""The frames of CLEVRER's videos: folders of pictures, or the official films (mp4, by the extra `video`).

videos/<split>/video_10000-11000/video_10000/000000.png    frames as pictures, which go before a film
videos/<split>/video_10000-11000/video_10000.mp4           film
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...core.errors import SampleError
from ...core.types import Sample, Truth, Video
from ..clevrer.annotations import annotation_of, read_annotation
from ..clevrer.facts import KINDS
from ..clevrer.questions import video_number
from ..images import read_image
from .frames import lazy_video, list_files
from .video_files import VideoFile

FRAMES, FILM = (".png", ".jpg", ".jpeg"), ".mp4"
REMEDY = "extract or download the video again"
_PART = 1000
"""Videos in one folder."""

BROKEN = {10_800: "its official annotation is broken"}
"""Videos whose annotation is not read, as in SlotFormer."""


@dataclass(frozen=True)
class Footage:
    """The frames of a video. names: of the frames, in the order of time. image: reads a frame, (H, W, 3) uint8."""

    names: list[str]
    image: Callable[[int], np.ndarray]


def find_videos(root: Path, split: str) -> dict[str, Path]:
    """Name of each video of a split -> its folder of frames or its film, relative to the root."""
    found = {}
    for path in sorted((root / "videos" / split).glob("video_*/video_*"), key=lambda path: path.is_dir()):
        if path.is_dir() or path.suffix.lower() == FILM:
            found[path.stem] = path.relative_to(root)
    return dict(sorted(found.items()))


def open_footage(place: Path, name: str) -> Footage:
    """The frames of a folder or a film.

    Raises:
        SampleError: the film cannot be decoded, or two files are one frame. UsageError: the extra is not installed.
    """
    if place.suffix.lower() == FILM:
        film = VideoFile(place, name, REMEDY)
        return Footage([f"{number:06d}" for number in range(film.count)], film.__getitem__)
    files = list_files(place, FRAMES, name)
    names = sorted(files)
    return Footage(names, lambda position: read_image(place / files[names[position]], name, remedy=REMEDY))


def asked_video(root: Path, split: str, name: str, truth: Truth) -> Video:
    """The video that questions are about. Its masks are not read, and the truth of each frame has the questions.

    Args:
        root: folder of CLEVRER.
        split: of the video.
        name: of the video.
        truth: of the questions.

    Raises:
        SampleError: the video is missing or cannot be read, or its annotation is broken or of another length.
    """
    number = video_number(name)
    first = number // _PART * _PART
    folder = Path("videos", split, f"video_{first:05d}-{first + _PART:05d}", name)
    place = next((path for path in (folder, folder.with_suffix(FILM)) if (root / path).exists()), None)
    if place is None:
        raise SampleError(name, f"{root / folder}: no such folder of frames, and no film {name}{FILM}; {REMEDY}")
    footage = open_footage(root / place, name)
    path = annotation_of(root, place)
    known = path.is_file() and number not in BROKEN
    annotation = read_annotation(path, name, None, len(footage.names)) if known else None
    kinds = tuple(KINDS.index(thing) for thing in annotation.things) if annotation is not None else ()

    def read(position: int) -> Sample:
        image = footage.image(position)
        labels = np.zeros(image.shape[:2], np.int16)
        places = annotation.locations[position] if annotation is not None else None
        frame = Truth(labels, kinds, questions=truth.questions, facts=truth.facts, locations=places)
        return Sample(name, image, frame)

    return lazy_video(name, footage.names, read, REMEDY)
