"""Write the golden files of tier 0 anew, their earlier reasons kept: `python benchmarks/make_golden.py --reason "why"`.

The first 16 test scenes of the stand-in are stored as PNG in the official layout, so that the gate of the floors does
not depend on the renderer; the bundled model is measured on 64 rendered scenes, so that its gate does. The other
families are measured on rendered scenes, too: some floor or ceiling, and a bundled model. Only k-NN has stored images,
because its bank would take a minute to render.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from ocl_bench.cards.names import get_card, get_task
from ocl_bench.core.paths import bundled
from ocl_bench.data import open_data
from ocl_bench.tables.gate.golden import Tolerance, golden_path
from ocl_bench.tables.gate.recording import make_golden
from ocl_bench.tables.gate.regression import regress

TASK = "clevrtex"
STORED_SCENES = 16
RENDERED_SCENES = 64
EXACT = Tolerance(absolute=1e-9)
FLOORS = {
    "single-slot": EXACT,
    "grid": EXACT,
    "oracle": EXACT,
    "patch-oracle": EXACT,
    # Colours are clustered in float32: another processor may move a few border pixels.
    "kmeans": Tolerance(absolute=1e-3),
}
# What soft outputs may move one image's metric across batch sizes and processors, here allowed to the mean.
BUNDLED = {"dias": Tolerance(absolute=5e-3)}


MORE = {
    # Masks are equal on every processor; so is what a perfect prediction scores.
    ("coco-detection", "oracle"): (16, EXACT),
    ("coco-detection", "dias"): (32, Tolerance(absolute=1e-2)),
    ("cocostuff-segmentation", "grid"): (32, EXACT),
    # The head is fitted anew on the machine that checks.
    ("voc-segmentation", "encoder"): (32, Tolerance(absolute=2e-2)),
    ("voc-discovery", "oracle"): (16, EXACT),
    ("movi-c", "oracle"): (3, EXACT),
    ("movi-c", "dias"): (3, Tolerance(absolute=2e-2)),
    ("movi-c", "slotmatch"): (3, Tolerance(absolute=3e-2)),
    ("davis-2017", "grid"): (3, EXACT),
}
"""The other families, on rendered scenes: (task, model) -> images or videos, tolerance."""

KNN_TASK, KNN_MODEL = "imagenet-knn", "pixels"
KNN_BANK, KNN_QUERIES = 48, 24
KNN_TOLERANCE = Tolerance(absolute=1 / KNN_QUERIES + 1e-9)
"""One query: rounding on another processor may turn the order of two neighbours."""


def store_scenes(baseline: Path) -> None:
    """Copy the first test scenes of the stand-in below `baseline/scenes`, replacing what is there."""
    data = open_data(get_task(TASK), limit=STORED_SCENES)
    target = baseline / "scenes" / data.root.name
    shutil.rmtree(target, ignore_errors=True)
    files = sorted(path for path in data.root.rglob("*") if any(_belongs(path, i) for i in data.ids))
    for path in files:
        copy = target / path.relative_to(data.root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    size = sum(path.stat().st_size for path in files)
    print(f"{len(data.ids)} scenes, {len(files)} files, {size / 1e6:.2f} MB below {target}")


def _belongs(path: Path, sample_id: str) -> bool:
    """Image, mask and metadata of a scene; albedo, depth and others are not read and not stored."""
    return path.name in (f"{sample_id}.png", f"{sample_id}_flat.png", f"{sample_id}.json")


def store_knn_images(baseline: Path) -> None:
    """Copy a few images of bank and queries below `baseline/scenes/imagenet`, replacing what is there."""
    target = baseline / "scenes" / "imagenet"
    shutil.rmtree(target, ignore_errors=True)
    for split, count in (("train", KNN_BANK), ("val", KNN_QUERIES)):
        data = open_data(get_task(KNN_TASK), split=split, limit=count)
        for path in sorted((data.root / split).glob("*/*.JPEG")):
            copy = target / path.relative_to(data.root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def make_knn(out: Path, reason: str) -> None:
    """The golden file of k-NN."""
    store_knn_images(out)
    options = {"limit": KNN_QUERIES, "scenes": "scenes", "tolerance": KNN_TOLERANCE}
    print(make_golden(KNN_TASK, KNN_MODEL, out, reason=reason, **options))


def make_main(out: Path, reason: str) -> None:
    """The golden files of the main job."""
    store_scenes(out)
    for model, tolerance in FLOORS.items():
        options = {"limit": STORED_SCENES, "scenes": "scenes", "tolerance": tolerance}
        print(make_golden(TASK, model, out, reason=reason, **options))
    for model, tolerance in BUNDLED.items():
        if not get_card(model).weights:
            print(f"{model}: no golden file, its card names no weights")
            continue
        options = {"limit": RENDERED_SCENES, "tolerance": tolerance}
        print(make_golden(TASK, model, out, reason=reason, **options))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=bundled("leaderboards") / "golden")
    parser.add_argument("--more", action="store_true", help="only the families other than the main job's")
    parser.add_argument("--new", action="store_true", help="only those that have no golden file yet")
    parser.add_argument("--reason", required=True, help="why the golden values are made anew; stored in each file")
    arguments = parser.parse_args()
    os.environ.pop("OCL_BENCH_DATA", None)
    if not (arguments.more or arguments.new):
        make_main(arguments.out, arguments.reason)
    for (task, model), (limit, tolerance) in MORE.items():
        if arguments.new and golden_path(arguments.out, task, model).is_file():
            continue
        print(make_golden(task, model, arguments.out, reason=arguments.reason, limit=limit, tolerance=tolerance))
    if not (arguments.new and golden_path(arguments.out, KNN_TASK, KNN_MODEL).is_file()):
        make_knn(arguments.out, arguments.reason)
    report = regress(arguments.out)
    print("\n".join(report.lines()))
    raise SystemExit(report.failed)


if __name__ == "__main__":
    main()
