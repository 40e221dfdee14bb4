"""What `forked` runs in processes of their own: an evaluation that is killed, and one that is a rank."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tiny_evaluation import tiny_plan

from ocl_bench.evaluation.run import run
from ocl_bench.evaluation.shards import Shard, WorkFolder


def until_killed(after: int, results: Path, workers: int = 0) -> None:
    """An evaluation that is killed when it has written so many shards. workers: as in `evaluate`."""
    write, written = WorkFolder.write, []

    def write_and_die(self: WorkFolder, index: int, shard: Shard) -> None:
        write(self, index, shard)
        written.append(index)
        if len(written) == after:
            os.kill(os.getpid(), signal.SIGKILL)

    WorkFolder.write = write_and_die  # type: ignore[method-assign]
    run(tiny_plan(count=150, noise_seeds=[0, 1], workers=workers), results=results, progress=False)


def print_rows_sha256(results: Path) -> None:
    """An evaluation in the rank that the environment names."""
    print(run(tiny_plan(count=150), results=results, progress=False).rows.sha256)
