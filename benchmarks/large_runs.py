"""Commands that `large.py` starts as processes of their own: their time, their memory, and what a kill leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from watching import looking, memory_of

from ocl_bench.core.errors import UsageError

Result = dict[str, Any]
HERE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Ended:
    """A process that has ended.

    Attributes:
        seconds: that passed. processor: seconds of processors, of the process and of those below it that it waited for.
        memory_mb: the largest sum over the process and those below it, each shared page counted once.
        killed: whether this script killed it.
    """

    seconds: float
    processor: float
    memory_mb: float
    killed: bool = False


def started(command: Sequence[str], place: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A process with one thread of torch and its cache below `place`, whose output goes to `place / log`."""
    settings = {"OMP_NUM_THREADS": "1", "OCL_BENCH_CACHE": str(place / "cache"), "PYTHONPATH": str(HERE)}
    with (place / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, *command],
            env=os.environ | settings | environment,
            stdout=log,
            stderr=log,
            start_new_session=True,  # so that a kill reaches the processes below it
        )


def ended(
    process: subprocess.Popen[bytes], place: Path, begin: float, kill: Callable[[], bool] = lambda: False
) -> Ended:
    """Wait for a process. kill: SIGKILL is sent to it and those below it as soon as this is true.

    Raises UsageError when it fails, or when it ends before it could be killed though it should have been.
    """
    killed = False
    with looking(lambda: memory_of(process.pid), 0.2) as seen:
        while True:
            number, status, usage = os.wait4(process.pid, os.WNOHANG)
            if number:
                break
            if not killed and kill():
                os.killpg(process.pid, signal.SIGKILL)
                killed = True
            time.sleep(0.02)
    seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode and not killed:
        raise UsageError(f"{process.args!r} failed, see {place / 'log'}")
    return Ended(seconds, usage.ru_utime + usage.ru_stime, max(seen, default=0.0) / 2**20, killed)


def run(command: Sequence[str], place: Path, kill: Callable[[], bool] = lambda: False) -> Ended:
    """A process from its start to its end."""
    begin = time.perf_counter()
    return ended(started(command, place, {}), place, begin, kill)


def evaluation(model: str, task: str, results: Path, *options: str) -> list[str]:
    """The command of an evaluation."""
    words = ["-m", "ocl_bench", "eval", "--model", model, "--task", task, "--results", str(results)]
    return [*words, "--device", "cpu", "--no-pictures", *options]


def rows_of(results: Path) -> str:
    """Hash of the rows of the only result in a folder."""
    (found,) = [json.loads(path.read_text()) for path in results.rglob("*.json") if not path.name.startswith(".")]
    return str(found["rows"]["sha256"])


def shards_done(results: Path) -> int:
    """Shards that an unfinished evaluation has written."""
    return len(list(results.rglob("*.work/shard-*.parquet")))


def disturbed(
    place: Path,
    count: int,
    command: Callable[[Path, int], list[str]],
    done: Callable[[Path], int],
    half: int,
) -> Result:
    """An evaluation of a quarter of the data, of all, of all again, and one that is killed half-way and goes on.

    Args:
        place: folder for results and cache.
        count: images or videos.
        command: of results and a limit.
        done: of results, how much of a run is kept. half: the run is killed when so much is.

    Raises:
        UsageError: rows of the run that was killed are not those of the undisturbed one.
    """
    quarter = run(command(place / "quarter", max(1, count // 4)), place)
    whole = run(command(place / "whole", count), place)
    again = run(command(place / "whole", count), place)
    killed = run(command(place / "killed", count), place, lambda: done(place / "killed") >= half)
    if not killed.killed:
        raise UsageError(f"{place}: the evaluation ended before it was half-way; choose a larger --scale")
    kept = done(place / "killed")
    resumed = run(command(place / "killed", count), place)
    if rows_of(place / "whole") != rows_of(place / "killed"):
        raise UsageError(f"{place}: the rows of the run that was killed differ from those of the undisturbed one")
    runs = {"quarter": quarter, "whole": whole, "again": again, "killed": killed, "resumed": resumed}
    return {"count": count, "kept": kept} | {name: asdict(one) for name, one in runs.items()}
