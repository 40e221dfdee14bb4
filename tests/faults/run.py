"""`python tests/faults/run.py PART`: tries hard to break the suite, and prints what it found as a table.

Parts: malformed, kills, together, ranks, all. The numbers in docs/reliability.md come from `all`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from processes import Trial

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "helpers"), str(HERE.parents[1])]

from sandbox import printed, warm_up  # noqa: E402


def run_malformed(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Damaged inputs: how many of them ended how, and the faults."""
    from malformed import malformed
    from targets import by_name

    codes: Counter[object] = Counter()
    found, seconds, peak = [], 0.0, 0
    targets = list(by_name(arguments.only).values())
    for case in malformed(targets, arguments.cases, arguments.seed, folder, arguments.damages):
        codes[case.ending.code] += 1
        seconds, peak = max(seconds, case.ending.seconds), max(peak, case.ending.peak)
        line = {"target": case.target, "damage": case.damage, "file": case.file, "seed": case.seed}
        if case.faults:
            found.append({**line, "faults": case.faults, "ending": printed(case.ending)})
        if arguments.verbose or case.faults:
            print(json.dumps({**line, "faults": case.faults}), printed(case.ending), file=sys.stderr, flush=True)
    return {
        "cases": sum(codes.values()),
        "exit codes": {str(code): number for code, number in sorted(codes.items(), key=str)},
        "longest, s": round(seconds, 1),
        "most memory, GiB": round(peak / 2**30, 2),
        "faults": found,
    }


def summary(trials: Iterator[Trial], verbose: bool) -> dict[str, Any]:
    """Trials and kills by name, the longest wait of a surviving rank, and the faults."""
    counts: Counter[str] = Counter()
    killed: Counter[str] = Counter()
    longest: dict[str, float] = {}
    found = []
    for trial in trials:
        counts[trial.name] += 1
        killed[trial.name] += trial.killed
        longest[trial.name] = max(longest.get(trial.name, 0.0), round(trial.seconds, 1))
        if trial.faults:
            found.append({"trial": trial.name, "faults": trial.faults})
        if trial.faults or verbose:
            print(trial, file=sys.stderr, flush=True)
    return {"trials": dict(counts), "kills": dict(killed), "longest, s": longest, "faults": found}


def run_kills(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Each kind of work, killed at random moments."""
    from processes import WORKS, kills

    works = [work for work in WORKS if not arguments.only or work.name in arguments.only]
    each = (kills(work, arguments.trials, arguments.seed, folder / work.name) for work in works)
    return summary(chain.from_iterable(each), arguments.verbose)


def run_together(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Several processes at the same time."""
    from processes import together

    return summary(together(folder, arguments.only), arguments.verbose)


def run_ranks(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Two ranks of which one is killed."""
    from processes import ranks

    return summary(ranks(arguments.trials, arguments.seed, folder), arguments.verbose)


PARTS: dict[str, Callable[[argparse.Namespace, Path], dict[str, Any]]] = {
    "malformed": run_malformed,
    "kills": run_kills,
    "together": run_together,
    "ranks": run_ranks,
}


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=[*PARTS, "all"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=500, help="malformed inputs")
    parser.add_argument("--trials", type=int, default=20, help="of each kind of work, for kills and ranks")
    parser.add_argument("--only", nargs="*", default=[], help="names of targets or works; all by default")
    parser.add_argument("--damages", nargs="*", default=[], help="names of damages; all by default")
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args(words)
    warm_up()
    found = {}
    for name in PARTS if arguments.part == "all" else [arguments.part]:
        start = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            found[name] = PARTS[name](arguments, Path(folder)) | {"seconds": round(time.monotonic() - start)}
    print(json.dumps(found, indent=2))
    return int(any(part["faults"] for part in found.values()))


if __name__ == "__main__":
    sys.exit(main())
