"""Readers in memory that behave otherwise in processes that only read."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from tiny_evaluation import MemoryReader

from ocl_bench.core.errors import UsageError
from ocl_bench.core.log import logger, warn_once
from ocl_bench.core.types import Sample
from ocl_bench.data import OpenData


class Watching(MemoryReader):
    """Counts what this process reads, in `reads`. home: id of the process that made it."""

    def __init__(self, count: int, **keywords: Any) -> None:
        super().__init__(count, **keywords)
        self.home = os.getpid()


class Warning(Watching):
    """Warns once about all its images, and says something of each."""

    def __getitem__(self, index: int) -> Sample:
        warn_once("odd", "the data", f"image {index} is odd, perhaps others are, too")
        logger.info("read %s", index)
        return super().__getitem__(index)


class Dying(Watching):
    """A process that only reads is killed at an image, as for want of memory."""

    def __getitem__(self, index: int) -> Sample:
        if index == 40 and os.getpid() != self.home:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


class Refusing(Watching):
    """Needs a package that is missing, as the reader of video files does."""

    def __getitem__(self, index: int) -> Sample:
        raise UsageError("the package av is missing", "pip install av")


class Buggy(Watching):
    """Has a bug."""

    def __getitem__(self, index: int) -> Sample:
        raise ZeroDivisionError("a bug")


class Locked(Watching):
    """Holds what pickle cannot send."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.key = lambda: None


def data_of(reader: MemoryReader) -> OpenData:
    """The images of a reader."""
    return OpenData(reader, "embedded", "embedded-r1-00000000", Path("."), reader.ids, "data: in memory")  # type: ignore[arg-type]
