"""Is a model better than its floors and controls? Tested again from the committed results.

    python benchmarks/claims.py                                   # dias on clevrtex against every other method
    python benchmarks/claims.py --model slotcon --task cocostuff-segmentation --metrics miou_sem \
        --against slotcon-without-slot-loss,random-features/miou_sem_kmeans

Better means: training seeds paired, two-level bootstrap over (seed, image), the 95 % interval of the difference
excludes 0, the same sign in every pair of seeds, and a Holm-adjusted p below 0.05 over all claims of the table. Fewer
than 3 training seeds are undecided. A floor without training seeds is paired with every seed of the model.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ocl_bench.comparison import difference, load_methods
from ocl_bench.paths import bundled
from ocl_bench.statistics import holm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="dias")
    parser.add_argument("--task", default="clevrtex")
    parser.add_argument("--metrics", default="ari,fg_ari,mbo_fg")
    parser.add_argument("--against", default="", help="methods, or method/metric; by default all")
    parser.add_argument("--results", type=Path, default=bundled("leaderboards") / "results")
    arguments = parser.parse_args()
    methods = load_methods(arguments.results / arguments.task)
    if arguments.model not in methods:
        raise SystemExit(f"no result of {arguments.model} in {arguments.results / arguments.task}")
    ours, metrics = methods.pop(arguments.model), arguments.metrics.split(",")
    against = [name for name in arguments.against.split(",") if name]
    against = against or [name for name, found in methods.items() if found[0].model.role != "ceiling"]
    differences = {}
    for name in against:
        method, _, other = name.partition("/")
        if method not in methods:
            raise SystemExit(f"no result of {method} in {arguments.results / arguments.task}")
        for metric in metrics:
            differences[name, metric] = difference(ours, methods[method], metric, other or metric)
    adjusted = holm({f"{name}|{metric}": d.p_value for (name, metric), d in differences.items()})
    table = Table(title=f"{arguments.model} ({len(ours)} training seeds) on {arguments.task}: difference to ...")
    for column in ("method", "supervision", "seeds", *metrics):
        table.add_column(column)
    for name in against:
        cells = []
        for metric in metrics:
            d = differences[name, metric]
            verdict = d.verdict if adjusted[f"{name}|{metric}"] < 0.05 else "undecided"
            cells.append(f"{d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}] {verdict}")
        theirs = methods[name.partition("/")[0]]
        table.add_row(name, theirs[0].model.supervision, str(len(theirs)), *cells)
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
