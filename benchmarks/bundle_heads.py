"""Bundle the heads of models: fit each by the recipe of its task card, and write it into the package.

    python benchmarks/bundle_heads.py --model slotcontrast-clevrer --task clevrer-prediction --task clevrer-contact

An evaluation on the stand-in then reads the head instead of fitting it. A head that is in the cache is taken from
there. A bundled one is written again after a change of the model's weights, of the recipe or of the fit split; until
then evaluations do not read it, as its key is another one.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from ocl_bench.core.machine import fixed_arithmetic
from ocl_bench.evaluation.heads import bundled_head, head_for
from ocl_bench.evaluation.plan import make_plan
from ocl_bench.evaluation.sealed import write_sealed


def bundle_head(model: str, task: str, *, again: bool = False) -> Path:
    """Write the head of a bundled model on a task. Returns its path. again: fit it even if it is known."""
    plan = make_plan(model, task, device="cpu")
    if plan.train is None:
        raise SystemExit(f"task {task} fits nothing")
    with fixed_arithmetic(plan.threads):
        head = head_for(replace(plan, refit=again), plan.train)
    path = bundled_head(plan.task.name, plan.model.name)
    write_sealed(path, plan.fit_key, head)
    path.chmod(0o644)
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Bundle fitted heads.")
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--task", action="append", required=True)
    parser.add_argument("--again", action="store_true", help="fit heads that are known, too")
    arguments = parser.parse_args()
    for of_model in arguments.model:
        for of_task in arguments.task:
            print(bundle_head(of_model, of_task, again=arguments.again))
