"""Frames of a video file (mp4, mov, mkv, webm, avi, gif), decoded one after the other.

GIFs are read by Pillow, all others need the package `av`, which loses frames of GIFs that state no times.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...core.errors import SampleError
from ...core.files import check_regular
from ...core.optional import import_optional
from ..images import LARGEST_IMAGE, UNREADABLE, one_line, to_rgb

VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif")
"""Suffixes of video files."""

_MOST_FRAMES = 100_000


class VideoFile:
    """The frames of a file in the order of display; all are decoded once to count them, and again when asked for.

    Frames depend on the ones before, so that asking for an earlier one decodes from the start. None is kept.

    Args:
        path: the file.
        video_id: for messages.
        remedy: what the user can do; it ends each message.

    Raises:
        SampleError: the file cannot be decoded, or has no frame.
        UsageError: the package `av` is not installed.
    """

    def __init__(self, path: Path, video_id: str, remedy: str) -> None:
        self._path, self._video_id, self._remedy = path, video_id, remedy
        self._frames: Iterator[Any] = iter(())
        self._next = 0
        self.count = sum(1 for _ in self._decoded())
        if not self.count:
            raise SampleError(video_id, f"{path}: holds no frame; {remedy}")

    def __getitem__(self, position: int) -> np.ndarray:
        """Frame `position` as (H, W, 3) uint8 RGB. Raises SampleError when it cannot be decoded."""
        if position < self._next or self._next == 0:
            self._frames, self._next = self._decoded(), 0
        for frame in self._frames:
            self._next += 1
            if self._next == position + 1:
                return to_rgb(frame) if isinstance(frame, Image.Image) else np.asarray(frame.to_ndarray(format="rgb24"))
        raise SampleError(self._video_id, f"{self._path}: frame {position} cannot be decoded; {self._remedy}")

    def _decoded(self) -> Iterator[Any]:
        decode = _gif if self._path.suffix.lower() == ".gif" else _film
        try:
            check_regular(self._path)
            for number, frame in enumerate(decode(self._path)):
                if number >= _MOST_FRAMES or frame.width * frame.height > LARGEST_IMAGE:
                    raise ValueError(f"frame {number} of {frame.width}x{frame.height} pixels is too much")
                yield frame
        except UNREADABLE as error:
            text = f"cannot be decoded ({one_line(error)})"
            raise SampleError(self._video_id, f"{self._path}: {text}; {self._remedy}") from error


def _gif(path: Path) -> Iterator[Image.Image]:
    """The frames as they are shown, drawn over the ones before: one picture, which changes."""
    with Image.open(path, formats=("GIF",)) as picture:
        position = 0
        while True:
            try:
                picture.seek(position)
            except EOFError:
                return
            picture.load()
            yield picture
            position += 1


def _film(path: Path) -> Iterator[Any]:
    """The frames that `av` decodes."""
    av = import_optional("av", "video", f"{path}: reading it")
    try:
        with av.open(str(path)) as container:
            yield from container.decode(video=0)
    except av.FFmpegError as error:
        raise ValueError(one_line(error)) from error
