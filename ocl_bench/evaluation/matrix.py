"""Every model on every task: cells that fit are evaluated, one that fails does not stop the others.

Nothing is averaged over tasks: a cell is one result, and finished ones are reused, so that a killed matrix goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..cards.names import get_card, get_task, model_names, ready_names, task_names
from ..core.errors import DataMissingError, NotApplicableError, OclBenchError
from ..core.log import logger, progress_bar

if TYPE_CHECKING:
    from ..results.record import Result
    from .plan import Plan

Status = Literal["ok", "failed samples", "n/a", "no data", "failed"]


@dataclass(frozen=True)
class Cell:
    """One model on one task. text: why there is no result; result: None then."""

    model: str
    task: str
    status: Status
    text: str = ""
    result: Result | None = None

    @property
    def failed(self) -> bool:
        """Whether something went wrong; a task that does not fit the model is no failure."""
        return self.status in ("failed", "failed samples", "no data")


def expand(text: str, kind: Literal["model", "task"]) -> list[str]:
    """`all` (models: those with weights, and floors), or names with commas between, each once, in the order given."""
    known = ready_names if kind == "model" else task_names
    names = [name.strip() for name in text.split(",") if name.strip()]
    return list(dict.fromkeys(one for name in names for one in (known() if name == "all" else [name])))


def evaluate_matrix(
    models: Sequence[str],
    tasks: Sequence[str],
    *,
    results: str | Path | None = None,
    progress: bool = True,
    force: bool = False,
    save_predictions: bool = False,
    **keywords: Any,
) -> list[Cell]:
    """Evaluate all pairs, task by task; data is opened once for a task. keywords: those of `make_plan`.

    Raises UsageError for a task that does not exist; whatever goes wrong in a cell becomes that cell.
    """
    specs = [get_task(task) for task in tasks]
    for model in models:
        if ".py:" not in model and model.partition(":")[0] not in model_names():
            get_card(model.partition(":")[0])  # raises the error with its suggestion
    wishes = {"results": results, "force": force, "save_predictions": save_predictions}
    cells = []
    text, total = f"{len(models)} models x {len(specs)} tasks", len(models) * len(specs)
    with progress_bar(text, total, progress, "evaluations") as advance:
        for spec in specs:
            shared: dict[str, Any] = {}
            for model in models:
                cell = _cell(model, spec.name, {"task": spec, **keywords}, shared, wishes)
                logger.info("%s", _line(cell, spec.main))
                cells.append(cell)
                advance(1)
    return cells


def _cell(model: str, task: str, keywords: dict[str, Any], shared: dict[str, Any], wishes: dict[str, Any]) -> Cell:
    from .plan import make_plan
    from .run import run

    try:
        plan = make_plan(model, **keywords, **shared, progress=False)
        shared.update(_opened(plan))
        result = run(plan, progress=False, **wishes)
    except NotApplicableError as error:
        return Cell(model, task, "n/a", str(error))
    except DataMissingError as error:
        return Cell(model, task, "no data", str(error))
    except OclBenchError as error:
        return Cell(model, task, "failed", str(error))
    except Exception as error:  # one cell must not take the others with it; the error is printed and counted
        return Cell(model, task, "failed", f"{type(error).__name__}: {error}")
    return Cell(model, task, "failed samples" if result.counts.failed else "ok", "", result)


def _opened(plan: Plan) -> dict[str, Any]:
    return {"data": plan.data, "train": plan.train}


def _line(cell: Cell, main: str) -> str:
    if cell.result is None:
        return f"{cell.task} / {cell.model}: {cell.status} ({' '.join(cell.text.split())})"
    value = cell.result.metrics[main].value
    number = "not valid" if value is None else f"{value:.3f}"
    return f"{cell.task} / {cell.model}: {main} {number}{' (reused)' if cell.result.reused else ''}"


def exit_code_of(cells: Sequence[Cell]) -> int:
    """1 when a cell failed, 2 when there is one cell and it does not fit, else 0."""
    if len(cells) == 1 and cells[0].status == "n/a":
        return 2
    return int(any(cell.failed for cell in cells))
