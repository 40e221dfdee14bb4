"""Figures of a run with saved predictions: the grid of masks, and the storyboard of videos."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from ...cards.task import TaskSpec
from ...core.errors import UsageError
from ...core.types import Sample
from ...data.transforms import prepare
from ...evaluation.references import one_of_each, stored_references
from ...evaluation.supplied.label_maps import read_prediction
from ...families.files import prediction_path
from ...metrics import find_metric
from ...tables.horizon import Curve, curves, of_the_model
from ...tables.pictures.curves import write_curves
from ...tables.pictures.overlays import Panel, choose, write_overlays
from ...tables.pictures.storyboard import Strip, chosen_frames, write_storyboard
from ..report.run import Run, open_run
from ..report.strata import tables_of
from ..report.views.base import scored_clip

SIDE = 256
"""Side in pixels of the pictures of a figure."""


def run_figures(
    place: Path,
    out: Path,
    formats: tuple[str, ...],
    card: str | Path | TaskSpec | None = None,
    data_root: Path | None = None,
) -> list[Path]:
    """Draw the best, median and worst samples of a run from its saved predictions, and its curves; no model runs.

    Args:
        place: a result file, or the folder with it.
        out: folder of the figures.
        formats: suffixes of the files.
        card: of the task of the run, when it is not a bundled one.
        data_root: folder of the data set, as in `evaluate`.

    Raises:
        UsageError: predictions or data are missing, or the family draws neither masks nor videos.
    """
    run = open_run(place, task=card, data_root=data_root)
    if run.predictions is None or run.data is None or run.task is None:
        raise UsageError(f"{place}: {' '.join(run.notes)}")
    if run.family.view not in _DRAW:
        known = ", ".join(sorted(_DRAW))
        raise UsageError(f"{place}: figures of runs are drawn of {known}; {run.task.family} has {run.family.view}")
    stem = f"{run.task.name}-{Path(str(run.result.path)).stem}"
    written = [_DRAW[run.family.view](run, out / f"{stem}.{kind}") for kind in formats]
    if found := curves_of(run):
        written += [write_curves(out / f"{stem}-steps.{kind}", found, title=_title(run)) for kind in formats]
    return written


def curves_of(run: Run) -> dict[str, list[Curve]]:
    """The curves of a run of visual prediction, with the stored floors and ceilings of its model; empty for others."""
    references = of_the_model(stored_references(run.result, run.folders, run.task), [run.name])
    tables = tables_of(one_of_each(references, [run.name]))
    return curves([(run.name, "run", run.rows), *tables])


def segments_of(run: Run, sample: Sample, name: str) -> np.ndarray:
    """The saved segments (H, W) of an image or a frame, at the size at which the task scores."""
    assert run.predictions is not None and run.task is not None
    return read_prediction(prediction_path(run.predictions, name, run.result.seeds.noise[0]), sample, run.task)


def pixels_of(sample: Sample, task: TaskSpec, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Image (S, S, 3) uint8 as the protocol crops it, S = `side`, and the truth as it is scored."""
    image, truth = prepare(sample, task.protocol, side)
    return (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8), truth.labels


def _grid(run: Run, path: Path) -> Path:
    """Image, truth and prediction of the best, median and worst images."""
    assert run.data is not None and run.task is not None
    main = run.per_sample[0]
    direction, values = find_metric(main).direction, run.rows[main]
    position = {sample_id: index for index, sample_id in enumerate(run.data.ids)}
    panels = []
    for chosen in choose(list(values), direction=direction).values():
        for index in chosen:
            sample = run.data.reader[position[str(values.index[index])]]
            image, truth = pixels_of(sample, run.task)
            panels.append(
                Panel(sample.id, float(values.iloc[index]), image, truth, segments_of(run, sample, sample.id))
            )
    return write_overlays(path, panels, metric=main, title=_title(run), direction=direction)


def _storyboard(run: Run, path: Path) -> Path:
    """Frames of the best, the median and the worst video."""
    assert run.data is not None and run.task is not None
    main = run.per_sample[0]
    direction, values = find_metric(main).direction, run.rows[main]
    position = {sample_id: index for index, sample_id in enumerate(run.data.ids)}
    strips = []
    for section, chosen in choose(list(values), per_section=1, direction=direction).items():
        for index in chosen:
            video, seen = scored_clip(run.task, run.data, run.data.reader[position[str(values.index[index])]])
            numbers = chosen_frames(len(video))
            frames = [video.frames[number] for number in numbers]
            images, truth = zip(*(pixels_of(frame, run.task) for frame in frames), strict=True)
            names = [f"{video.id}/{video.names[number]}" for number in numbers]
            found = [segments_of(run, frame, name) for frame, name in zip(frames, names, strict=True)]
            value = float(values.iloc[index])
            stacks = np.stack(images), np.stack(truth), np.stack(found)
            strips.append(Strip(section, video.id, value, *stacks, numbers, seen))
    return write_storyboard(path, strips, metric=main, title=_title(run))


def _title(run: Run) -> str:
    return f"{run.name} on {run.result.task.name} (data: {run.result.data.kind})"


_DRAW: Mapping[str, Callable[[Run, Path], Path]] = {"masks": _grid, "frames": _storyboard}
"""How the samples of a family are drawn, by the name of its view."""
