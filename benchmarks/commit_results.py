"""Copy whole, complete results from a results folder into leaderboards/results, under stable names.

    python benchmarks/commit_results.py results --task clevrtex

`dias:1` becomes dias-seed1.json with dias-seed1.parquet beside it. Limited, partial and fresh-seed results are left
out, and so are results of plug-ins; of several results of one model the newest is taken.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ocl_bench.paths import bundled
from ocl_bench.registry import model_names
from ocl_bench.results import Result, read_result, read_rows, write_result


def committable(result: Result) -> bool:
    """Whether a result may stand in the repository."""
    whole = result.data.limit is None and result.data.stand_in_seed is None and result.identity.status == "complete"
    return whole and result.model.name.partition(":")[0] in model_names()


def main() -> None:
    parser = argparse.ArgumentParser(description="Copy results into leaderboards/results.")
    parser.add_argument("results", type=Path)
    parser.add_argument("--task", required=True)
    arguments = parser.parse_args()
    newest: dict[str, tuple[Result, Path]] = {}
    for path in sorted((arguments.results / arguments.task).glob("*/*.json")):
        result = read_result(path)
        name = result.model.name
        if committable(result) and (name not in newest or newest[name][0].identity.created < result.identity.created):
            newest[name] = (result, path)
    folder = bundled("leaderboards") / "results" / arguments.task
    for name, (result, path) in sorted(newest.items()):
        write_result(result, read_rows(path), folder, stem=name.replace(":", "-seed"))
        print(folder / f"{name.replace(':', '-seed')}.json")


if __name__ == "__main__":
    main()
