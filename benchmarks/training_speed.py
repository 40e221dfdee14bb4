"""Trainings of two versions of this repository, step by step: are their losses equal, and which one is faster?

    git worktree add /tmp/before COMMIT
    python benchmarks/training_speed.py /tmp/before --model dias --model odis

Both versions train each model by the recipe of its card, in turns, each time in a process of its own, in float32 unless
`--set` says otherwise. Losses are compared step by step; time is that of the processor, because other programs slow
down the clock but not the work. The first steps are not timed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]

MODELS = (
    *("encoder", "encoder-large", "encoder-boxes", "encoder-segments"),
    *("dias", "slot-attention", "dinosaur", "smoothsa"),
    *("odis", "ibot", "infonce-objects", "infonce-images"),
    *("slotcon", "slotcontrast", "slotmatch"),
)
UNTIMED = 3
"""Steps before the first one that is timed."""


def train(model_name: str, steps: int, scenes: int, changes: dict[str, Any]) -> dict[str, Any]:
    """Losses of the steps of one training, and the processor time of each step: batch, loss, gradients, update."""
    from ocl_bench.cards.names import get_card, get_task
    from ocl_bench.training.loop import _optimizer, _Run
    from ocl_bench.training.objectives import build_objective
    from ocl_bench.training.ranks import start_ranks
    from ocl_bench.training.recipe import read_recipe
    from ocl_bench.training.run import build_untrained

    card = get_card(model_name)
    card = card.model_copy(update={"options": {**card.options, **card.train.get("options", {})}})
    few = {"scenes.count": scenes, "validate_limit": 1}
    if card.train["objective"]["kind"] == "odis":
        few["objective.bank"] = 1
    recipe = read_recipe(card.train, card.name, **{**few, **changes})
    ranks = start_ranks("cpu", recipe.precision)
    model = build_untrained(card, 0)
    objective = build_objective(model, card, get_task(recipe.task), recipe, 0, ranks, progress=False)
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    run = _Run(model, objective, recipe, ranks, Path(), parameters, _optimizer(recipe, parameters))
    losses, seconds = [], []
    # The warm-up is passed over: with a rate of nearly 0, all losses would be those of the first weights.
    run.state.step = recipe.warmup_steps
    for _ in range(steps):
        start = time.process_time()
        terms = run.step(objective.batch(run.state.step))
        losses.append(float(terms["total"]))
        seconds.append(time.process_time() - start)
        run.state.step += 1
    return {"losses": losses, "seconds": seconds, "batch": recipe.batch}


def in_process(tree: Path, arguments: list[str]) -> dict[str, Any]:
    """The result of `train` with the code of a tree, in a fresh process."""
    command = [sys.executable, str(Path(__file__).resolve()), "--alone", str(tree), *arguments]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(tree)}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{tree}: {done.stderr.strip().splitlines()[-1]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def median(values: list[float]) -> float:
    """Median of some numbers."""
    return sorted(values)[len(values) // 2]


def compare(before: Path, model: str, turns: int, arguments: list[str]) -> dict[str, Any]:
    """Largest relative difference of the losses, and images per second of processor time of both versions."""
    results: dict[Path, list[dict[str, Any]]] = {before: [], HERE: []}
    for _ in range(turns):
        for tree, done in results.items():
            done.append(in_process(tree, ["--model", model, *arguments]))
    old, new = (results[tree] for tree in (before, HERE))
    difference = max(abs(a - b) / abs(a) for a, b in zip(old[0]["losses"], new[0]["losses"], strict=True))
    rates = [done[0]["batch"] / median([s for one in done for s in one["seconds"][UNTIMED:]]) for done in (old, new)]
    return {
        "model": model,
        "before": rates[0],
        "after": rates[1],
        "ratio": rates[1] / rates[0],
        "difference": difference,
    }


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="folder of the other version")
    parser.add_argument("--model", action="append", help="card; repeatable, by default one of each recipe")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--scenes", type=int, default=128)
    parser.add_argument("--turns", type=int, default=2, help="trainings of each version")
    parser.add_argument("--set", action="append", default=[], help="key=value of the recipe; repeatable")
    parser.add_argument("--out", type=Path, help="write the table as JSON, too")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        changes = {"precision": "fp32"} | dict(item.split("=", 1) for item in options.set)
        print(json.dumps(train(options.model[0], options.steps, options.scenes, changes)))
        return
    arguments = ["--steps", str(options.steps), "--scenes", str(options.scenes)]
    arguments += [part for item in options.set for part in ("--set", item)]
    rows = []
    print("| model | before | after | ratio | largest difference of a loss |\n|---|---|---|---|---|")
    for model in options.model or MODELS:
        row = compare(options.before.resolve(), model, options.turns, arguments)
        rows.append(row)
        print(
            f"| `{model}` | {row['before']:.1f} | {row['after']:.1f} | {row['ratio']:.2f} | {row['difference']:.1e} |",
            flush=True,
        )
    if options.out:
        options.out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
