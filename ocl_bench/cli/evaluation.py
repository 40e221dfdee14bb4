"""Evaluate for `ocl-bench eval`, and add reference rows, a picture, the leaderboard and the next command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..core.errors import UsageError
from ..core.log import logger
from ..core.paths import bundled, results_root
from ..evaluation.heads import with_head
from ..evaluation.loop import Runner
from ..evaluation.plan import Plan, make_plan
from ..evaluation.references import CHEAP, reference_results
from ..evaluation.run import run
from ..metrics import find_metric
from ..results.record import Result, read_rows
from ..training.follow_up import flags

if TYPE_CHECKING:
    import pandas


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
            )
            run(replace(other, listed=plan.listed), results=root, save_predictions=save_predictions)
        except UsageError:
            continue  # a floor without the fields that this task needs
    return reference_results(result, [root], plan.task)


def _picture(plan: Plan, result: Result, redraw: bool) -> Path | None:
    """Draw the best, median and worst samples beside the result; only these few are predicted again."""
    assert result.path is not None
    path = result.path.with_suffix(".png")
    if path.is_file() and not redraw:
        return path
    if plan.family.picture == "none":
        return None
    main, rows = _per_image(plan, read_rows(result.path))
    draw = {"masks": _overlays, "storyboard": _storyboard, "neighbours": _neighbours}[plan.family.picture]
    return None if rows.empty else draw(plan, result, path, main, rows)


def _title(plan: Plan, result: Result) -> str:
    return f"{result.model.name} on {plan.task.name} (data: {result.data.kind})"


def _overlays(plan: Plan, result: Result, path: Path, main: str, rows: pandas.Series) -> Path:
    """Draw masks of images. rows: values of the metric `main` by sample id."""
    from ..tables.pictures.overlays import Panel, choose, write_overlays

    direction = find_metric(main).direction
    indices = sorted({i for chosen in choose(list(rows), direction=direction).values() for i in chosen})
    values = {str(rows.index[i]): float(rows.iloc[i]) for i in indices}
    positions = [position for position, sample_id in enumerate(plan.data.ids) if sample_id in values]
    panels = []
    plan = with_head(plan)
    for start in range(0, len(positions), plan.batch_size):
        runner = Runner(plan)
        items, _ = runner.read(positions[start : start + plan.batch_size])
        # A sample that fails in this second prediction is left out of the picture.
        predicted, outputs, _ = runner.outputs(items, plan.noise_seeds[0])
        for item, output in zip(predicted, outputs, strict=True):
            labels, truth = plan.adapter.picture(output, item.truth)
            panels.append(Panel(item.id, values[item.id], item.pixels, truth, labels))
    title = f"{_title(plan, result)}, {main}"
    return write_overlays(path, panels, metric=main, title=title, direction=direction)


def _storyboard(plan: Plan, result: Result, path: Path, main: str, rows: pandas.Series) -> Path:
    from ..evaluation.video_loop import VideoRunner
    from ..tables.pictures.overlays import choose
    from ..tables.pictures.storyboard import Strip, chosen_frames, write_storyboard

    plan = with_head(plan)
    runner, strips = VideoRunner(plan), []
    for section, indices in choose(list(rows), per_section=1, direction=find_metric(main).direction).items():
        for index in indices:
            video = runner.video(plan.data.ids.index(str(rows.index[index])))
            wanted, frames = set(chosen_frames(len(video))), []
            # All clips run, because the state of a model goes from clip to clip; only some frames are drawn.
            followed = runner.shown(video, plan.noise_seeds[0], runner.adapter.tally(plan.task))
            for number, (item, output) in enumerate(followed):
                if number in wanted:
                    labels, truth = plan.adapter.picture(output, item.truth)
                    frames.append((item.pixels, truth, labels))
            images, truth, prediction = (np.stack(part) for part in zip(*frames, strict=True))
            value = float(rows.iloc[index])
            strips.append(Strip(section, video.id, value, images, truth, prediction, tuple(sorted(wanted))))
    return write_storyboard(path, strips, metric=main, title=_title(plan, result))


def _neighbours(plan: Plan, result: Result, path: Path, main: str, rows: pandas.Series) -> Path:
    """Draw the neighbours of up to four queries with the right class and four with a wrong one, from all the data."""
    from ..families.knn import Knn
    from ..tables.pictures.neighbours import SHOWN, Query, write_neighbours

    plan, train = with_head(plan), plan.train
    assert train is not None
    runner, adapter, names = Runner(plan), cast(Knn, plan.adapter), train.categories
    bank = Runner(replace(plan, data=train))
    queries = []
    for hit in (True, False):
        # The mean over noise seeds of 0 and 1 can lie between them.
        ids = [str(sample_id) for sample_id in rows.index[(rows >= 0.5) == hit]]
        chosen = [ids[k * len(ids) // 4] for k in range(4)] if len(ids) >= 4 else ids
        items, _ = runner.read([plan.data.ids.index(sample_id) for sample_id in chosen])
        predicted, outputs, _ = runner.outputs(items, plan.noise_seeds[0])
        for item, output in zip(predicted, outputs, strict=True):
            why, label = adapter.explain(output), item.truth.label
            nearest, _ = bank.read([int(position) for position in why.positions[:SHOWN]])
            labels = [neighbour.truth.label for neighbour in nearest]
            classes = [number for number in (label, why.predicted, *labels) if number is not None]
            true_name, predicted_name, *others = [names.get(number, str(number)) for number in classes]
            pictures = np.stack([neighbour.pixels for neighbour in nearest])
            cosines = tuple(float(value) for value in why.similarity)
            queries.append(Query(item.id, item.pixels, true_name, predicted_name, pictures, tuple(others), cosines))
    return write_neighbours(path, queries, title=f"{_title(plan, result)}, {main}")


def _per_image(plan: Plan, rows: pandas.DataFrame) -> tuple[str, pandas.Series]:
    """A metric with values of single images, and its values by sample id: the main metric if it has any."""
    names = [plan.task.main, *(name for name in plan.task.metrics if name in rows and name != plan.task.main)]
    columns = [(name, rows.groupby("id", sort=False)[name].mean().dropna()) for name in names if name in rows]
    if not any(len(values) for _, values in columns):
        values = plan.family.image_values(rows)
        if values is not None:
            return str(values.name), values
    return next(((name, values) for name, values in columns if len(values)), columns[0])


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
