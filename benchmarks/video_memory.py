"""Measure whether the memory of a video evaluation grows with the number or the length of the videos.

    python benchmarks/video_memory.py --model dias

The script evaluates the floor `grid`, or `--model`, on generated videos of 256 x 256 pixels: few short ones, many short
ones, and long ones. Each evaluation runs in its own process. The script prints the peak of resident memory of each.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 256
CASES = ((2, 24), (20, 24), (2, 480), (2, 960))  # number of videos, frames per video
CARD = """name: memory
version: 1
family: video
data: {reader: video-folder, folder: ., split: test}
protocol: {input: 256, score_at: 256, interpolation: bicubic-tensor}
metrics: [mbo_video, fg_ari_video, mbo_frame, fg_ari_frame, jf]
main: mbo_video
"""


def write_videos(root: Path, count: int, frames: int) -> None:
    """Write videos of two squares that move through noise. Frames repeat after 24, which makes writing fast."""
    generator = np.random.default_rng(0)
    pictures = []
    for position in range(24):
        labels = np.zeros((SIDE, SIDE), np.uint8)
        labels[40:90, 4 * position : 4 * position + 60] = 1
        labels[140:200, SIDE - 80 - 4 * position : SIDE - 20 - 4 * position] = 2
        image = generator.integers(0, 100, (SIDE, SIDE, 3)) + 60 * labels[..., None]
        pictures.append((Image.fromarray(image.astype(np.uint8)), Image.fromarray(labels)))
    for number in range(count):
        for place in ("frames", "masks"):
            (root / place / f"video{number:03d}").mkdir(parents=True)
        for position in range(frames):
            image, mask = pictures[position % 24]
            image.save(root / "frames" / f"video{number:03d}" / f"{position:05d}.jpg")
            mask.save(root / "masks" / f"video{number:03d}" / f"{position:05d}.png")


def peak(model: str, count: int, frames: int) -> float:
    """Peak of resident memory of one evaluation in MB."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        write_videos(root, count, frames)
        (root / "card.yaml").write_text(CARD, encoding="utf-8")
        places = {"OCL_BENCH_CACHE": str(root / "cache"), "OCL_BENCH_RESULTS": str(root / "results")}
        command = [sys.executable, "-c", "from ocl_bench.cli import main; main()", "eval", "--json", "--no-pictures"]
        outcome = subprocess.run(
            [*command, "--model", model, "--task", str(root / "card.yaml")],
            env={**os.environ, **places},
            capture_output=True,
            text=True,
            check=True,
        )
    return float(json.loads(outcome.stdout)["cost"]["peak_memory_mb"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="grid")
    arguments = parser.parse_args()
    for count, frames in CASES:
        print(f"{count:2} videos x {frames:3} frames {peak(arguments.model, count, frames):7.0f} MB")


if __name__ == "__main__":
    main()
