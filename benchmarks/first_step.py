"""Measure how long a training on an empty cache takes to its first step, and to its last one.

    python benchmarks/first_step.py --models dias odis --steps 100
    python benchmarks/first_step.py --against ../old           # in turn with the package in another folder
    python benchmarks/first_step.py --scenes 1024              # fewer scenes than those of the card

Each training is a process of its own with a fresh OCL_BENCH_CACHE, and validates on two samples in
the end. The script prints seconds until the log has its first and its last step, seconds until the process has ended,
and seconds of processor time, those of all its processes. A busy machine stretches the former and hardly the latter.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ocl_bench.core.processors import processors

HERE = Path(__file__).resolve().parent.parent


def train(model: str, steps: int, scenes: int | None, package: Path, folder: Path) -> list[float]:
    """Seconds to the first step, to the last one and to the end, and processor seconds."""
    command = [sys.executable, "-m", "ocl_bench", "train", "--model", model, "--steps", str(steps), "--out", "run"]
    command += ["--set", "log_every=1", "--set", "validate_limit=2", *(["--scenes", str(scenes)] if scenes else [])]
    environment = {**os.environ, "OCL_BENCH_CACHE": str(folder / "cache"), "PYTHONPATH": str(package)}
    log, seen, start = folder / "run" / "log.jsonl", dict[int, float](), time.perf_counter()
    with (folder / "stderr").open("w+") as messages:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=messages)
        while process.poll() is None:
            lines = log.read_text().count("\n") if log.exists() else 0
            for number in (1, steps):
                if lines >= number:
                    seen.setdefault(number, time.perf_counter() - start)
            time.sleep(0.05)
        if process.returncode:
            messages.seek(0)
            sys.exit(f"{' '.join(command)}: code {process.returncode}: {messages.read().strip().splitlines()[-1:]}")
    return [seen[1], seen[steps], time.perf_counter() - start]


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["dias", "odis"])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--scenes", type=int, help="number of training scenes; by default those of the card")
    parser.add_argument("--against", type=Path, help="a folder with another version of the package")
    arguments = parser.parse_args()
    packages = [HERE, *([arguments.against.resolve()] if arguments.against else [])]
    print(f"{processors()} processors, load {os.getloadavg()[0]:.1f} before\n")
    print("| model | package | first step, s | last step, s | end, s | CPU s |\n|---|---|---|---|---|---|")
    for model in arguments.models:
        for package in packages:
            before = sum(os.times()[2:4])
            with tempfile.TemporaryDirectory() as folder:
                seconds = train(model, arguments.steps, arguments.scenes, package, Path(folder))
            cells = " | ".join(f"{value:.1f}" for value in [*seconds, sum(os.times()[2:4]) - before])
            print(f"| `{model}` | {package.name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
