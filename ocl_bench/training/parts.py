"""Where the time of a training step goes: named parts of it, which are timed only while a `Stopwatch` runs.

The loop and the objectives mark their parts by `part`; `ocl-bench profile --train` reads them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch

from ..core.machine import synchronise

Part = Literal["preparation", "augmentation", "forward", "backward", "optimiser"]

PARTS: tuple[Part, ...] = get_args(Part)
"""In the order in which a step goes through them."""


@dataclass
class Stopwatch:
    """Times of parts. Time in a part within another one counts for the inner one only.

    Attributes:
        device: It is waited for at each change of parts, since kernels of an accelerator run asynchronously.
        wall: Seconds of each part.
        processor: The same in processor time of all threads of this process, which other programs do not prolong.
    """

    device: torch.device
    wall: dict[Part, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    processor: dict[Part, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    _entered: list[Part] = field(default_factory=list)
    _since: tuple[float, float] = (0.0, 0.0)

    def _turn(self) -> None:
        """Give the time since the last change to the innermost part."""
        synchronise(self.device)
        now = time.perf_counter(), time.process_time()
        if self._entered:
            self.wall[self._entered[-1]] += now[0] - self._since[0]
            self.processor[self._entered[-1]] += now[1] - self._since[1]
        self._since = now

    def enter(self, name: Part) -> None:
        """Begin a part."""
        self._turn()
        self._entered.append(name)

    def leave(self) -> None:
        """End the part that began last."""
        self._turn()
        self._entered.pop()


_RUNNING: ContextVar[Stopwatch | None] = ContextVar("stopwatch", default=None)


@contextmanager
def timed(watch: Stopwatch) -> Iterator[None]:
    """Let a stopwatch run; other threads do not see it."""
    token = _RUNNING.set(watch)
    try:
        yield
    finally:
        _RUNNING.reset(token)


@contextmanager
def part(name: Part) -> Iterator[None]:
    """Mark a part of a step."""
    watch = _RUNNING.get()
    if watch is None:
        yield
        return
    watch.enter(name)
    try:
        yield
    finally:
        watch.leave()
