"""Prepare a result for a pull request: one JSON and its Parquet file under the names of committed results."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from ...core.errors import UsageError
from ...evaluation.examination.model_section import stable_name as stable_name
from ...results.record import read_result, write_result
from ...results.store import only_result, rows_of
from .examine import Problem, Validation, examine


@dataclass(frozen=True)
class Submission:
    """The outcome of `submit`. files: what was written, empty when the validation has problems. next: what to do."""

    files: tuple[Path, ...]
    validation: Validation
    next: str


def submit(
    run: str | Path, out: str | Path = "submission", *, predictions: bool = False, data_root: str | Path | None = None
) -> Submission:
    """Validate a result and write it to `<out>/<task>/<model>.json` with its rows (`dias-seed1` for `dias:1`).

    Nothing is written when the result has a problem or would not be ranked (`results.ranks_with`).

    Args:
        run: a result JSON, or a folder with exactly one.
        out: folder that is written to.
        predictions: also copy the predictions that the run saved.
        data_root: where official data is, to score predictions again.

    Raises:
        UsageError: when there is no such run, or no saved predictions.
    """
    path = only_result(Path(run))
    saved = path.with_suffix(".predictions")
    if predictions and not saved.is_dir():
        raise UsageError(f"{saved}: the run saved no predictions; evaluate again with --save-predictions")
    validation = examine(path, data_root=data_root)
    if validation.problems:
        return Submission((), validation, "")
    result = read_result(path)
    if validation.not_ranked:
        problems = tuple(
            Problem(str(path), reason.field, f"not ranked: {reason.message}") for reason in validation.not_ranked
        )
        return Submission((), replace(validation, problems=problems), "")
    folder, stem = Path(out) / result.task.name, stable_name(result.model.name)
    written = write_result(result, rows_of(result), folder, stem)
    files = [file for file in (written.path, written.rows_path) if file is not None]
    if predictions:
        target = folder / f"{stem}.predictions"
        # Predictions of an earlier call must not stay among the new ones.
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(saved, target)
        files.append(target)
    advice = f"copy {folder} into leaderboards/results of your fork, run `ocl-bench leaderboard --committed`, open a "
    return Submission(tuple(files), validation, f"{advice}pull request (docs/submit.md)")
