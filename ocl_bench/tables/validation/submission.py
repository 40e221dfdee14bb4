"""From a run to the files of a pull request: one JSON and its Parquet under the name that committed results have."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import UsageError
from ...results.record import Result, read_result, read_rows, write_result
from ...results.store import other_split
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

    Nothing is written when the result has a problem (`Submission.validation`), or is none that can be ranked: limited,
    with failed samples, of a fresh stand-in. Raises UsageError when there is no such run or no saved predictions.
    """
    path = find_run(Path(run))
    saved = path.with_suffix(".predictions")
    if predictions and not saved.is_dir():
        raise UsageError(f"{saved}: the run saved no predictions; evaluate again with --save-predictions")
    checked = examine(path, data_root=data_root)
    if checked.problems:
        return Submission((), checked, "")
    result = read_result(path)
    if problems := _not_ranked(path, result):
        return Submission((), Validation(checked.file, tuple(problems), checked.skipped), "")
    folder, stem = Path(out) / result.task.name, stable_name(result.model.name)
    written = write_result(result, read_rows(path.parent / result.rows.file), folder, stem)
    files = [file for file in (written.path, written.rows_path) if file is not None]
    if predictions:
        target = folder / f"{stem}.predictions"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(saved, target)
        files.append(target)
    advice = f"copy {folder} into leaderboards/results of your fork, run `ocl-bench leaderboard --committed`, open a "
    return Submission(tuple(files), checked, f"{advice}pull request (docs/submit.md)")


def find_run(run: Path) -> Path:
    """The result JSON: the file itself, or the only one of a folder. Raises UsageError naming those to choose from."""
    if not run.is_dir():
        return run
    found = sorted(run.glob("*.json"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise UsageError(f"{run}: holds {len(found)} result files ({names}); name one of them")
    return found[0]


def _not_ranked(path: Path, result: Result) -> list[Problem]:
    """What is right in itself, and yet no row of a leaderboard."""
    reasons = {
        "data.limit": result.data.limit is not None and "a limited run is not ranked; evaluate without --limit",
        "data.stand_in_seed": result.data.stand_in_seed is not None and "a fresh stand-in is never ranked",
        "data.split": other_split(result) and "another split than the card's is not ranked",
        "identity.status": result.identity.status != "complete" and "a run with failed samples is not ranked",
    }
    return [Problem(str(path), field, reason) for field, reason in reasons.items() if reason]
