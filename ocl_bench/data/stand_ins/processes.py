"""Render on all processors: this process and others take the next job as soon as they are free.

This process works as well, because it has started already: another one has to import torch first, which takes seconds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from threading import Lock
from typing import Protocol

from ...core.errors import UsageError
from ...core.paths import PACKAGE
from ..serving import READY

Advance = Callable[[int], None]
"""Called with a number of scenes after these are written, from any thread."""


class Job(Protocol):
    """Scenes to render. `main` of its module does the jobs that it reads from stdin, one a line, see `serve_jobs`."""

    @property
    def folder(self) -> str:
        """The folder that is written, for error messages."""
        ...

    @property
    def module(self) -> str:
        """Name of the module."""
        ...

    def to_json(self) -> str:
        """The job as one line of text."""
        ...

    def run(self, advance: Advance) -> None:
        """Do it in this process."""
        ...


def share_out(jobs: Sequence[Job], advance: Advance, helpers: int, *, here: bool = True) -> None:
    """Do jobs of one kind in this process and in `helpers` fresh interpreters.

    Args:
        jobs: small ones, so that nobody waits long for the last.
        advance: called after each of its scenes.
        helpers: number of other processes; at least 1 if nothing is done here.
        here: do jobs in this process too.

    Raises:
        UsageError: the disk refuses, or another process failed: its last line. No process is left.
    """
    # Not `multiprocessing`: forking after torch has started threads may hang, and spawning runs the caller's script
    # again, which fails for short scripts without a `__main__` guard.
    waiting = _Waiting(jobs)
    with ThreadPoolExecutor(max(helpers, 1)) as threads:
        results = [threads.submit(_lead_helper, waiting, jobs[0], advance) for _ in range(helpers)]
        try:
            with in_this_process(jobs[0].folder):
                while here and not any(result.done() for result in results) and (job := waiting.take()):
                    job.run(advance)
            if here:
                waiting.end_idle()
            for result in wait(results, return_when=FIRST_EXCEPTION).done:
                result.result()
        finally:
            waiting.end_all()


@contextmanager
def in_this_process(folder: str) -> Iterator[None]:
    """Render on one thread inside the `with`; an error of the disk becomes a UsageError that names the folder."""
    import torch

    # One thread as in other processes: sums on several threads may round differently.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    except OSError as error:
        raise cannot_write(folder, error.strerror or str(error)) from error
    finally:
        torch.set_num_threads(threads)


def cannot_write(folder: str, reason: str) -> UsageError:
    """The error for a cache in which a stand-in cannot be made."""
    return UsageError(f"{folder}: the stand-in cannot be rendered ({reason}); is OCL_BENCH_CACHE writable, with space?")


class _Waiting:
    """The jobs that nobody has begun, and the other processes: `busy` are those that do a job."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs, self._lock = deque(jobs), Lock()
        self._helpers: list[subprocess.Popen[str]] = []
        self._busy: set[int] = set()
        self._ended: set[int] = set()

    def take(self, helper: subprocess.Popen[str] | None = None) -> Job | None:
        """The next job, for another process or for this one; None when there is none left."""
        with self._lock:
            job = self._jobs.popleft() if self._jobs else None
            if helper is not None:
                (self._busy.add if job else self._busy.discard)(helper.pid)
            return job

    def started(self, helper: subprocess.Popen[str]) -> None:
        """Another process was started. It is ended at once when there is nothing left to do."""
        with self._lock:
            self._helpers.append(helper)
        if not self._jobs:
            self.end_idle()

    def end_idle(self) -> None:
        """End those processes that do no job, for example because they are still starting, when none is left."""
        with self._lock:
            self._end([] if self._jobs else [helper for helper in self._helpers if helper.pid not in self._busy])

    def end_all(self) -> None:
        """End all processes."""
        with self._lock:
            self._jobs.clear()
            self._end(self._helpers)

    def failed(self, helper: subprocess.Popen[str]) -> bool:
        """Whether a process has ended by itself, and not well."""
        return helper.wait() != 0 and helper.pid not in self._ended

    def _end(self, helpers: Sequence[subprocess.Popen[str]]) -> None:
        for helper in helpers:
            if helper.poll() is None:
                self._ended.add(helper.pid)
                helper.terminate()


def _lead_helper(waiting: _Waiting, first: Job, advance: Advance) -> None:
    """Start another process and give it jobs until none is left. `first` names module and folder of all of them."""
    environment = dict(os.environ, OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
    search = [str(PACKAGE.parent), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(part for part in search if part)
    command = [sys.executable, "-c", f"from {first.module} import main; main()"]
    with tempfile.TemporaryFile("w+") as complaints:
        helper = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, text=True, env=environment
        )
        waiting.started(helper)
        assert helper.stdin is not None and helper.stdout is not None
        with helper.stdout:
            for line in helper.stdout:
                if line.strip() != READY:
                    advance(int(line))
                elif job := waiting.take(helper):
                    helper.stdin.write(job.to_json() + "\n")
                    helper.stdin.flush()
                else:
                    break
            with suppress(BrokenPipeError):  # it was ended
                helper.stdin.close()
        if waiting.failed(helper):
            complaints.seek(0)
            lines = complaints.read().strip().splitlines() or [f"worker ended with code {helper.returncode}"]
            raise cannot_write(first.folder, lines[-1])
