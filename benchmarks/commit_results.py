"""Copy complete results from a results folder into leaderboards/results, under stable names.

    python benchmarks/commit_results.py results --task clevrtex
    python benchmarks/commit_results.py --rewrite

`dias:1` becomes dias-seed1.json with dias-seed1.parquet beside it. The script skips results with a limit, partial
results, results on freshly seeded stand-ins, and results of plug-ins. If a model has several results, it takes the
newest one. Files are named by model, so a result with other options than the committed one is refused. `--rewrite`
writes the committed results again in the current format, for example after the storage of rows was improved. Values do
not change.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from pathlib import Path

from ocl_bench.cards.names import model_names
from ocl_bench.core.errors import UsageError
from ocl_bench.core.paths import bundled
from ocl_bench.results.record import Result, read_result, read_rows, write_result
from ocl_bench.results.rows import write_rows


def committable(result: Result) -> bool:
    """Whether a result may be committed."""
    whole = result.data.limit is None and result.data.stand_in_seed is None and result.identity.status == "complete"
    return whole and result.model.name.partition(":")[0] in model_names()


def check_options(result: Result, path: Path) -> None:
    """Raises UsageError where the committed result at `path`, if there is one, has other options of the model."""
    if not path.exists():
        return
    committed = read_result(path).model.options
    if committed != result.model.options:
        raise UsageError(
            f"{path}: was made with the options {committed}, the new result with {result.model.options}; "
            "remove the committed result if the new one shall take its place"
        )


def copy(results: Path, task: str, folder: Path) -> None:
    """Copy the newest committable result of each model on a task into `folder`.

    Raises:
        UsageError: A committed result of a model has other options. Nothing is written then.
    """
    newest: dict[str, tuple[Result, Path]] = {}
    for path in sorted((results / task).glob("*/*.json")):
        result = read_result(path)
        name = result.model.name
        if committable(result) and (name not in newest or newest[name][0].identity.created < result.identity.created):
            newest[name] = (result, path)
    targets = {name: folder / task / f"{name.replace(':', '-seed')}.json" for name in sorted(newest)}
    for name, target in targets.items():
        check_options(newest[name][0], target)
    for name, target in targets.items():
        result, path = newest[name]
        write_result(result, read_rows(path), target.parent, stem=target.stem)
        print(target)


def rewrite(path: Path) -> int:
    """Write a committed result again in place. Returns the number of bytes that this saves.

    Raises:
        UsageError: The rows differ from those that the result recorded, or would change. Nothing is written then.
    """
    result = read_result(path)
    parquet = path.parent / result.rows.file
    if hashlib.sha256(parquet.read_bytes()).hexdigest() != result.rows.sha256:
        raise UsageError(f"{parquet}: field 'rows.sha256' of {path.name} has another value; evaluate again")
    rows, size = read_rows(parquet), parquet.stat().st_size
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / parquet.name  # a trial in another folder, before the committed file is replaced
        write_rows(rows, trial)
        if not rows.equals(read_rows(trial)):
            raise UsageError(f"{parquet}: its rows change when they are written; the file was left unchanged")
    write_result(result, rows, path.parent, stem=path.stem)
    return size - parquet.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description="Copy results into leaderboards/results.")
    parser.add_argument("results", type=Path, nargs="?")
    parser.add_argument("--task")
    parser.add_argument("--rewrite", action="store_true", help="write committed results in the current format")
    arguments = parser.parse_args()
    folder = bundled("leaderboards") / "results"
    if arguments.rewrite:
        freed = [rewrite(path) for path in sorted(folder.glob("*/*.json"))]
        print(f"{len(freed)} results, {sum(freed) / 1e6:.2f} MB freed")
    elif arguments.results and arguments.task:
        copy(arguments.results, arguments.task, folder)
    else:
        parser.error("give a results folder and --task, or --rewrite")


if __name__ == "__main__":
    main()
