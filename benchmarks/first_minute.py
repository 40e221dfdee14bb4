"""Measure what a user waits for: five evaluations on an empty cache, and again on the cache that they left.

    python benchmarks/first_minute.py
    python benchmarks/first_minute.py --jobs main main-16      # some of the jobs
    python benchmarks/first_minute.py --against ../old         # in turn with the package in another folder
    python benchmarks/first_minute.py --scenes --against ../old      # processor time of rendering alone

Each evaluation is a process of its own with a fresh OCL_BENCH_CACHE in a temporary folder. The script prints seconds
that passed and seconds of processor time, those of all its processes, and how busy the machine was before. A busy
machine stretches the former and hardly the latter; with `--against`, both packages are measured in turn.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from ocl_bench.core.processors import processors

HERE = Path(__file__).resolve().parent.parent
JOBS = {
    "main": ("dias", "clevrtex", []),
    "main-16": ("dias", "clevrtex", ["--limit", "16"]),
    "video": ("dias", "movi-c", []),
    "knn": ("odis", "imagenet-knn", []),
    "voc": ("encoder", "voc-segmentation", []),
    "ade20k": ("dias", "ade20k-segmentation", []),
}
"""Name -> model, task and options of an evaluation."""

RENDER = """
import sys, time, torch
from ocl_bench.data.scenes.store import open_store
from ocl_bench.data.stand_ins.clevrtex import WriteJob, write_scenes
torch.set_num_threads(1)
variant, revision, folder, start, count = sys.argv[1], int(sys.argv[2]), *sys.argv[3:4], *map(int, sys.argv[4:])
def work(first):
    numbers = tuple(range(first, first + count))
    if variant in ("full", "camo", "outd"):
        write_scenes(WriteJob(folder, variant, revision, "test", 0, 160, 0, numbers), lambda n: None)
    else:
        store = open_store(variant, revision, "test", 0)
        store.render([n // store.chunk for n in numbers[:: store.chunk]], lambda n: None)
work(0)
before = time.process_time()
work(start)
print((time.process_time() - before) / count * 1000)
"""
"""A program that renders and writes scenes, once to warm up and once to measure, and prints milliseconds a scene."""

SCENES = {
    "full": (1, 16), "outd": (1, 16), "things": (1, 16), "salient": (2, 16), "motion": (1, 1), "collisions": (1, 1),
}  # fmt: skip
"""Variant -> revision, and number of scenes or videos that are rendered."""

AFTER = {"ade20k": "voc"}
"""Evaluations that find the scenes of another one in the cache: that one runs before, and is not measured."""


def evaluate(job: str, package: Path, folder: Path) -> tuple[float, float]:
    """Seconds and processor seconds of an evaluation, with the cache and the results in `folder`."""
    model, task, options = JOBS[job]
    command = [sys.executable, "-m", "ocl_bench", "eval", "--model", model, "--task", task, *options]
    environment = {**os.environ, "OCL_BENCH_CACHE": str(folder / "cache"), "PYTHONPATH": str(package)}
    before, start = _processor_seconds(), time.perf_counter()
    # Computed again on the warm cache: `--force`.
    done = subprocess.run(
        [*command, "--force"], cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: code {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
    return time.perf_counter() - start, _processor_seconds() - before


def _processor_seconds() -> float:
    """Processor time of all processes that this one has waited for, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(job: str, package: Path) -> list[tuple[float, float]]:
    """An evaluation on an empty cache, and again on a warm one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if job in AFTER:
            evaluate(AFTER[job], package, folder)
        return [evaluate(job, package, folder), evaluate(job, package, folder)]


def render(variant: str, package: Path) -> float:
    """Milliseconds of processor time for a scene or a video of a variant, rendered and written in one process."""
    revision, count = SCENES[variant]
    with tempfile.TemporaryDirectory() as folder:
        arguments = [variant, str(revision), folder, str(count), str(count)]
        environment = {**os.environ, "OCL_BENCH_CACHE": folder, "PYTHONPATH": str(package)}
        command = [sys.executable, "-c", RENDER, *arguments]
        # Not here: Python would find the package of the current folder first.
        done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


def print_scenes(packages: list[Path], repeats: int) -> None:
    """Measure rendering alone, and print a table in Markdown."""
    print(f"| CPU ms | {' | '.join(package.name for package in packages)} |\n|---|{'---|' * len(packages)}")
    for variant in SCENES:
        runs = [[render(variant, package) for package in packages] for _ in range(repeats)]
        values = [median(run[position] for run in runs) for position in range(len(packages))]
        print(f"| {variant} | {' | '.join(f'{value:.1f}' for value in values)} |", flush=True)


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--repeats", type=int, default=1, help="the medians of so many measurements")
    parser.add_argument("--against", type=Path, help="a folder with another version of the package")
    parser.add_argument("--scenes", action="store_true", help="measure rendering alone")
    arguments = parser.parse_args()
    packages = [HERE, *([arguments.against.resolve()] if arguments.against else [])]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"{processors()} processors, load {load:.1f} before\n")
    if arguments.scenes:
        print_scenes(packages, arguments.repeats)
        return
    print("| job | package | cold, s | cold, CPU s | warm, s | warm, CPU s |\n|---|---|---|---|---|---|")
    for job in arguments.jobs:
        runs = [[measure(job, package) for package in packages] for _ in range(arguments.repeats)]
        model, task, options = JOBS[job]
        for position, package in enumerate(packages):
            parts = [run[position] for run in runs]
            values = [median(part[warm][kind] for part in parts) for warm in (0, 1) for kind in (0, 1)]
            cells = " | ".join(f"{value:.1f}" for value in values)
            print(f"| `{' '.join([model, task, *options])}` | {package.name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
