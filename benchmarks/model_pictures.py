"""Pictures of the same six scenes for every bundled model that gives masks.

    python benchmarks/model_pictures.py --out leaderboards/pictures

Each model is evaluated on the first six embedded test scenes of `clevrtex`, on the CPU. Its saved segments become one
strip, in the colours of the objects that they match. Images and truth are two more strips, which all models share.
`pictures.json` records key, checkpoint and commit of each. Run it again after a model, its options or the scenes have
changed; a test asks for it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ocl_bench import evaluate
from ocl_bench.data.transforms import nearest
from ocl_bench.pages.figures.runs import pixels_of, segments_of
from ocl_bench.pages.report.run import Run, open_run
from ocl_bench.pages.site.model_pictures import GAP, IMAGES, RECORD, SAMPLES, SIDE, TASK, TRUTH, pictured_names
from ocl_bench.tables.pictures.overlays import predicted_colours, solid, truth_colours

MOST_BYTES = 12_000
"""Largest file of a strip."""


def run_of(name: str, results: Path) -> Run:
    """Evaluate a model on the scenes."""
    result = evaluate(name, TASK, limit=SAMPLES, device="cpu", results=results, save_predictions=True, progress=False)
    if result.data.kind != "embedded" or result.counts.scored != SAMPLES:
        raise SystemExit(f"{name}: {result.counts.scored} samples of {result.data.kind} data; unset OCL_BENCH_DATA")
    return open_run(result, progress=False)


def draw(run: Run) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Images, truth and segments of a run, (SIDE, SIDE, 3) uint8 each."""
    assert run.data is not None and run.task is not None
    images, truths, found = [], [], []
    for index in range(SAMPLES):
        sample = run.data.reader[index]
        image, truth = pixels_of(sample, run.task, SIDE)
        truth = nearest(truth, (SIDE, SIDE))
        segments = nearest(segments_of(run, sample, sample.id), (SIDE, SIDE))
        images.append(image)
        truths.append(solid(truth, truth_colours(truth)))
        found.append(solid(segments, predicted_colours(truth, segments)))
    return images, truths, found


def write_strip(path: Path, pictures: Sequence[np.ndarray], quality: int | None = None) -> None:
    """Write pictures beside each other with transparent gaps.

    Args:
        path: WebP file.
        pictures: (SIDE, SIDE, 3) uint8 each.
        quality: of lossy WebP; None for a lossless file, which noise gets at half the size or less.
    """
    strip = np.zeros((SIDE, len(pictures) * (SIDE + GAP) - GAP, 4), np.uint8)
    for number, picture in enumerate(pictures):
        left = number * (SIDE + GAP)
        strip[:, left : left + SIDE] = np.dstack([picture, np.full((SIDE, SIDE), 255, np.uint8)])
    options = {"lossless": True, "quality": 100} if quality is None else {"quality": quality}
    Image.fromarray(strip).save(path, "WEBP", method=6, **options)
    while path.stat().st_size > MOST_BYTES:
        strip = strip[::2, ::2]
        Image.fromarray(strip).save(path, "WEBP", method=6, **options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("leaderboards/pictures"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.webp"):
        old.unlink()
    models = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in pictured_names():
            run = run_of(name, Path(scratch))
            assert run.data is not None
            images, truths, found = draw(run)
            write_strip(out / f"{name}.webp", found)
            identity, main_metric, ids = run.result.identity, run.result.task.main, list(run.data.ids)
            models[name] = {
                "key": identity.key,
                "checkpoint_sha256": run.result.model.checkpoint_sha256,
                "commit": f"{identity.commit}{'-dirty' if identity.dirty else ''}",
                "values": [round(float(run.rows[main_metric][one]), 6) for one in ids],
            }
            print(f"{name}: {(out / f'{name}.webp').stat().st_size / 1e3:.1f} kB")
    write_strip(out / IMAGES, images, quality=35)
    write_strip(out / TRUTH, truths)
    content = {"task": TASK, "main": main_metric, "ids": ids, "models": models}
    (out / RECORD).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(f"{sum(path.stat().st_size for path in out.iterdir()) / 1e3:.0f} kB together")


if __name__ == "__main__":
    main()
