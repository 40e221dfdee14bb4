"""A few scenes of rectangles in CLEVRTEX's official layout, so that a real evaluation runs in a second."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from layout_trees import save_palette
from PIL import Image

SCENES = 6


def write_scenes(root: Path, count: int = SCENES) -> None:
    """Small scenes in the official layout: two or three coloured rectangles on a grey ground."""
    folder = root / "clevrtex_full" / "0"
    folder.mkdir(parents=True)
    for index in range(count):
        random = np.random.default_rng(index)
        image = np.full((64, 64, 3), 90, dtype=np.uint8) + random.integers(0, 9, (64, 64, 1), dtype=np.uint8)
        labels = np.zeros((64, 64), dtype=np.uint8)
        count = 2 + index % 2
        for number in range(1, count + 1):
            top, left = 8 + 15 * (number - 1), int(random.integers(8, 40))
            labels[top : top + 11, left : left + 13] = number
            image[labels == number] = random.integers(0, 255, 3)
        stem = f"CLEVRTEX_full_{index:06d}"
        Image.fromarray(image).save(folder / f"{stem}.png")
        save_palette(folder / f"{stem}_flat.png", labels)
        (folder / f"{stem}.json").write_text(json.dumps({"num_objects": count}))
