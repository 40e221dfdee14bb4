"""Images, or the frames of videos, without any truth: what `ocl-bench predict` reads.

The id of an image is its path below the folder without suffix. A video is a folder that holds frames itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..core.errors import DataMissingError, UsageError
from ..core.numbers import counted
from ..core.types import Sample, Truth, Video
from .base import OpenData, SampleSequence
from .images import read_image
from .readers.folder import not_read
from .readers.frames import IMAGES, by_stem, in_time, lazy_video

_REMEDY = "repair or remove the file"


def open_unlabelled(folder: Path, videos: bool, limit: int | None = None) -> OpenData:
    """The images, or the videos, in a folder and the folders below it. Hidden files and folders are left out.

    Raises:
        DataMissingError: the folder is missing or holds no image.
        UsageError: two files would have one id.
    """
    if not folder.is_dir():
        raise DataMissingError(f"{folder}: there is no such folder; name a folder of images")
    files: dict[str, list[Path]] = {}
    others: list[str] = []
    for place, images, rest in _folders(folder):
        others += rest
        for image in images:
            name = place if videos else (Path(place) / image.stem).as_posix()
            files.setdefault(name if name != "." else folder.resolve().name, []).append(image)
    if not files:
        raise DataMissingError(f"{folder}: no image ({', '.join(IMAGES)}) in it")
    ids = tuple(list(files)[:limit])
    reader = _Videos(ids, files) if videos else _Images(ids, files)
    found = counted(len(ids), "video" if videos else "image")
    note = f"data: supplied by you, {found} of {folder}{not_read(('without an image suffix', others))}"
    return OpenData(reader, "supplied", "unlabelled", folder, ids, note)


def _folders(folder: Path) -> Iterator[tuple[str, list[Path], list[str]]]:
    """Each folder that holds files: its path below `folder`, its images in the order of time, and its other files."""
    for place, inner, names in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        below = Path(place).relative_to(folder)
        try:
            images, others = by_stem(names, IMAGES)
        except ValueError as error:
            raise UsageError(f"{place}: {error} would have one mask; remove one") from error
        ordered = [Path(place, images[stem]) for stem in in_time(images)]
        yield below.as_posix(), ordered, [(below / name).as_posix() for name in others]


def _read(path: Path, sample_id: str) -> Sample:
    """An image with a truth that says nothing. Raises SampleError for a file that cannot be read."""
    image = read_image(path, sample_id, remedy=_REMEDY)
    return Sample(sample_id, image, Truth(np.zeros(image.shape[:2], np.int16)))


@dataclass(frozen=True)
class _Images(SampleSequence[Sample]):
    ids: tuple[str, ...]
    files: dict[str, list[Path]]

    def __getitem__(self, index: int) -> Sample:
        sample_id = self.ids[range(len(self))[index]]
        return _read(self.files[sample_id][0], sample_id)


@dataclass(frozen=True)
class _Videos(SampleSequence[Video]):
    ids: tuple[str, ...]
    files: dict[str, list[Path]]

    def __getitem__(self, index: int) -> Video:
        video_id = self.ids[range(len(self))[index]]
        frames = self.files[video_id]
        return lazy_video(video_id, [frame.stem for frame in frames], partial(_frame, frames, video_id), _REMEDY)


def _frame(frames: list[Path], video_id: str, position: int) -> Sample:
    return _read(frames[position], video_id)
