"""Size of a report and time until it can be used: python benchmarks/report_page.py [--samples 512].

Scenes of the embedded CLEVRTEX are written as a user's own images (repeated where there are too few), scored with the
floor `grid`, and made into a report, which Chromium opens five times.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from selenium import webdriver

from ocl_bench import TaskSpec, evaluate, get_task, report
from ocl_bench.data import open_data
from ocl_bench.data.transforms import prepare

SIDE, OPENED = 128, 5


def write_images(folder: Path, samples: int) -> None:
    """Images (JPEG) and masks of `SIDE` pixels in the layout of the reader `folder`."""
    task = get_task("clevrtex")
    data = open_data(task, embedded=True, limit=min(samples, 512))
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for index in range(samples):
        if index < len(data.ids):
            image, truth = prepare(data.reader[index], task.protocol, SIDE)
            pixels = (image.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "images" / f"{index:05d}.jpg", quality=92)
            Image.fromarray(truth.labels.clip(0).astype(np.uint8)).save(folder / "masks" / f"{index:05d}.png")
            continue
        for place, suffix in (("images", "jpg"), ("masks", "png")):
            target = folder / place / f"{index % len(data.ids):05d}.{suffix}"
            (folder / place / f"{index:05d}.{suffix}").symlink_to(target)


def milliseconds_to_use(page: Path) -> list[float]:
    """From the start of the navigation until the explorer answers, in a fresh tab each time."""
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options)
    times = []
    try:
        for _ in range(OPENED):
            browser.get("about:blank")
            browser.get(page.as_uri())
            times.append(browser.execute_script("return performance.getEntriesByName('interactive')[0].startTime"))
    finally:
        browser.quit()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=512)
    samples = parser.parse_args().samples
    protocol = {"input": SIDE, "score_at": SIDE}
    card = {"name": "own-images", "version": 1, "family": "discovery", "data": {"reader": "folder"}}
    task = TaskSpec.model_validate({**card, "protocol": protocol, "metrics": ["mbo_fg", "fg_ari"], "main": "mbo_fg"})
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        write_images(root / "data", samples)
        result = evaluate("grid", task, data_root=root / "data", results=root / "results", save_predictions=True)
        start = time.process_time()
        page = report(result, task=task, data_root=root / "data", out=root / "report.html")
        seconds = time.process_time() - start
        files = sorted((root / "report.files").glob("*.html"))
        size, beside = page.stat().st_size, sum(file.stat().st_size for file in files)
        used = milliseconds_to_use(page)
    print(f"samples {samples}: page {size / 1e6:.2f} MB, {len(files)} files beside it {beside / 1e6:.2f} MB")
    print(f"{(size + beside) / samples / 1e3:.2f} kB a sample, built in {seconds:.1f} s of CPU")
    print(f"usable after {statistics.median(used):.0f} ms (median of {OPENED}, {min(used):.0f} to {max(used):.0f})")


if __name__ == "__main__":
    main()
