"""Measure what the revision of a data set costs: opening it for the first time, again, and with `verify`.

    python benchmarks/content_hashes.py --masks 2000

The script writes images and masks (PNG, 320 x 240), and takes their revision as the readers do: for the first time,
when all masks are read; again, when only sizes and times are looked at; and with `verify`, when images are read as
well. It prints seconds, files and MB per second. Files come from the memory of the system, not from the disk.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from ocl_bench.data import contents
from ocl_bench.data.index import take_manifest


def write_tree(root: Path, count: int) -> None:
    """Noise images, and masks of twelve rectangles."""
    generator = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for number in range(count):
        labels = np.zeros((240, 320), np.uint8)
        for label in range(1, 13):
            y, x = generator.integers(0, (200, 280))
            labels[y : y + 40, x : x + 40] = label
        Image.fromarray(labels).save(root / f"masks/{number:06d}.png")
        noise = generator.integers(0, 256, (240, 320, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / f"images/{number:06d}.png", compress_level=1)


def report(what: str, files: int, size: int, seconds: float) -> None:
    """Print one line."""
    print(f"{what:<24} {seconds:8.3f} s {files / seconds:10,.0f} files/s {size / seconds / 1e6:10,.1f} MB/s")


def main() -> None:
    """Write the tree and time three openings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", type=int, default=2000)
    count = parser.parse_args().masks
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "data")
        os.environ["OCL_BENCH_CACHE"] = str(Path(folder, "cache"))
        write_tree(root, count)
        names = {kind: [f"{kind}/{number:06d}.png" for number in range(count)] for kind in ("images", "masks")}
        size = {kind: sum((root / name).stat().st_size for name in names[kind]) for kind in names}
        time.sleep(contents._SETTLED_NS / 1e9 + 0.1)
        for what in ("first opening", "second opening"):
            start = time.perf_counter()
            _ = take_manifest(root, names["images"], names["masks"]).content
            report(what, count, size["masks"], time.perf_counter() - start)
        manifest = take_manifest(root, names["images"], names["masks"])
        start = time.perf_counter()
        manifest.verify()
        report("verify, with images", 2 * count, sum(size.values()), time.perf_counter() - start)
        print(f"masks: {size['masks'] / count / 1e3:.1f} kB each; images: {size['images'] / count / 1e3:.1f} kB each")


if __name__ == "__main__":
    main()
