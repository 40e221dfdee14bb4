"""How much does a number depend on the seed of the head that was fitted? The head is fitted once for each seed.

    python benchmarks/head_seeds.py --model slotcontrast-clevrer --model true-states --task clevrer-reasoning

The slots stay the same; weights, draws and dropout of the head's fit differ. Prints each metric for each seed, their
mean and their sample deviation. Seed 0 is that of the card.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ocl_bench import evaluate
from ocl_bench.cards.names import get_task
from ocl_bench.cards.task import TaskSpec


def with_seed(task: TaskSpec, seed: int) -> TaskSpec:
    """The task with another seed of its fit."""
    if task.fit is None:
        raise SystemExit(f"task {task.name} fits nothing")
    return task.model_copy(update={"fit": task.fit.model_copy(update={"seed": seed})})


def values(model: str, task: TaskSpec, seeds: Sequence[int]) -> dict[str, list[float]]:
    """Each metric of the task for each seed of the fit."""
    found: dict[str, list[float]] = {name: [] for name in task.metrics}
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            result = evaluate(model, with_seed(task, seed), device="cpu", results=Path(folder) / str(seed))
            for name, numbers in found.items():
                value = result.metrics[name].value
                numbers.append(float("nan") if value is None else value)
    return found


def main() -> None:
    """Print one table for each model."""
    parser = argparse.ArgumentParser(description="Fit heads with several seeds.")
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    task, seeds = get_task(arguments.task), range(arguments.seeds)
    for model in arguments.model:
        print(f"\n{model} on {task.name}\n")
        print("| metric |", " | ".join(f"seed {seed}" for seed in seeds), "| mean | deviation |")
        print("|---" * (len(seeds) + 3) + "|")
        for name, numbers in values(model, task, seeds).items():
            spread = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
            shown = " | ".join(f"{number:.3f}" for number in [*numbers, statistics.fmean(numbers), spread])
            print(f"| `{name}` | {shown} |")


if __name__ == "__main__":
    main()
