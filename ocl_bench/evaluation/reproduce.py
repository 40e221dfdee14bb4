"""Compute a stored result again, and compare every number."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import DataMissingError, UsageError
from ..results.config import read_config
from ..results.differences import differences
from ..results.record import Result, read_result
from ..results.store import rows_of, rows_problem
from .plan import Plan, make_plan
from .run import run

ROUNDING = 1e-6
"""Largest difference of a value that counts as rounding: other threads and devices add floats in another order."""

_NOT_IN_A_RESULT = ("model", "task", "data_root", "checkpoint", "boxes", "ids", "name", "training_seed", "supervision")
"""Options that only the file beside a result holds: where things are, and what the caller says of them."""


@dataclass(frozen=True)
class Reproduction:
    """A stored result, and the same evaluation now.

    Attributes:
        stored, now: the two results. The files of the second are not kept.
        differences: value now minus stored value, by metric.
        same_rows: whether the rows of all samples are equal bit for bit; None where the stored ones are missing.
    """

    stored: Result
    now: Result
    differences: dict[str, float]
    same_rows: bool | None

    @property
    def largest(self) -> tuple[str, float]:
        """The metric that differs most, and by how much."""
        return max(((name, abs(value)) for name, value in self.differences.items()), key=lambda entry: entry[1])

    @property
    def verdict(self) -> str:
        """`equal` bit for bit, `rounding` when no metric differs by more than 1e-6, else `different`."""
        largest = self.largest[1]
        if largest == 0 and self.same_rows is not False:
            return "equal"
        return "rounding" if largest <= ROUNDING else "different"

    @property
    def changes(self) -> list[str]:
        """What is not as it was: device, threads and versions, each as `threads 4 -> 1`."""
        then, now = (
            {"suite": one.identity.suite_version, **one.setup.model_dump(exclude={"versions"}), **one.setup.versions}
            for one in (self.stored, self.now)
        )
        return [f"{name} {then[name]} -> {now.get(name, 'none')}" for name in then if then[name] != now.get(name)]


def reproduce(path: str | Path, *, progress: bool = True, **over: Any) -> Reproduction:
    """Evaluate again what a result is of, heads and banks too, and write nothing.

    Arguments and errors are those of `plan_again`.
    """
    stored, plan = read_result(path), plan_again(path, progress=progress, **over)
    with tempfile.TemporaryDirectory() as scratch:  # `run` always writes a result
        now = run(plan, results=scratch, progress=progress, force=True)
        same_rows = None if rows_problem(stored) else _equal_rows(stored, now)
    return Reproduction(stored, now, differences(stored, now), same_rows)


def plan_again(path: str | Path, *, progress: bool = True, **over: Any) -> Plan:
    """The plan that a stored result is of.

    Settings are those of the result. Where the model, its weights and the data lie, the YAML file beside the result
    says; a bundled model needs none.

    Args:
        path: result JSON.
        progress: whether to show a progress bar.
        over: arguments of `make_plan` that go over the recorded ones, None for none: another `data_root` or `device`.

    Raises:
        UsageError: the model or its weights are not found, or what is found is not what was evaluated.
        DataMissingError: the data are not found.
    """
    path = Path(path)
    stored = read_result(path)
    beside = path.with_suffix(".yaml")
    said = read_config(beside) if beside.is_file() else {}
    arguments = _recorded(stored) | {name: said[name] for name in _NOT_IN_A_RESULT if name in said}
    arguments |= {name: value for name, value in over.items() if value is not None}
    if "model" not in arguments:
        raise UsageError(f"{path}: does not say where model {stored.model.name} is; give --model path.py:build")
    if stored.data.listed is not None and "ids" not in arguments:
        raise UsageError(f"{path}: is of {stored.data.listed} listed samples; give --ids FILE")
    plan = make_plan(arguments.pop("model"), arguments.pop("task"), progress=progress, **arguments)
    _check(path, stored, plan)
    return plan


def _recorded(stored: Result) -> dict[str, Any]:
    """The arguments of `make_plan` that a result itself records."""
    return {
        **({"model": stored.model.name} if stored.model.card else {}),
        "task": stored.task.name,
        "options": stored.model.options,
        "noise_seeds": stored.seeds.noise,
        "limit": None if stored.data.listed is not None else stored.data.limit,
        "split": stored.data.split,
        "stand_in_seed": stored.data.stand_in_seed,
        "device": stored.setup.device,
        "batch_size": stored.setup.batch_size,
    }


def _check(path: Path, stored: Result, plan: Plan) -> None:
    """Raise DataMissingError or UsageError where the plan is not of what was evaluated."""
    then, now = stored.data, plan.data_section
    if (then.kind, then.revision, then.ids_sha256) != (now.kind, now.revision, now.ids_sha256):
        found = f"found are {now.kind} data, revision {now.revision}"
        raise DataMissingError(
            f"{path}: was scored on other data ({then.kind}, revision {then.revision}; {found}); give --data-root"
        )
    pairs = {
        "the task card": (stored.task.hash, plan.task.hash),
        "the weights": (stored.model.checkpoint_sha256, plan.model.checkpoint_sha256),
        "the code of the model": (stored.model.code_sha256, plan.model.code_sha256),
        "the state of the model": (stored.model.state, plan.model.state),
    }
    if changed := [name for name, (before, after) in pairs.items() if before != after]:
        raise UsageError(
            f"{path}: {', '.join(changed)} found now differ from those of the result; give --task, --model or "
            "--checkpoint, or evaluate again"
        )


def _equal_rows(stored: Result, now: Result) -> bool:
    """Whether the stored columns of all rows are equal bit for bit."""
    before, after = rows_of(stored), rows_of(now)
    return set(before) <= set(after) and before.equals(after[list(before)])
