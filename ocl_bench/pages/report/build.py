"""Build the report of a run, or of two runs on the same samples: a page, and parts beside it for many samples."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ...cards.task import TaskSpec
from ...core.plot_style import PALETTE
from ...evaluation.references import one_of_each, stored_references
from ...metrics.mistakes import KINDS
from ...results.record import Result
from ...tables.horizon import of_the_model
from ..render import render, write_page
from .chart import line_chart
from .diagnosis import diagnosis
from .floors import best_floor
from .head import head
from .horizon import horizons
from .pair import comparison
from .run import Run, open_run
from .samples import columns, mistake_columns, pictures
from .strata import strata
from .views import COUNTED, PICTURES
from .views.base import Saved
from .views.classes import RIGHT, WRONG, confusion
from .views.segments import SHOWN_FRAMES

INLINE_PICTURES = 1000
"""Most pictures that lie in the page itself: of images one each, of videos their frames."""
PART_BYTES = 4_000_000
"""Most characters of pictures in one file, apart from a single sample that is larger."""

_STYLES = ("report.css",)
_SCRIPTS = ("draw.js", "charts.js", "views.js", "explorer.js", "pair.js", "report.js")


def report(
    run: str | Path | Result,
    other: str | Path | Result | None = None,
    *,
    out: str | Path = "report.html",
    task: str | Path | TaskSpec | None = None,
    data_root: str | Path | None = None,
    progress: bool = True,
) -> Path:
    """Write the report of a run as one HTML file that needs no network (docs/report.md).

    Numbers come from the result and its rows. Pictures of samples also need the data, which are opened as `evaluate`
    opens them, and the predictions that `--save-predictions` kept; the page says what is missing. The pictures of more
    than 1000 images, or 83 videos of 12 frames, lie in the folder `<out without suffix>.files` beside the page.

    Args:
        run: a result, its JSON file, or the folder with it.
        other: a second run on the same samples, with which the first is compared.
        out: the page.
        task: card of the run, when it is not a bundled one.
        data_root: folder of the data set, as in `evaluate`, or the `.npz` file that `score` read.
        progress: whether to show progress bars.

    Returns:
        The path of the page.

    Raises:
        UsageError: a result or its rows cannot be read, or the two runs are not of the same samples.
        DataMissingError: `data_root` was given, but the data are not there.
    """
    runs = [open_run(place, task=task, data_root=data_root, progress=progress) for place in (run, other) if place]
    compared = comparison(*runs) if len(runs) > 1 else None  # first, as it refuses runs that do not belong together
    out = Path(out)
    saved = [Saved(one, one.predictions, one.result.seeds.noise[0]) if one.predictions else None for one in runs]
    names = {one.name for one in runs}
    stored = stored_references(runs[0].result, runs[0].folders, runs[0].task)
    floor = best_floor(runs[0], stored, names) if runs[0].family.view in COUNTED else None
    beside = Saved(floor, floor.predictions, floor.result.seeds.noise[0]) if floor and floor.predictions else None
    inline = runs[0].result.counts.attempted * PICTURES.get(runs[0].family.view, 1) <= INLINE_PICTURES
    # In files, samples of similar value lie together: the first screen then needs one file and not all of them.
    numbers = columns(runs, by_value=not inline)
    drawn = pictures(runs, numbers["ids"], saved, beside, progress=progress)
    inside, files = _placed(drawn, inline, out)
    content = {**report_content(runs, one_of_each(stored, names), saved, beside), "comparison": compared}
    of_steps = horizons(runs, one_of_each(of_the_model(stored, names), names))
    content["strata"] = [line_chart(one) for one in of_steps] + content["strata"]
    data = {
        "runs": [one.name for one in runs],
        "unit": runs[0].family.unit,
        "view": runs[0].family.view,
        "main": runs[0].result.task.main,
        "kinds": KINDS if runs[0].family.view != "classes" else (RIGHT, WRONG),
        "palette": PALETTE.tolist(),
        "samples": {**numbers, "mistakes": mistake_columns(numbers["ids"], saved)},
        "pictures": inside,
        "files": files,
    }
    html = render(
        "report.html.j2", {"report": content}, styles=_STYLES, scripts=_SCRIPTS, data=data, frames=bool(files)
    )
    return write_page(out, html)


def report_content(
    runs: Sequence[Run], references: Sequence[Result], saved: Sequence[Saved | None], floor: Saved | None
) -> dict[str, Any]:
    """Everything of a report that does not depend on single samples. saved, floor: after all samples were seen."""
    below = diagnosis(floor.tally, _slots(floor.run)) if floor else None
    found = [diagnosis(one.tally, _slots(one.run), below) if one else None for one in saved]
    frames = f" Counted are the {SHOWN_FRAMES} frames of each video that this page shows, or all of a shorter one."
    return {
        **head(runs, references),
        "floor": floor.run.name if floor and below else "",
        "counted": frames if runs[0].family.view == "frames" else "",
        "diagnosis": [{"name": run.name, **one} for run, one in zip(runs, found, strict=True) if one],
        "confusion": _confusion(runs),
        "strata": [line_chart(one) for one in strata(runs, references)],
    }


def _confusion(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The confusion of classes of each run; empty for tasks without classes."""
    found = [(run.name, confusion(run)) for run in runs]
    return [{"name": name, **one} for name, one in found if one is not None]


def _slots(run: Run) -> int | None:
    """Number of slots of the model, where its options say it."""
    number = run.result.model.options.get("slots")
    return number if isinstance(number, int) else None


def _placed(
    drawn: Iterator[dict[str, Any] | None], inline: bool, out: Path
) -> tuple[list[dict[str, Any] | None], list[dict[str, Any]]]:
    """The pictures that lie in the page, and the files that hold them otherwise: name and first sample of each."""
    folder = out.with_suffix(".files")
    for old in folder.glob("part-*.html"):  # of an earlier report
        old.unlink()
    if inline:
        return list(drawn), []
    folder.mkdir(parents=True, exist_ok=True)
    files: list[dict[str, Any]] = []
    first = 0
    for part in parts(drawn):
        if any(one is not None for one in part):
            path = folder / f"part-{len(files):03d}.html"
            write_page(path, render("part.html.j2", {}, scripts=("part.js",), data=part, bare=True))
            files.append({"file": f"{folder.name}/{path.name}", "first": first, "count": len(part)})
        first += len(part)
    return [], files


def parts(drawn: Iterable[Any]) -> Iterator[list[Any]]:
    """The pictures in groups, each as large as `PART_BYTES` allows."""
    part: list[Any] = []
    size = 0
    for one in drawn:
        length = len(json.dumps(one))
        if part and size + length > PART_BYTES:
            yield part
            part, size = [], 0
        part.append(one)
        size += length
    if part:
        yield part
