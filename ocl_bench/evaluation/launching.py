"""Evaluations as jobs of Slurm, or as processes of this machine, through `submitit`.

A job that dies (killed, out of memory or time, preempted) is started again; what it had finished is kept, so that
it goes on from there.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from ..core.errors import UsageError
from ..core.log import logger
from ..core.optional import import_optional
from ..core.processors import processors

Kind = Literal["slurm", "local"]

ATTEMPTS = 3
"""How often a job is started before its cell counts as failed."""

DAY = 24 * 60
"""Minutes that a job may take, where no option says how many. Slurm's own name for this option is `time`."""

_LOOK = 0.2  # seconds between two looks at the jobs


@dataclass(frozen=True)
class Launcher:
    """Where jobs run.

    Args:
        kind: "slurm", or "local" for processes of this machine.
        jobs: number of jobs at one time.
        options: of `submitit`, such as `partition`, `gpus_per_node`, `cpus_per_task`, `mem`, `time` (minutes) for Slurm
            and `timeout_min` for local jobs.

    Raises:
        UsageError: for another kind.
    """

    kind: Kind | str
    jobs: int = 4
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise UsageError(f"--launcher {self.kind}: unknown launcher; use {' or '.join(get_args(Kind))}")
        if self.jobs < 1:
            raise UsageError(f"--jobs {self.jobs}: at least one job must run")


@dataclass(frozen=True)
class Outcome:
    """What became of one call. value: what it returned; problem: why there is no value, empty where there is one."""

    value: Any = None
    problem: str = ""


def run_as_jobs(
    call: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], launcher: Launcher, folder: Path
) -> Iterator[tuple[int, Outcome]]:
    """Run `call(*arguments[i])` for each i as a job of its own.

    Args:
        call: must be picklable, as must be what it returns.
        arguments: of the calls, in the order in which they start.
        launcher: where jobs run.
        folder: for the scripts, logs and pickles of the jobs; all nodes must see it.

    Yields:
        i and its outcome, in the order in which jobs end. When the iteration is given up, running jobs are cancelled.

    Raises:
        UsageError: without `submitit`, without Slurm, or for options that it has not.
    """
    try:
        executor = _executor(launcher, folder)
    except UsageError:
        with suppress(OSError):
            folder.rmdir()  # nothing has started, so there is no log to keep
        raise
    waiting, attempts = deque(range(len(arguments))), [0] * len(arguments)
    running: dict[int, tuple[int, Any]] = {}  # the place and the job of each call that runs
    places = list(range(launcher.jobs))
    try:
        while waiting or running:
            while waiting and places:
                number, place = waiting.popleft(), places.pop(0)
                attempts[number] += 1
                running[number] = place, _submit(executor, launcher, place, call, arguments[number])
            ended = [number for number, (_, job) in running.items() if job.done()]
            for number in ended:
                place, job = running.pop(number)
                places.append(place)
                problem = _problem(job)
                if problem and attempts[number] < ATTEMPTS:
                    logger.warning("job %s %s; attempt %d of %d", job.job_id, problem, attempts[number] + 1, ATTEMPTS)
                    waiting.appendleft(number)
                else:
                    yield number, Outcome(problem=f"job {job.job_id} {problem}") if problem else Outcome(job.result())
            if not ended:
                time.sleep(_LOOK)
    finally:
        for _, job in running.values():
            _cancel(job, launcher)


def _executor(launcher: Launcher, folder: Path) -> Any:
    """The executor of `submitit` with its options."""
    submitit = import_optional("submitit", "cluster", "--launcher")
    limit = {"time": DAY} if launcher.kind == "slurm" else {"timeout_min": DAY}
    try:
        make = submitit.SlurmExecutor if launcher.kind == "slurm" else submitit.LocalExecutor
        executor = make(folder=folder)
        known = type(executor)._valid_parameters() | ({"timeout_min"} if launcher.kind == "local" else set())
        unknown = sorted(set(launcher.options) - known)
        if unknown:
            raise UsageError(f"--job-option {unknown[0]}: unknown; there are {', '.join(sorted(known))}")
        executor.update_parameters(**limit | {"job_name": "ocl-bench"} | dict(launcher.options))
    except RuntimeError as error:
        raise UsageError(f"--launcher {launcher.kind}: there is no `srun` here; start it where Slurm is") from error
    except (TypeError, ValueError) as error:
        raise UsageError(f"--job-option: {error}") from error
    return executor


def _submit(executor: Any, launcher: Launcher, place: int, call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Start one job. place: its number among those that run at one time, by which local jobs share out GPUs."""
    if launcher.kind == "slurm":
        return executor.submit(call, *arguments)
    gpus = _gpus()
    if gpus:
        executor.update_parameters(gpus_per_node=1, visible_gpus=[gpus[place % len(gpus)]])
    with _fair_threads(launcher.jobs), _without_interrupts():
        return executor.submit(call, *arguments)


def _cancel(job: Any, launcher: Launcher) -> None:
    """Stop a job. A local one is killed with all its processes: it has nothing to say that its parts do not say."""
    if launcher.kind == "slurm":
        job.cancel(check=False)
        return
    import psutil

    with suppress(psutil.NoSuchProcess):
        controller = psutil.Process(int(job.job_id))
        for process in (controller, *controller.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                process.kill()
    job.wait()


def _gpus() -> list[int]:
    """Numbers of the GPUs that this process may use."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return list(range(torch.cuda.device_count()))
    return [int(name) for name in named.split(",") if name.strip().isdigit()]


@contextmanager
def _fair_threads(jobs: int) -> Iterator[None]:
    """Let each of the local jobs use its share of the processors, unless OMP_NUM_THREADS says how many."""
    if "OMP_NUM_THREADS" in os.environ:
        yield
        return
    os.environ["OMP_NUM_THREADS"] = str(max(1, processors() // jobs))
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Let processes that start here ignore Ctrl-C, which reaches all processes of a terminal: `_cancel` ends them."""
    if threading.current_thread() is not threading.main_thread():  # where Python changes no signals
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _problem(job: Any) -> str:
    """Why a job that has ended returned nothing: the last line of its log, and where the log is."""
    if job.exception() is None:
        return ""
    lines = (job.stderr() or "").strip().splitlines()
    said = f": {lines[-1][:200]}" if lines else ""
    return f"ended without a result{said} (log: {job.paths.stderr})"
