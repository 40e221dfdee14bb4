"""Is the bundled `dias` better than its floors and controls? The claims of the README, tested again from results.

    python benchmarks/claims.py                 # leaderboards/results/clevrtex
    python benchmarks/claims.py --model dias-label-free --task clevrtex --results results

Better means: training seeds paired, two-level bootstrap over (seed, image), the 95 % interval of the difference
excludes 0, the same sign in every pair of seeds, and a Holm-adjusted p below 0.05 over all claims of the table. Fewer
than 3 training seeds are undecided. A floor without training seeds is paired with every seed of the model.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from ocl_bench.paths import bundled
from ocl_bench.results import Result, read_result, read_rows
from ocl_bench.statistics import Difference, holm, two_level_difference

METRICS = ("ari", "fg_ari", "mbo_fg")


def base_name(result: Result) -> str:
    """Name without the training seed: dias:1 -> dias."""
    return result.model.name.partition(":")[0]


def seed_values(results: list[tuple[Result, Path]], metric: str) -> list[np.ndarray]:
    """Per-image values (n,) of each training seed, in the order of the seeds, averaged over noise seeds."""
    ordered = sorted(results, key=lambda pair: pair[0].model.training_seed or 0)
    tables = [read_rows(path).groupby("id")[metric].mean() for _, path in ordered]
    if any(not table.index.equals(tables[0].index) for table in tables):
        raise SystemExit("the results are of different images")
    return [table.to_numpy() for table in tables]


def compare(ours: list[np.ndarray], theirs: list[np.ndarray]) -> Difference:
    """Pair training seeds; a method without seeds meets each of ours."""
    if len(theirs) == 1:
        theirs = theirs * len(ours)
    pairs = min(len(ours), len(theirs))
    return two_level_difference(ours[:pairs], theirs[:pairs])


def load(folder: Path) -> dict[str, list[tuple[Result, Path]]]:
    """Results of a folder by method."""
    methods: dict[str, list[tuple[Result, Path]]] = {}
    for path in sorted(folder.rglob("*.json")):
        result = read_result(path)
        methods.setdefault(base_name(result), []).append((result, path))
    return methods


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", default="dias")
    parser.add_argument("--task", default="clevrtex")
    parser.add_argument("--results", type=Path, default=bundled("leaderboards") / "results")
    arguments = parser.parse_args()
    methods = load(arguments.results / arguments.task)
    if arguments.model not in methods:
        raise SystemExit(f"no result of {arguments.model} in {arguments.results / arguments.task}")
    ours = methods.pop(arguments.model)
    others = {n: r for n, r in methods.items() if r[0][0].model.role in ("floor", "control", "model")}
    differences = {
        (name, metric): compare(seed_values(ours, metric), seed_values(results, metric))
        for name, results in others.items()
        for metric in METRICS
    }
    adjusted = holm({f"{name}|{metric}": d.p_value for (name, metric), d in differences.items()})
    table = Table(title=f"{arguments.model} ({len(ours)} training seeds) on {arguments.task}: difference to ...")
    for column in ("method", "supervision", "seeds", *METRICS):
        table.add_column(column)
    for name, results in others.items():
        cells = []
        for metric in METRICS:
            d = differences[name, metric]
            verdict = d.verdict if adjusted[f"{name}|{metric}"] < 0.05 else "undecided"
            cells.append(f"{d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}] {verdict}")
        table.add_row(name, results[0][0].model.supervision, str(len(results)), *cells)
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
