"""Stand-ins: scenes that are rendered on this machine and written in the official layout, for the same reader."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ...core.errors import UsageError
from ...core.log import progress_bar
from ...core.paths import PACKAGE, cache_root
from ...core.processors import processors
from ..base import Request
from ..rendered import ensure_files
from .clevrtex import CHUNK, WriteJob, scene_files, write_scenes

IMAGE_SIZE = 160
"""Side of a rendered image in pixels: the official 0.8 crop is then 128 x 128 without resampling."""

_WORTH_A_PROCESS = 2 * CHUNK
"""Fewer scenes than this are rendered in this process: starting torch in another one takes seconds."""


@dataclass(frozen=True)
class StandInTree:
    """One rendered split in the cache, `stand-ins/clevrtex/<variant>-r<revision>/<split>[-seed<N>]`.

    first: scene number of scene 0, which puts the numbers into the range of the official split.
    """

    variant: str
    revision: int
    split: str
    seed: int = 0
    first: int = 0

    @property
    def folder(self) -> Path:
        """The folder `clevrtex_<variant>`, which holds the shards."""
        split = self.split if self.seed == 0 else f"{self.split}-seed{self.seed}"
        release = f"{self.variant}-r{self.revision}"
        return cache_root() / "stand-ins" / "clevrtex" / release / split / f"clevrtex_{self.variant}"

    @property
    def revision_name(self) -> str:
        """`embedded-r<revision>-<8 digits>`. The digits are a hash of what is rendered, which determines all files."""
        identity = f"clevrtex|{self.variant}|{self.revision}|{self.split}|{self.seed}|{IMAGE_SIZE}"
        return f"embedded-r{self.revision}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"

    def ensure(self, count: int, *, progress: bool = True, verify: bool = False) -> Path:
        """Render those of the first `count` scenes that are not there as they were rendered, and return the folder.

        A scene is a pure function of its number: a run that was killed continues where it stopped, and a later call
        with a larger count adds the rest. Each file is written atomically, the image last.

        Args:
            count: number of scenes.
            progress: draw a progress bar.
            verify: read all files, see `ensure_files`.

        Raises:
            UsageError: the cache cannot be written, or this version does not render the revision.
        """
        scenes = {name: i for i in range(count) for name in scene_files(self.variant, self.first + i)}

        def render(names: Sequence[str]) -> None:
            self._render(sorted({scenes[name] for name in names}), progress)

        try:
            ensure_files(self.folder, scenes, render, verify=verify)
        except OSError as error:
            raise cannot_write(error.filename or str(self.folder), error.strerror or str(error)) from error
        return self.folder

    def _render(self, pending: Sequence[int], progress: bool) -> None:
        self._check_revision()
        jobs = [self._job(share) for share in _shares(pending, processors())]
        with progress_bar(f"rendering {self.variant}/{self.split}", len(pending), progress, "scenes") as advance:
            if len(jobs) == 1:
                with in_this_process(jobs[0].folder):
                    write_scenes(jobs[0], advance)
            else:
                run_in_processes(jobs, advance)

    def _check_revision(self) -> None:
        from .. import scenes

        if self.revision not in scenes.REVISIONS.get(self.variant, ()):
            rendered = scenes.REVISIONS.items()
            known = ", ".join(f"{variant} {' and '.join(map(str, numbers))}" for variant, numbers in rendered)
            raise UsageError(
                f"data.stand_in: variant '{self.variant}' revision {self.revision} is not rendered by this version; "
                f"it has {known}"
            )

    def _job(self, indices: Sequence[int]) -> WriteJob:
        return WriteJob(
            folder=str(self.folder),
            variant=self.variant,
            revision=self.revision,
            split=self.split,
            seed=self.seed,
            size=IMAGE_SIZE,
            first=self.first,
            indices=tuple(indices),
        )


def check_scenes(request: Request, kind: str) -> None:
    """Refuse a card whose `data.stand_in.scenes` are not those that its variant belongs to.

    Args:
        request: has the card.
        kind: the scenes of the variant.

    Raises:
        UsageError: names both.
    """
    card = request.data.stand_in
    if card is not None and card.scenes != kind:
        raise UsageError(
            f"task '{request.task.name}': data.stand_in.scenes: '{card.scenes[:40]}' has no variant "
            f"'{card.variant[:40]}'; it belongs to '{kind}'"
        )


def _shares(pending: Sequence[int], workers: int) -> list[list[int]]:
    """Scenes for each worker, dealt out in chunks; a single share when the job is small."""
    chunks = [pending[i : i + CHUNK] for i in range(0, len(pending), CHUNK)]
    workers = 1 if len(pending) < _WORTH_A_PROCESS else min(workers, len(chunks))
    return [[i for chunk in chunks[w::workers] for i in chunk] for w in range(max(workers, 1))]


@contextmanager
def in_this_process(folder: str) -> Iterator[None]:
    """Render on one thread inside the `with`; an error of the disk becomes a UsageError that names the folder."""
    import torch

    # One thread as in the workers: sums on several threads may round differently.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    except OSError as error:
        raise cannot_write(folder, error.strerror or str(error)) from error
    finally:
        torch.set_num_threads(threads)


class Job(Protocol):
    """The task of a worker process: `main` of its module reads it as JSON from stdin, and prints numbers of scenes."""

    @property
    def folder(self) -> str:
        """The folder that is written, for error messages."""
        ...

    def to_json(self) -> str:
        """The job as text."""
        ...


def run_in_processes(
    jobs: Sequence[Job], advance: Callable[[int], None], module: str = "ocl_bench.data.stand_ins.clevrtex"
) -> None:
    """Run each job in a fresh interpreter, by `main` of `module`; `advance(n)` is called after each n scenes.

    Raises UsageError with the last line of a worker that fails; the other workers are then ended.
    """
    # Not `multiprocessing`: forking after torch has started threads may hang, and spawning runs the caller's script
    # again, which fails for short scripts without a `__main__` guard.
    running: list[subprocess.Popen[str]] = []
    try:
        with ThreadPoolExecutor(len(jobs)) as threads:
            results = [threads.submit(_run_worker, job, module, running, advance) for job in jobs]
            try:
                for result in results:
                    result.result()
            except BaseException:
                _terminate(running)
                raise
    finally:
        _terminate(running)


def _run_worker(job: Job, module: str, running: list[subprocess.Popen[str]], advance: Callable[[int], None]) -> None:
    environment = dict(os.environ, OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
    search = [str(PACKAGE.parent), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(part for part in search if part)
    command = [sys.executable, "-c", f"from {module} import main; main()"]
    with tempfile.TemporaryFile("w+") as complaints:
        worker = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, text=True, env=environment
        )
        running.append(worker)
        assert worker.stdin is not None and worker.stdout is not None
        worker.stdin.write(job.to_json())
        worker.stdin.close()
        with worker.stdout:
            for line in worker.stdout:
                advance(int(line))
        if worker.wait() != 0:
            complaints.seek(0)
            lines = complaints.read().strip().splitlines() or [f"worker ended with code {worker.returncode}"]
            raise cannot_write(job.folder, lines[-1])


def _terminate(running: Sequence[subprocess.Popen[str]]) -> None:
    for worker in running:
        if worker.poll() is None:
            worker.terminate()


def cannot_write(folder: str, reason: str) -> UsageError:
    """The error for a cache in which a stand-in cannot be made."""
    return UsageError(f"{folder}: the stand-in cannot be rendered ({reason}); is OCL_BENCH_CACHE writable, with space?")
