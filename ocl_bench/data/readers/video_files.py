"""Frames of a video file (mp4, mov, mkv, webm, avi, gif), decoded one after the other. Needs the package `av`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import SampleError, UsageError
from ...core.files import check_regular
from ..images import LARGEST_IMAGE, one_line

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
                return np.asarray(frame.to_ndarray(format="rgb24"))
        raise SampleError(self._video_id, f"{self._path}: frame {position} cannot be decoded; {self._remedy}")

    def _decoded(self) -> Iterator[Any]:
        av = _package(self._path)
        try:
            check_regular(self._path)
            with av.open(str(self._path)) as container:
                for number, frame in enumerate(container.decode(video=0)):
                    if number >= _MOST_FRAMES or frame.width * frame.height > LARGEST_IMAGE:
                        raise ValueError(f"frame {number} of {frame.width}x{frame.height} pixels is too much")
                    yield frame
        except (OSError, ValueError, IndexError, av.FFmpegError) as error:
            text = f"cannot be decoded ({one_line(error)})"
            raise SampleError(self._video_id, f"{self._path}: {text}; {self._remedy}") from error


def _package(path: Path) -> Any:
    """The module av. Raises UsageError when it is not installed."""
    try:
        import av
    except ImportError as error:
        raise UsageError(f"{path}: reading it needs the package av; pip install 'ocl-bench[video]'") from error
    return av
