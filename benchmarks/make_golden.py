"""Write the golden files of tier 0 again, keeping earlier reasons: `python benchmarks/make_golden.py --reason "why"`.

The first 16 test scenes of the stand-in are stored as PNG in the official layout. The gate of the floors therefore does
not depend on the renderer. The bundled model is measured on 64 rendered scenes, and its gate checks the renderer as
well. The other families are also measured on rendered scenes: one floor or ceiling, and a bundled model. Only k-NN has
stored images, because its bank would take a minute to render.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterable
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
# Batch size and processor can move the metric of one image this much; the mean gets the same tolerance.
BUNDLED = {"dias": Tolerance(absolute=5e-3)}


MORE = {
    # Label maps without floating-point arithmetic, and the score of a perfect prediction, are equal on all processors.
    ("coco-detection", "oracle"): (16, EXACT),
    ("coco-detection", "dias"): (32, Tolerance(absolute=1e-2)),
    ("cocostuff-segmentation", "grid"): (32, EXACT),
    # The head is fitted again on the machine that runs the gate.
    ("voc-segmentation", "encoder"): (32, Tolerance(absolute=2e-2)),
    ("voc-discovery", "oracle"): (16, EXACT),
    ("movi-c", "oracle"): (3, EXACT),
    ("movi-c", "dias"): (3, Tolerance(absolute=2e-2)),
    ("movi-c", "slotmatch"): (3, Tolerance(absolute=3e-2)),
    ("davis-2017", "grid"): (3, EXACT),
}
"""The other families, on rendered scenes: (task, model) -> number of images or videos, tolerance."""

KNN_TASK, KNN_MODEL = "imagenet-knn", "pixels"
KNN_BANK, KNN_QUERIES = 48, 24
KNN_TOLERANCE = Tolerance(absolute=1 / KNN_QUERIES + 1e-9)
"""One query: rounding on another processor may swap two neighbours."""


def store_scenes(baseline: Path) -> None:
    """Copy the first test scenes of the stand-in to `baseline/scenes` and replace earlier ones."""
    data = open_data(get_task(TASK), limit=STORED_SCENES)
    target = baseline / "scenes" / data.root.name
    shutil.rmtree(target, ignore_errors=True)
    files = sorted(path for path in data.root.rglob("*") if any(_belongs(path, i) for i in data.ids))
    copy_files(files, data.root, target)
    size = sum(path.stat().st_size for path in files)
    print(f"{len(data.ids)} scenes, {len(files)} files, {size / 1e6:.2f} MB below {target}")


def copy_files(files: Iterable[Path], root: Path, target: Path) -> None:
    """Copy files below `root` to the same places below `target`."""
    for path in files:
        copy = target / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def _belongs(path: Path, sample_id: str) -> bool:
    """True for image, mask and metadata of a scene. Albedo, depth and other files are never read, and not stored."""
    return path.name in (f"{sample_id}.png", f"{sample_id}_flat.png", f"{sample_id}.json")


def store_knn_images(baseline: Path) -> None:
    """Copy a few images of bank and queries to `baseline/scenes/imagenet` and replace earlier ones."""
    target = baseline / "scenes" / "imagenet"
    shutil.rmtree(target, ignore_errors=True)
    for split, count in (("train", KNN_BANK), ("val", KNN_QUERIES)):
        data = open_data(get_task(KNN_TASK), split=split, limit=count)
        copy_files(sorted((data.root / split).glob("*/*.JPEG")), data.root, target)


def make_knn(out: Path, reason: str) -> None:
    """Write the golden file of k-NN."""
    store_knn_images(out)
    options = {"limit": KNN_QUERIES, "scenes": "scenes", "tolerance": KNN_TOLERANCE}
    print(make_golden(KNN_TASK, KNN_MODEL, out, reason=reason, **options))


def make_main(out: Path, reason: str) -> None:
    """Write the golden files of the main task."""
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
    parser.add_argument("--more", action="store_true", help="only the families other than that of the main task")
    parser.add_argument("--new", action="store_true", help="only tasks and models that have no golden file yet")
    parser.add_argument("--reason", required=True, help="why the golden values change; stored in each file")
    arguments = parser.parse_args()
    os.environ.pop("OCL_BENCH_DATA", None)  # golden values belong to the stand-ins, not to the user's data
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
