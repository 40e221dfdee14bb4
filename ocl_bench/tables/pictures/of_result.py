"""Pictures of what a model predicted for the samples of a result, which are predicted again where it is needed."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL import Image

from ...core.errors import UsageError
from ...core.plot_style import import_matplotlib
from ...evaluation.heads import with_head
from ...evaluation.loop import Runner
from ...evaluation.model_diagnosis import left_as_found
from ...evaluation.plan import Plan
from ...evaluation.reproduce import plan_again
from ...evaluation.supplied.score import replay_plan
from ...evaluation.video_loop import VideoRunner
from ...metrics import find_metric
from ...results.record import Result
from ...results.store import rows_of
from .neighbours import SHOWN, Query, write_neighbours
from .overlays import Panel, choose, tiles, write_overlays
from .storyboard import Strip, chosen_frames, write_storyboard

if TYPE_CHECKING:
    import pandas


def sample_pictures(result: Result, count: int = 3, **where: Any) -> list[Image.Image]:
    """One picture for each of some samples, from the best to the worst one and evenly spread between them.

    A picture has image, truth and prediction side by side; of a video, frames below each other; of k-NN, a query and
    its neighbours. Predictions are those that the run saved (`save_predictions`); else they are made again.

    Args:
        result: a result that was computed or read.
        count: number of pictures at most.
        where: where things are now, as in `reproduce`: `data_root`, `task`, and `model`, which for a live model is
            the model itself.

    Raises:
        UsageError: the model or its task is not found, or is another one than that of the result; or its task has no
            pictures.
        DataMissingError: the data are not found.
    """
    if count < 1:
        raise UsageError(f"pictures: {count} is no number of pictures; give 1 or more")
    with left_as_found(where.get("model")):
        return _sample_pictures(result, count, _plan_of(result, where))


def _sample_pictures(result: Result, count: int, plan: Plan) -> list[Image.Image]:
    plan = with_head(plan)
    if plan.family.picture == "none":
        raise UsageError(f"task {plan.task.name}: predictions of {plan.family.name} have no picture")
    main, values = _per_image(plan, rows_of(result))
    best_first = values.sort_values(ascending=find_metric(main).direction < 0, kind="stable")
    chosen = best_first.iloc[np.unique(np.linspace(0, len(values) - 1, min(count, len(values))).round().astype(int))]
    if plan.family.picture == "masks":
        panels = {panel.id: panel for panel in _panels(plan, chosen)}
        return [Image.fromarray(np.hstack(tiles(panels[name]))) for name in map(str, chosen.index) if name in panels]
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "picture.png"
        pictures = []
        for name in map(str, chosen.index):
            if plan.family.picture == "storyboard":
                write_storyboard(path, [_strip(plan, "", name, chosen[name])], metric=main, title=_title(plan, result))
            else:
                write_neighbours(path, _queries(plan, [name]), title=_title(plan, result))
            with Image.open(path) as picture:
                pictures.append(picture.convert("RGB"))
    return pictures


def _plan_of(result: Result, where: dict[str, Any]) -> Plan:
    """The plan that gives the predictions of a result: of its saved ones, or of the model that made them."""
    if result.path is None:
        raise UsageError("pictures: this result was not written, so that its samples are not known")
    # What was saved for a task with a head gives no outputs without it.
    if "model" not in where and result.fit is None and result.path.with_suffix(".predictions").is_dir():
        return replay_plan(result.path, **{name: where[name] for name in ("task", "data_root") if name in where})[1]
    return plan_again(result.path, progress=False, **where)


def write_picture(plan: Plan, result: Result, redraw: bool) -> Path | None:
    """Draw the best, median and worst samples beside the result; only these few are predicted again.

    None where there is nothing to draw. Raises MissingPackageError without matplotlib.
    """
    assert result.path is not None
    path = result.path.with_suffix(".png")
    if path.is_file() and not redraw:
        return path
    if plan.family.picture == "none":
        return None
    main, rows = _per_image(plan, rows_of(result))
    if rows.empty:
        return None
    import_matplotlib()  # before anything is predicted
    plan, title, direction = with_head(plan), _title(plan, result), find_metric(main).direction
    if plan.family.picture == "masks":
        indices = sorted({i for chosen in choose(list(rows), direction=direction).values() for i in chosen})
        panels = _panels(plan, rows.iloc[indices])
        return write_overlays(path, panels, metric=main, title=f"{title}, {main}", direction=direction)
    if plan.family.picture == "storyboard":
        sections = choose(list(rows), per_section=1, direction=direction)
        strips = [
            _strip(plan, section, str(rows.index[index]), float(rows.iloc[index]))
            for section, indices in sections.items()
            for index in indices
        ]
        return write_storyboard(path, strips, metric=main, title=title)
    return write_neighbours(path, _queries(plan, _hits_and_misses(rows)), title=f"{title}, {main}")


def _title(plan: Plan, result: Result) -> str:
    return f"{result.model.name} on {plan.task.name} (data: {result.data.kind})"


def _panels(plan: Plan, values: pandas.Series) -> list[Panel]:
    """Images with their masks. values: of the metric by sample id; ids that fail now are left out."""
    wanted = {str(name): float(value) for name, value in values.items()}
    positions = [position for position, sample_id in enumerate(plan.data.ids) if sample_id in wanted]
    panels = []
    for start in range(0, len(positions), plan.batch_size):
        runner = Runner(plan)
        items, _ = runner.read(positions[start : start + plan.batch_size])
        predicted, outputs, _ = runner.outputs(items, plan.noise_seeds[0])
        for item, output in zip(predicted, outputs, strict=True):
            labels, truth = plan.adapter.picture(output, item.truth)
            panels.append(Panel(item.id, wanted[item.id], item.pixels, truth, labels))
    return panels


def _strip(plan: Plan, section: str, name: str, value: float) -> Strip:
    """Some frames of a video with their masks."""
    runner = VideoRunner(plan)
    video = runner.video(plan.data.ids.index(name))
    wanted, frames = set(chosen_frames(len(video))), []
    # All clips run, because the state of a model goes from clip to clip; only some frames are drawn.
    followed = runner.shown(video, plan.noise_seeds[0], runner.adapter.tally(plan.task))
    for number, (item, output) in enumerate(followed):
        if number in wanted:
            labels, truth = plan.adapter.picture(output, item.truth)
            frames.append((item.pixels, truth, labels))
    images, truth, prediction = (np.stack(part) for part in zip(*frames, strict=True))
    return Strip(
        section, video.id, value, images, truth, prediction, tuple(sorted(wanted)), runner.adapter.alone or None
    )


def _hits_and_misses(rows: pandas.Series) -> list[str]:
    """Up to four queries with the right class and four with a wrong one, from all the data."""
    names = []
    for hit in (True, False):
        # The mean over noise seeds of 0 and 1 can lie between them.
        ids = [str(sample_id) for sample_id in rows.index[(rows >= 0.5) == hit]]
        names += [ids[k * len(ids) // 4] for k in range(4)] if len(ids) >= 4 else ids
    return names


def _queries(plan: Plan, ids: Sequence[str]) -> list[Query]:
    """Queries with their nearest neighbours."""
    from ...families.knn import Knn

    train = plan.train
    assert train is not None
    runner, adapter, names = Runner(plan), cast(Knn, plan.adapter), train.categories
    bank = Runner(replace(plan, data=train))
    queries = []
    for start in range(0, len(ids), plan.batch_size):
        chosen = ids[start : start + plan.batch_size]
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
    return queries


def _per_image(plan: Plan, rows: pandas.DataFrame) -> tuple[str, pandas.Series]:
    """A metric with values of single images, and its values by sample id: the main metric if it has any."""
    names = [plan.task.main, *(name for name in plan.task.metrics if name in rows and name != plan.task.main)]
    columns = [(name, rows.groupby("id", sort=False)[name].mean().dropna()) for name in names if name in rows]
    if not any(len(values) for _, values in columns):
        values = plan.family.image_values(rows)
        if values is not None:
            return str(values.name), values
    return next(((name, values) for name, values in columns if len(values)), columns[0])
