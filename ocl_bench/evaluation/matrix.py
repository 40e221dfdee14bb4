"""Every model on every task. A cell that fails does not stop the others.

Nothing is averaged over tasks: each cell is one result. Finished results are reused, so a killed matrix continues.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..cards.families import family_names
from ..cards.names import get_card, get_task, is_pattern, matching, model_names, ready_names, task_names
from ..cards.overview import families_of, task_line
from ..core.errors import DataMissingError, NotApplicableError, OclBenchError, UsageError
from ..core.log import is_watched, logger, print_on_stderr, progress_bar

if TYPE_CHECKING:
    from ..results.record import Result
    from .launching import Launcher

SUITE = "suite:"
"""Beginning of a name that stands for all tasks of a family, or for all models that do them."""

Status = Literal["ok", "failed samples", "n/a", "no data", "failed"]


@dataclass(frozen=True)
class MatrixCell:
    """One model on one task. text: why there is no result; empty where there is one."""

    model: str
    task: str
    status: Status
    text: str = ""
    result: Result | None = None

    @property
    def failed(self) -> bool:
        """Whether something went wrong. A task that does not fit the model is not a failure."""
        return self.status in ("failed", "failed samples", "no data")


def several(text: str) -> bool:
    """Whether the text of `--model` or `--task` may name more than one. A file's own comma separates nothing."""
    if text.endswith((".yaml", ".yml")) or ".py:" in text:
        return "," in text and not Path(re.sub(r"\.py:\w+$", ".py", text)).is_file()
    return text == "all" or "," in text or text.startswith(SUITE) or is_pattern(text)


def expand(text: str, kind: Literal["model", "task"]) -> list[str]:
    """The names in a comma-separated list, each once, in the order given.

    `all` stands for all tasks, or for all models that have weights or need none; `suite:FAMILY` for those of one
    family; a pattern such as `movi*` for those that it fits.

    Raises:
        UsageError: for a family or a pattern that nothing belongs to.
    """
    parts = [part.strip() for part in (text.split(",") if several(text) else [text]) if part.strip()]
    return list(dict.fromkeys(name for part in parts for name in _names(part, kind)))


def _names(part: str, kind: Literal["model", "task"]) -> list[str]:
    """The names that one part of a list stands for."""
    if not several(part):
        return [part]
    known = ready_names() if kind == "model" else task_names()
    if part == "all":
        return known
    if part.startswith(SUITE):
        family = part.removeprefix(SUITE)
        found = [name for name in known if family in _families(name, kind)]
        known_families = ", ".join(family_names())
        problem = f"--{kind} {part}: there is no such suite; there are {SUITE}FAMILY with {known_families}"
    else:
        found = matching([part], known)
        problem = f"--{kind} '{part}': fits no {kind}{' that runs without --checkpoint' if kind == 'model' else ''}"
        problem += f"; see `ocl-bench list {kind}s`"
    if not found:
        raise UsageError(problem)
    return found


def _families(name: str, kind: Literal["model", "task"]) -> Sequence[str]:
    return families_of(name) if kind == "model" else (task_line(name).family,)


def evaluate_matrix(
    models: Sequence[str],
    tasks: Sequence[str],
    *,
    results: str | Path | None = None,
    progress: bool = True,
    force: bool = False,
    save_predictions: bool = False,
    launcher: Launcher | None = None,
    **keywords: Any,
) -> list[MatrixCell]:
    """Evaluate all pairs, task by task. The data of a task are opened once.

    Args:
        models: names, as `expand` gives them.
        tasks: names.
        results: as in `evaluate`.
        progress: whether to show a progress bar.
        force: compute again what is finished.
        save_predictions: as in `evaluate`.
        launcher: runs each cell as a job of its own, several at a time, with the same results.
        keywords: of `make_plan`.

    Raises:
        UsageError: for a model or task that does not exist. An error of one cell is kept in that cell instead.
    """
    specs = [get_task(task) for task in tasks]
    for model in models:
        if ".py:" not in model and model.partition(":")[0] not in model_names():
            get_card(model.partition(":")[0])  # raises the error with its suggestion
    run_options = {"results": results, "force": force, "save_predictions": save_predictions}
    if launcher is not None:
        return _launched(models, tasks, launcher, progress, run_options | keywords)
    cells = []
    within = progress and not is_watched()  # a terminal shows one bar at a time; a log takes the lines of both
    text, total = f"{len(models)} models x {len(specs)} tasks", len(models) * len(specs)
    with progress_bar(text, total, progress, "evaluations") as advance:
        for spec in specs:
            shared: dict[str, Any] = {}
            for model in models:
                cell = _cell(model, spec.name, {"task": spec, "progress": within, **keywords}, shared, run_options)
                logger.info("%s", _line(cell, spec.main))
                cells.append(cell)
                advance(1)
    return cells


