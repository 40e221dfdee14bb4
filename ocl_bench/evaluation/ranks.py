"""The processes (ranks) that torchrun started for one evaluation, and how they notice each other."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import UsageError
from ..core.files import digest
from ..core.launcher import PATIENCE, is_starting, remedy
from ..core.log import logger

_BEAT, _SILENCE = 0.5, 60.0  # seconds between two signs of life; without one for so long a rank counts as dead
_READY = "ready"


@dataclass(frozen=True)
class ProcessRank:
    """This process among those that torchrun started: rank r of `world` computes shards r, r + world, ..."""

    world: int
    rank: int

    @classmethod
    def from_environment(cls) -> ProcessRank:
        """The rank from WORLD_SIZE and RANK, which torchrun sets; rank 0 of 1 where they are not set.

        Raises UsageError when they are inconsistent.
        """
        try:
            world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        except ValueError as error:
            raise UsageError(f"WORLD_SIZE and RANK must be integers; {remedy()}") from error
        if not 0 <= rank < world:
            raise UsageError(f"RANK {rank} is not below WORLD_SIZE {world}; {remedy()}")
        if world > 1 and "RANK" not in os.environ:
            raise UsageError(f"WORLD_SIZE {world} without a RANK; {remedy()}")
        return cls(world, rank)


class Companions:
    """The other ranks of an evaluation. Each rank keeps writing a small file in `folder`, and reads those of others.

    Nothing here compares clocks: a rank lives if its file changes. With one rank this does nothing.

    Args:
        rank: this process.
        folder: beside the result. Names of files tell launches apart.
    """

    def __init__(self, rank: ProcessRank, folder: Path) -> None:
        names = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "WORLD_SIZE")
        self.launch = digest([os.environ.get(name, "") for name in names])[:8]
        self.rank, self.folder = rank, folder
        self.state = "" if rank.rank == 0 else _READY
        self.others = [other for other in range(rank.world) if other != rank.rank]
        self.texts = {other: self._read(other) for other in self.others}  # perhaps left by a run that was killed
        self.seen: dict[int, float] = {}
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Companions:
        if self.others:
            self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self.others:
            return
        self.stopped.set()
        self.thread.join()
        with suppress(OSError):
            self._path(self.rank.rank).unlink()
            self.folder.rmdir()  # fails while another rank has its file there

    def meet(self, finished: Callable[[], bool] = lambda: False) -> None:
        """Wait until all ranks are there, and rank 0 leads: it waits for evaluations of the same result before.

        Args:
            finished: ends the waiting as well.

        Raises:
            UsageError: when another rank never shows up: then the variables were left by something else.
        """
        look, said = time.monotonic() + PATIENCE, False
        if self.rank.rank == 0:
            self.state = _READY
        while missing := [other for other in self.others if other not in self.seen]:
            if finished():
                return
            if time.monotonic() > look:
                text = f"rank {self.rank.rank} of {self.rank.world} waits for rank {missing[0]}, which has not started"
                if not is_starting(missing[0]):
                    raise UsageError(f"{text}; {remedy()}")
                if not said:
                    logger.info("%s; %s", text, remedy())
                look, said = time.monotonic() + 2, True
            time.sleep(0.05)
        while self.rank.rank and not self.texts[0].endswith(_READY) and not finished():
            self.check()
            time.sleep(0.05)

    def check(self) -> None:
        """Raise UsageError when a rank that was there has stopped."""
        self._look()
        for other, moment in list(self.seen.items()):  # the thread may add one
            if time.monotonic() - moment > _SILENCE:
                raise UsageError(
                    f"rank {other} of {self.rank.world} has stopped; start the same command again: what is done is kept"
                )

    def _path(self, rank: int) -> Path:
        return self.folder / f"{self.launch}-{rank}"

    def _read(self, rank: int) -> str:
        try:
            return self._path(rank).read_text(encoding="ascii", errors="replace")
        except OSError:
            return ""

    def _look(self) -> None:
        """Note whose file has changed. A text is empty while it is written, and after its rank has ended."""
        for other in self.others:
            text = self._read(other)
            if text and text != self.texts[other]:
                self.texts[other], self.seen[other] = text, time.monotonic()

    def _beat(self) -> None:
        """Write this rank's file and look at the others until the evaluation ends."""
        number = time.time_ns()  # not what an earlier process of this rank has written
        while True:
            with suppress(OSError):  # the disk may be full; others then say that this rank has stopped
                self.folder.mkdir(parents=True, exist_ok=True)
                self._path(self.rank.rank).write_text(f"{number} {self.state}", encoding="ascii")
            self._look()
            number += 1
            if self.stopped.wait(_BEAT):
                return
