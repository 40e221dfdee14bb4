"""Measure how long boards of many results take, and their memory.

    python benchmarks/boards.py                      # the committed results, then 5000 copies on one task
    python benchmarks/boards.py --copies 500 --examine

Each step is a process of its own, and its processor seconds count: they do not depend on who else uses the machine.
`cold` starts with an empty cache, `warm` with what the step before remembered. A copy is a result under another name,
with other training seeds, hashes and rows, which `validate` accepts. To examine one takes as long as to examine its
original, so that copies are marked as examined unless `--examine` is given; their ties are always computed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ocl_bench.cards.names import get_task
from ocl_bench.core.paths import bundled
from ocl_bench.core.text_tables import text_table
from ocl_bench.evaluation.examination.refusals import mark_of
from ocl_bench.results.record import Result, write_result
from ocl_bench.results.rows import read_rows
from ocl_bench.results.store import find

SEEDS = 3
"""Training seeds of a copied method."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=int, default=5000)
    parser.add_argument("--task", default="clevrtex")
    parser.add_argument("--examine", action="store_true", help="examine the copies, too")
    parser.add_argument("--skip-committed", action="store_true", help="measure the copies only")
    parser.add_argument("--step", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        return step(arguments.step)
    table = [["command", "results", "cache", "processor s", "wall s", "peak MB"]]
    with tempfile.TemporaryDirectory() as temporary:
        out, copies = Path(temporary) / "out", Path(temporary) / "copies"
        if not arguments.skip_committed:
            committed = bundled("leaderboards") / "results"
            count = str(len(list(committed.rglob("*.json"))))
            command = ["leaderboard", "--results", str(committed), "--out", str(out)]
            for state in ("cold", "warm"):
                table.append(["leaderboard", count, state, *measured(command, Path(temporary) / "cache")])
        names = copy_results(copies, arguments.task, arguments.copies)
        cache = Path(temporary) / "cache-of-copies"
        if not arguments.examine:
            mark_as_examined(copies, arguments.task, cache)
        on_copies = ["--task", arguments.task, "--results", str(copies)]
        for command, state in (
            (["leaderboard", *on_copies, "--out", str(out)], "cold" if arguments.examine else "examined"),
            (["leaderboard", *on_copies, "--out", str(out)], "warm"),
            (["compare", *names, *on_copies], "warm"),
        ):
            table.append([command[0], str(arguments.copies), state, *measured(command, cache)])
    print(text_table(table))


def copy_results(folder: Path, task: str, count: int) -> list[str]:
    """Write copies of the committed results of models on one task; the names of two methods."""
    originals = [one for one in find([bundled("leaderboards") / "results"], task) if one.model.role == "model"]
    tables = [read_rows(one.path) for one in originals if one.path is not None]
    for number in range(count):
        place = number // SEEDS % len(originals)
        copy = copied(originals[place], number)
        write_result(copy, tables[place].assign(copy=number), folder / task, f"copy-{number}")
    return ["copy0", "copy1"]


def copied(original: Result, number: int) -> Result:
    """A result of a user's own model with the numbers of another one."""
    method, seed = divmod(number, SEEDS)
    sha256 = hashlib.sha256(str(number).encode()).hexdigest()
    changes = {
        "name": f"copy{method}:{seed}",
        "card": "",
        "options": {},
        "checkpoint_sha256": sha256,
        "training_seed": seed,
        "code_sha256": hashlib.sha256(b"the same code").hexdigest(),
        "state": sha256,
        "arrays": sha256[:32],
    }
    identity = original.identity.model_copy(update={"key": sha256})
    return original.model_copy(update={"model": original.model.model_copy(update=changes), "identity": identity})


def mark_as_examined(folder: Path, task: str, cache: Path) -> None:
    """Leave in a cache what an examination of all results leaves there."""
    os.environ["OCL_BENCH_CACHE"] = str(cache)
    (cache / "examined").mkdir(parents=True)
    for path in folder.rglob("*.json"):
        mark_of(path, get_task(task)).touch()


def measured(command: list[str], cache: Path) -> list[str]:
    """Processor seconds, seconds and peak megabytes of a command of ocl-bench in a process of its own."""
    environment = os.environ | {"OCL_BENCH_CACHE": str(cache), "OCL_BENCH_RESULTS": str(cache / "none")}
    script = [sys.executable, __file__, "--step", *command]
    start = time.perf_counter()
    run = subprocess.run(script, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    wall, numbers = time.perf_counter() - start, json.loads(run.stdout.splitlines()[-1])
    return [f"{numbers['processor']:.1f}", f"{wall:.1f}", f"{numbers['peak']:.0f}"]


def step(command: list[str]) -> None:
    """Run one command and print what it took, the start of Python included."""
    from ocl_bench.cli import main as ocl_bench

    sys.argv = ["ocl-bench", *command]
    try:
        ocl_bench()
    except SystemExit as end:
        if end.code not in (0, None):
            raise
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"processor": usage.ru_utime + usage.ru_stime, "peak": usage.ru_maxrss / 1e3}))


if __name__ == "__main__":
    main()