def _launched(
    models: Sequence[str], tasks: Sequence[str], launcher: Launcher, progress: bool, keywords: dict[str, Any]
) -> list[MatrixCell]:
    """The same cells as jobs. Those of one model start together: the others then find the data of their task ready."""
    from ..core.paths import results_root
    from .launching import run_as_jobs

    root = Path(keywords["results"]) if keywords["results"] is not None else results_root()
    root.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".jobs-", dir=root))
    specs = {task: get_task(task) for task in tasks}  # a job gets the name or the path, which says what it is anywhere
    pairs = [(model, task) for model in models for task in tasks]
    found: dict[tuple[str, str], MatrixCell] = {}
    text = f"{len(models)} models x {len(tasks)} tasks, {launcher.jobs} {launcher.kind} jobs at a time"
    with progress_bar(text, len(pairs), progress, "evaluations") as advance:
        for number, outcome in run_as_jobs(partial(_job, keywords), pairs, launcher, folder):
            model, spec = pairs[number][0], specs[pairs[number][1]]
            cell = outcome.value or MatrixCell(model, spec.name, "failed", outcome.problem)
            logger.info("%s", _line(cell, spec.main))
            found[pairs[number]] = cell
            advance(1)
    if not any(cell.failed for cell in found.values()):
        shutil.rmtree(folder)
    return [found[model, task] for task in tasks for model in models]


def _job(keywords: dict[str, Any], model: str, task: str) -> MatrixCell:
    """One cell in a process of its own, which logs on its stderr."""
    print_on_stderr()
    (cell,) = evaluate_matrix([model], [task], **keywords)
    return cell


def _cell(
    model: str, task: str, keywords: dict[str, Any], shared: dict[str, Any], run_options: dict[str, Any]
) -> MatrixCell:
    """Evaluate one model on one task.

    shared: gets the data once they are open, for the next models. run_options: arguments of `run`.
    """
    from .plan import make_plan
    from .run import run

    try:
        plan = make_plan(model, **keywords, **shared)
        shared.update(data=plan.data, train=plan.train)  # before the run, so that they are kept when it fails
        result = run(plan, progress=keywords["progress"], **run_options)
    except NotApplicableError as error:
        return MatrixCell(model, task, "n/a", str(error))
    except DataMissingError as error:
        return MatrixCell(model, task, "no data", str(error))
    except OclBenchError as error:
        return MatrixCell(model, task, "failed", str(error))
    except Exception as error:  # also a bug in one model must not stop the others; the error is printed and counted
        return MatrixCell(model, task, "failed", f"{type(error).__name__}: {error}")
    return MatrixCell(model, task, "failed samples" if result.counts.failed else "ok", "", result)


def _line(cell: MatrixCell, main: str) -> str:
    """What is printed about a cell. main: the main metric of the task."""
    if cell.result is None:
        return f"{cell.task} / {cell.model}: {cell.status} ({' '.join(cell.text.split())})"
    value = cell.result.metrics[main].value
    number = "not valid" if value is None else f"{value:.3f}"
    return f"{cell.task} / {cell.model}: {main} {number}{' (reused)' if cell.result.reused else ''}"


def exit_code_of(cells: Sequence[MatrixCell]) -> int:
    """The exit code: 1 when a cell failed, 2 when the only cell does not fit, else 0."""
    if len(cells) == 1 and cells[0].status == "n/a":
        return 2
    return int(any(cell.failed for cell in cells))
