"""From a run to the files of a pull request: one JSON and its Parquet under the name that committed results have."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from ...core.errors import UsageError
from ...results.record import read_result, write_result
from ...results.store import only_result, rows_of
from .examine import Problem, Validation, examine, stable_name


@dataclass(frozen=True)
class Submission:
    """What was written, or (empty) the problems for which nothing was."""

    files: tuple[Path, ...]
    validation: Validation
    next: str


def submit(
    run: str | Path, out: str | Path = "submission", *, predictions: bool = False, data_root: str | Path | None = None
) -> Submission:
    """Validate a result and write it to `<out>/<task>/<model>.json` with its rows (`dias:1` is `dias-seed1`).

    run: a result JSON, or a folder with exactly one. predictions: copy those that the run saved, too.

    Nothing is written when the result has a problem (`Submission.validation`), or is not ranked for one of the reasons
    of `results.ranks_with`. Raises UsageError when there is no such run or no saved predictions.
    """
    path = only_result(Path(run))
    saved = path.with_suffix(".predictions")
    if predictions and not saved.is_dir():
        raise UsageError(f"{saved}: the run saved no predictions; evaluate again with --save-predictions")
    checked = examine(path, data_root=data_root)
    if checked.problems:
        return Submission((), checked, "")
    result = read_result(path)
    if checked.not_ranked:
        problems = tuple(
            Problem(str(path), reason.field, f"not ranked: {reason.message}") for reason in checked.not_ranked
        )
        return Submission((), replace(checked, problems=problems), "")
    folder, stem = Path(out) / result.task.name, stable_name(result.model.name)
    written = write_result(result, rows_of(result), folder, stem)
    files = [file for file in (written.path, written.rows_path) if file is not None]
    if predictions:
        target = folder / f"{stem}.predictions"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(saved, target)
        files.append(target)
    advice = f"copy {folder} into leaderboards/results of your fork, run `ocl-bench leaderboard --committed`, open a "
    return Submission(tuple(files), checked, f"{advice}pull request (docs/submit.md)")
