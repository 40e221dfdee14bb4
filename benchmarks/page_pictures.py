"""Draw the pictures of the families' pages: samples with truth and what a bundled model makes of them.

    python benchmarks/page_pictures.py --out docs/pictures

Each model scores a few embedded samples of a task; the samples that are drawn are spread evenly from the best to the
worst. CLEVRER's questions have no masks: its picture has frames of one video. The curves of visual prediction have the
floors and ceilings of the same model.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ocl_bench import evaluate
from ocl_bench.cards.names import get_task
from ocl_bench.data import open_data
from ocl_bench.results.store import rows_of
from ocl_bench.tables.horizon import curves
from ocl_bench.tables.pictures.curves import write_curves

WIDTH = 1200
"""Largest width of a picture in pixels; a page shows it at 900."""
GAP = 8
"""Pixels between pictures."""
MOST_BYTES = 120_000
"""Largest file."""
PAGES = {
    "discovery": ("clevrtex", "dias", 24, 4),
    "detection": ("coco-detection", "dias", 24, 4),
    "video": ("movi-c", "dias", 3, 1),
    "knn": ("imagenet-knn", "infonce-images", 32, 3),
    "segmentation": ("voc-segmentation", "slotcon", 24, 4),
    "recognition": ("coco-recognition", "dias", 24, 4),
    "prediction": ("clevrer-prediction", "slotcontrast-clevrer", 3, 1),
}
"""Task, model, scored samples and drawn samples of each page."""


def of_page(page: str, results: Path) -> Image.Image:
    """The drawn samples of a page's task. Masks stand in two columns; what is wider stands below each other."""
    task, model, limit, drawn = PAGES[page]
    result = evaluate(model, task, limit=limit, device="cpu", results=results, progress=False)
    return in_grid(result.pictures(drawn), columns=1 if page == "knn" else 2)


def of_steps(results: Path) -> Image.Image:
    """Curves over the horizon of the model of the page of visual prediction, its floors and its ceiling."""
    task, model, _, _ = PAGES["prediction"]
    tables = []
    for name, role in ((model, "run"), ("copy-last", "floor"), ("linear", "floor"), ("true-slots", "ceiling")):
        options = None if role == "run" else {"model": model}
        result = evaluate(name, task, limit=24, options=options, device="cpu", results=results, progress=False)
        tables.append((name, role, rows_of(result)))
    with Image.open(write_curves(results / "steps.png", curves(tables), title=f"{model} on {task}")) as picture:
        return picture.convert("RGB")


def of_video() -> Image.Image:
    """Six frames of the first video of CLEVRER's stand-in beside each other."""
    video = open_data(get_task("clevrer-prediction")).reader[0]
    chosen = np.linspace(0, len(video) - 1, 6).round().astype(int)
    frames = [Image.fromarray(video.frames[int(index)].image) for index in chosen]
    return in_grid([frame.resize((3 * frame.width, 3 * frame.height)) for frame in frames], columns=6)


OTHERS: dict[str, Callable[[Path], Image.Image]] = {
    "clevrer": lambda results: of_video(),
    "prediction-steps": of_steps,
}
"""Pictures that are no samples with masks."""


def in_grid(pictures: Sequence[Image.Image], columns: int) -> Image.Image:
    """Pictures of one size in rows of `columns`, on white."""
    width, height = (side + GAP for side in pictures[0].size)
    columns = min(columns, len(pictures))
    grid = Image.new("RGB", (width * columns - GAP, height * -(-len(pictures) // columns) - GAP), "white")
    for number, picture in enumerate(pictures):
        grid.paste(picture, (number % columns * width, number // columns * height))
    return grid


def write(path: Path, picture: Image.Image) -> None:
    """Write a WebP file of at most `WIDTH` pixels and `MOST_BYTES` bytes."""
    if picture.width > WIDTH:
        picture = picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)
    for quality in (85, 70, 55, 40):
        picture.save(path, quality=quality, method=6)
        if path.stat().st_size <= MOST_BYTES:
            return
    raise SystemExit(f"{path}: {path.stat().st_size} bytes, more than {MOST_BYTES}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    parser.add_argument("--page", action="append", choices=[*PAGES, *OTHERS], help="only this page; repeatable")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for page in arguments.page or [*PAGES, *OTHERS]:
            picture = OTHERS[page](Path(folder)) if page in OTHERS else of_page(page, Path(folder))
            write(arguments.out / f"{page}.webp", picture)
            print(f"{arguments.out / page}.webp: {picture.width} x {picture.height}", flush=True)


if __name__ == "__main__":
    main()
