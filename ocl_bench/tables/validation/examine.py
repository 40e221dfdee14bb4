"""Validate a result file against its rows, without running the model again.

Schema, hashes, ranges and completeness are checked, every value and interval is computed again from the rows, and a few
samples are scored again where predictions are kept beside the file. Nothing proves what ran: time, device, versions,
commit and the number of parameters are recorded, not checked (`docs/submit.md`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...cards.names import get_task
from ...cards.task import TaskSpec
from ...evaluation.examination.examine_file import examine_file
from ...results.ranks_with import Reason, reasons_against_ranking, reference_of_card
from ...results.record import Result

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Problem:
    """Why a result is refused. field: its place in the JSON file, `rows.<column>` or `predictions`."""

    file: str
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}: {self.field}: {self.message}"


@dataclass(frozen=True)
class Validation:
    """What was found about one result file.

    Attributes:
        problems: why the file is refused; empty for a valid one.
        skipped: what could not be checked, and why.
        not_ranked: why a leaderboard leaves the result out although it may be valid.
        images: number of rows.
        metrics: number of metrics that were computed again.
        rescored: number of samples that were scored again.
    """

    file: str
    problems: tuple[Problem, ...]
    skipped: tuple[str, ...]
    not_ranked: tuple[Reason, ...] = ()
    images: int = 0
    metrics: int = 0
    rescored: int = 0

    @property
    def valid(self) -> bool:
        """Whether there is no problem."""
        return not self.problems


def validate(
    path: str | Path,
    *,
    task: str | Path | TaskSpec | None = None,
    predictions: str | Path | None = None,
    data_root: str | Path | None = None,
) -> list[Problem]:
    """List all problems of a result file; arguments and errors are those of `examine`."""
    return list(examine(path, task=task, predictions=predictions, data_root=data_root).problems)


def examine(
    path: str | Path,
    *,
    task: str | Path | TaskSpec | None = None,
    predictions: str | Path | None = None,
    data_root: str | Path | None = None,
) -> Validation:
    """Check a result file against its rows, its cards and, where they are kept, its predictions.

    Args:
        path: the JSON file; its rows lie beside it.
        task: card of the result, when it is not a bundled one.
        predictions: folder with `seed-<n>/...`; by default `<stem>.predictions` beside the file, if it is there.
        data_root: where official data is, to score predictions again.

    Raises:
        UsageError: when the file is not a JSON object.
    """
    path, given = Path(path), get_task(task) if task is not None else None
    read = examine_file(path, given)
    result, problems, skipped, rescored = read.result, read.problems, read.skipped, 0
    if result is not None and read.rows is not None:
        rescored = _rescore(path, result, read.rows, read.card, predictions, data_root, problems, skipped)
    refusals = tuple(Problem(str(path), field, message) for field, message in dict.fromkeys(problems))
    reference = reference_of_card(given) if given is not None else None
    not_ranked = tuple(reasons_against_ranking(result, reference)) if result is not None else ()
    images = 0 if read.rows is None else len(read.rows)
    return Validation(str(path), refusals, tuple(skipped), not_ranked, images, read.metrics, rescored)


def _rescore(
    path: Path,
    result: Result,
    rows: pandas.DataFrame,
    task: TaskSpec | None,
    predictions: str | Path | None,
    data_root: str | Path | None,
    problems: list[tuple[str, str]],
    skipped: list[str],
) -> int:
    """Score a few samples again from their saved predictions; return their number."""
    folder = Path(predictions) if predictions is not None else path.with_suffix(".predictions")
    if not folder.is_dir():
        if predictions is not None:
            problems.append(("predictions", f"{folder} is not a folder"))
        skipped.append("samples were not scored again: no predictions are attached")
        return 0
    if task is None or task.hash != result.task.hash:
        skipped.append("samples were not scored again: that needs the card of the task")
        return 0
    from .rescoring import Rescored, rescore

    outcome = rescore(result, rows, task, folder, Path(data_root) if data_root is not None else None)
    if not isinstance(outcome, Rescored):
        skipped.append(f"samples were not scored again: {outcome}")
        return 0
    problems += outcome.problems
    return outcome.samples
