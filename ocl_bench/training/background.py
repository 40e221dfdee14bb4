"""Work that a training needs and that threads do in the background, in the order in which the training needs it.

with Background(seed) as background:
    job = background.start(work, 8000, order)    # `work(job)` takes units and says when they are done
    job.wait([3, 5])                             # returns when these two are done
"""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing import connection, get_context, resource_tracker
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from ..core.errors import UsageError
from ..core.log import is_watched, progress_bar
from ..core.processors import processors
from ..core.schedules import sample_indices

_GLANCE = 0.2
"""Seconds after which it is looked whether the training has ended, while processes render."""


class Stopped(Exception):
    """The training has ended: what nobody needs any more is not made."""


class Job:
    """Units 0 .. `count` - 1, which a thread makes: first those that somebody waits for, then those of `order`."""

    def __init__(
        self, work: Callable[[Job], None], count: int, order: Iterable[int], title: str, shown: bool, scenes: int = 1
    ) -> None:
        self.count, self._scenes = count, scenes
        self._work, self._order, self._asked = work, deque(order), deque[int]()
        self._done, self._taken = np.zeros(count, bool), np.zeros(count, bool)
        self._changed = threading.Condition()
        self._begun = self._stopped = False
        self._error: Exception | None = None
        self._title, self._shown, self._show = title, shown and bool(title), ExitStack()
        self._advance: Callable[[int], None] = lambda count: None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        error: Exception | None = None
        try:
            with self._show:
                self._work(self)
        except OSError as problem:
            place = f"{problem.filename}: " if problem.filename else ""
            error = UsageError(f"{place}cannot be written ({problem.strerror or problem})", "what was made is kept")
        except Exception as problem:
            error = problem
        with self._changed:
            self._error = error
            self._begun = True
            self._done[:] |= error is None
            self._changed.notify_all()

    # What the work calls, in its thread.

    def begin(self, missing: np.ndarray) -> None:
        """Say which units are to be made, (count,) bool; the others are there."""
        with self._changed:
            self._taken[:] = self._done[:] = ~missing
            self._begun = True
            self._changed.notify_all()
        total = int(missing.sum()) * self._scenes
        bar = progress_bar(self._title, total, self._shown and not is_watched(), "scenes")
        self._advance = self._show.enter_context(bar)

    def take(self, most: int) -> list[int]:
        """The next units to make, at most so many; none when all were taken. Raises Stopped when the training ends."""
        chosen: list[int] = []
        with self._changed:
            if self._stopped:
                raise Stopped
            while len(chosen) < most and (waiting := self._asked or self._order):
                chosen += self._claim([waiting.popleft()])
        return chosen

    def claim(self, units: Iterable[int]) -> list[int]:
        """Take those of these units that were not taken yet."""
        with self._changed:
            return self._claim(units)

    def _claim(self, units: Iterable[int]) -> list[int]:
        fresh = [unit for unit in units if not self._taken[unit]]
        self._taken[fresh] = True
        return fresh

    def done(self, units: Sequence[int]) -> None:
        """Say that these units are made."""
        with self._changed:
            self._done[units] = True
            self._changed.notify_all()
        self._advance(len(units) * self._scenes)

    # What the training calls.

    def wait_for_begin(self) -> None:
        """Return when it is known what is there. Raises what stopped the job."""
        with self._changed:
            self._changed.wait_for(lambda: self._begun)
            if self._error is not None:
                raise self._error

    def wait(self, units: Sequence[int] | np.ndarray) -> None:
        """Return when these units are made; they are made next. Raises what stopped the job before."""
        units = np.asarray(units)
        with self._changed:
            self._asked.extend(units[~self._done[units]].tolist())
            while not self._done[units].all():
                if self._error is not None:
                    raise self._error
                if self._stopped:
                    raise Stopped
                self._changed.wait()

    def finish(self) -> None:
        """Return when all units are made and the job has ended. Raises what stopped it before."""
        self.wait(range(self.count))
        self._thread.join()

    def stop(self) -> None:
        """Take no further unit, and wait for nothing."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def join(self) -> None:
        """Return when a stopped job has ended."""
        if self._begun:  # otherwise it may wait for another process, and does nothing afterwards
            self._thread.join()

    @property
    def note(self) -> str:
        """How far the job is, in words; empty when it has ended or shows nothing."""
        running = self._shown and self._begun and self._thread.is_alive()
        done, total = int(self._done.sum()) * self._scenes, self.count * self._scenes
        return f"{self._title}: {done} of {total} scenes" if running else ""


class Background:
    """The jobs of one training. Leaving the `with` stops them.

    Args:
        seed: Seed of the training, which gives the order of its samples.
        shown: Say how far jobs are.
    """

    def __init__(self, seed: int, shown: bool = False) -> None:
        self.seed, self.shown = seed, shown
        self._jobs: list[Job] = []
        self._named: dict[str, Job] = {}
        self._lock = threading.Lock()

    def order(self, count: int) -> np.ndarray:
        """Numbers of `count` samples in the order in which the first epoch of the training needs them."""
        return sample_indices(self.seed, 0, count, count)

    def start(
        self, work: Callable[[Job], None], count: int, order: Iterable[int], title: str = "", scenes: int = 1
    ) -> Job:
        """Start a job.

        Args:
            work: Gets the job; calls `begin`, and then `take` and `done` until there is nothing to take.
            count: Number of units.
            order: Units in the order in which they are needed.
            title: What is done, to show how far it is; empty shows nothing.
            scenes: Scenes in a unit.
        """
        job = Job(work, count, order, title, self.shown, scenes)
        self._jobs.append(job)
        return job

    def once(self, name: str, start: Callable[[], Job]) -> Job:
        """The job of this name; `start` starts it when it is asked for the first time."""
        with self._lock:
            if name not in self._named:
                self._named[name] = start()
            return self._named[name]

    def finish(self, name: str) -> None:
        """Wait for the end of the job of this name, if there is one. Raises what stopped it."""
        if name in self._named:
            self._named[name].finish()

    def note(self) -> str:
        """How far the jobs are, in words; empty when there is nothing to say."""
        return ", ".join(filter(None, (job.note for job in self._jobs)))

    def __enter__(self) -> Background:
        return self

    def __exit__(self, *_: object) -> None:
        for job in self._jobs:  # all of them before one is waited for: they wait for each other
            job.stop()
        for job in self._jobs:
            job.join()


def in_processes(
    job: Job, make: Callable[[list[int]], Any], group: int, keep: Callable[[list[int], Any], None]
) -> None:
    """Make all units of a job in processes, one for each processor, and end these.

    Args:
        job: Gives the units.
        make: Is called in a process, with at most `group` units.
        group: Most units at once.
        keep: Is called in this thread with the units and what `make` returned, and says that they are done.

    Raises:
        UsageError: A process has died.
    """
    with _processes(make, processors()) as idle:
        running: dict[Connection, list[int]] = {}
        while True:
            job.take(0)  # raises Stopped, whatever the processes do
            while idle and (units := job.take(group)):
                with _death_named():
                    idle[-1].send(units)
                running[idle.pop()] = units
            if not running:
                return
            answered = connection.wait(list(running), _GLANCE)
            for process in [process for process in running if process in answered]:
                with _death_named():
                    made, error = process.recv()
                if error is not None:
                    raise error
                keep(running.pop(process), made)
                idle.append(process)


@contextmanager
def _death_named() -> Iterator[None]:
    """Say what it means that a pipe to a process is broken."""
    try:
        yield
    except (EOFError, OSError) as error:
        text = "a process that renders scenes has died: is memory short?"
        raise UsageError(text, "start the same command again, what was rendered is kept") from error


@contextmanager
def _processes(make: Callable[[list[int]], Any], count: int) -> Iterator[list[Connection]]:
    """Processes that call `make`. In the end they are killed, whatever they do: nobody needs it any more."""
    context = get_context("spawn")  # a forked child of a process with threads can deadlock
    resource_tracker.ensure_running()  # otherwise the first start would let the signals through again
    started, ours = [], []
    try:
        with _blocked_signals():
            for _ in range(count):
                here, there = context.Pipe()
                ours.append(here)
                process = context.Process(target=partial(_serve, make), args=(there,), daemon=True)
                process.start()
                started.append(process)
                there.close()  # so that the end of the process is the end of the pipe
        yield list(ours)
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.join()
        for here in ours:
            here.close()


@contextmanager
def _blocked_signals() -> Iterator[None]:
    """Processes that are started here get no Ctrl-C and no SIGTERM: the training gets those, and then ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(make: Callable[[list[int]], Any], training: Connection) -> None:
    """Answer each list of units with what `make` makes of them, until the training ends."""
    while True:
        try:
            units = training.recv()
        except EOFError:
            return
        try:
            training.send((make(units), None))
        except Exception as error:
            training.send((None, error))  # it is raised in the training
