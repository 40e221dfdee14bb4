"""Evaluate for `ocl-bench eval`, and add reference rows, a picture, the leaderboard and the next command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..core.errors import UsageError
from ..core.log import logger
from ..core.optional import MissingPackageError
from ..core.paths import bundled, results_root
from ..evaluation.launching import Launcher
from ..evaluation.matrix import MatrixCell, evaluate_matrix, expand, several
from ..evaluation.plan import Plan, make_plan
from ..evaluation.references import CHEAP, reference_results
from ..evaluation.run import run
from ..results.record import Result
from ..tables.pictures.of_result import write_picture
from ..training.follow_up import flags


@dataclass(frozen=True)
class EvaluationReport:
    """What `ocl-bench eval` prints. references: floors and ceilings; paths: written files by label, None for none."""

    result: Result
    references: list[Result]
    paths: dict[str, Path | None]
    next_command: str


def evaluate_and_report(
    model: Any,
    task: Any,
    *,
    results: Path | None = None,
    save_predictions: bool = False,
    force: bool = False,
    floors: bool = False,
    pictures: bool = True,
    **keywords: Any,
) -> EvaluationReport:
    """Evaluate, then gather everything that the command line prints.

    Args:
        model: a model, or its name.
        task: a task card, its name or its path.
        results: folder for results; by default the user's results root.
        save_predictions: keep the predictions beside the result.
        force: compute again even if the result is finished.
        floors: compute cheap floors that are not stored yet.
        pictures: draw the best, median and worst images.
        keywords: those of `make_plan`.

    Where the data come from and what is reused is logged.
    """
    plan = make_plan(model, task, **keywords)
    logger.info("%s", plan.data.note)
    if plan.model.untrained:
        text = "model %s has no bundled weights: these numbers are untrained; pass --checkpoint FILE"
        logger.warning(text, plan.model.name)
    root = results if results is not None else results_root()
    result = run(plan, results=root, save_predictions=save_predictions, force=force)
    if result.reused:
        made = f"{result.identity.created}, commit {result.identity.commit[:8] or 'unknown'}"
        logger.info("this result was finished before (%s); --force computes it again", made)
    references = reference_results(result, [root], plan.task)
    if floors:
        references = _with_floors(plan, result, references, root, save_predictions)
    elif not references:
        logger.info("no stored floors for these images; --floors computes the cheap ones")
    picture = _picture(plan, result, force or not result.reused) if pictures else None
    paths: dict[str, Path | None] = {
        "result": result.path,
        "per image": result.rows_path,
        "picture": picture,
    }
    if result.data.limit is None and plan.split is None:  # boards list whole splits; `ranks_with` has the other reasons
        paths["leaderboard"] = _leaderboard(plan, root)
    if save_predictions and result.path:
        paths["predictions"] = result.path.with_suffix(".predictions")
    return EvaluationReport(result, references, paths, _next_command(model, task, result, keywords))


def _picture(plan: Plan, result: Result, redraw: bool) -> Path | None:
    """Draw samples beside the result; None, and a line in the log, where matplotlib is not installed."""
    try:
        return write_picture(plan, result, redraw)
    except MissingPackageError as error:
        logger.info("no picture: %s", error)
        return None


def evaluate_several(
    model: str, task: str, launcher: str | None, jobs: int, job_options: Mapping[str, Any], **keywords: Any
) -> list[MatrixCell]:
    """Evaluate each model on each task, as `evaluate_matrix`.

    Args:
        model: names of models, as `expand` reads them.
        task: names of tasks.
        launcher: kind of a `Launcher`; None evaluates all in this process.
        jobs: of the launcher.
        job_options: of the launcher.
        keywords: of `evaluate_matrix`.

    Raises:
        UsageError: for options of one model with several, and as `evaluate_matrix`.
    """
    one_model = ("name", "training_seed", "supervision")
    if several(model) and any(keywords.get(name) is not None for name in one_model):
        raise UsageError("--name, --training-seed and --supervision are of one model; name one with --model")
    if job_options and launcher is None:
        raise UsageError("--job-option: is for --launcher slurm or local")
    chosen = Launcher(launcher, jobs, job_options) if launcher is not None else None
    return evaluate_matrix(expand(model, "model"), expand(task, "task"), launcher=chosen, **keywords)


def _with_floors(
    plan: Plan, result: Result, references: list[Result], root: Path, save_predictions: bool
) -> list[Result]:
    """Evaluate the cheap floors that are missing on the same images, and return all references.

    save_predictions: also those whose result is there without predictions, and keep these.
    """
    have = {reference.model.name for reference in references if not save_predictions} | {result.model.name}
    for name in CHEAP:
        if name in have:
            continue
        try:
            other = make_plan(
                name,
                plan.task,
                data=plan.data,
                train=plan.train,
                data_root=plan.config.get("data_root"),
                limit=plan.limit,
                split=plan.split,
                stand_in_seed=plan.stand_in_seed,
                noise_seeds=plan.noise_seeds,
                batch_size=plan.batch_size,
                workers=plan.workers,
            )
            run(replace(other, listed=plan.listed), results=root, save_predictions=save_predictions)
        except UsageError:
            continue  # a floor without the fields that this task needs
    return reference_results(result, [root], plan.task)


def _leaderboard(plan: Plan, root: Path) -> Path | None:
    """Build the board of this task from the committed results and those of the user, and return its CSV file."""
    from ..tables.leaderboard.build import build_leaderboard

    folders = list(dict.fromkeys([bundled("leaderboards") / "results", root]))
    written = build_leaderboard(folders, root / "leaderboards", plan.task)
    return next(path for path in written if path.suffix == ".csv")


def _next_command(model: Any, task: Any, result: Result, keywords: Mapping[str, Any]) -> str:
    """The command to try next: all images, then scenes that nobody has tuned to, then the leaderboard.

    It repeats what makes the model another one (checkpoint, options) and where the data are.
    """
    name = str(model) if isinstance(model, str) else "FILE.py:build"
    arguments = ["ocl-bench", "eval", "--model", name, "--task", str(task)]
    arguments += flags("option", keywords.get("options") or {})
    for option in ("checkpoint", "name", "training_seed", "supervision", "boxes"):
        if keywords.get(option) is not None:
            arguments += [f"--{option.replace('_', '-')}", str(keywords[option])]
    if keywords.get("data_root") is not None and result.data.kind != "embedded":
        arguments += ["--data-root", str(keywords["data_root"])]
    here = shlex.join(arguments)
    if result.data.limit is not None or result.data.listed is not None:
        return f"{here}   # all images"
    if result.data.kind == "embedded" and result.data.stand_in_seed is None and result.model.role == "model":
        return f"{here} --stand-in-seed 1   # scenes that nobody has tuned to"
    return f"ocl-bench leaderboard --task {result.task.name}"
