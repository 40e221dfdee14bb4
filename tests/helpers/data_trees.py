"""Small trees in CLEVRTEX's official layout, written with Pillow."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ocl_bench.cards.task import TaskSpec

PALETTE = [0, 0, 0, 200, 30, 30, 20, 160, 40, 30, 60, 220, 240, 220, 40, 90, 90, 90]


def card(**data: Any) -> TaskSpec:
    """A discovery card with this data section."""
    return TaskSpec.model_validate(
        {
            "name": "probe",
            "version": 1,
            "family": "discovery",
            "data": {"reader": "clevrtex", **data},
            "protocol": {"crop": "center-0.8", "input": 128, "score_at": 128},
            "metrics": ["ari"],
            "main": "ari",
        }
    )


def scene_arrays(number: int, size: tuple[int, int] = (32, 24)) -> tuple[np.ndarray, np.ndarray]:
    """Image (H, W, 3) and labels (H, W) that differ from scene to scene; two objects."""
    width, height = size
    generator = np.random.default_rng(number)
    image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    labels = np.zeros((height, width), np.uint8)
    labels[height // 4 : height // 2, 2 : width // 2] = 1
    labels[height // 2 : -2, width // 3 : -2] = 2
    return image, labels


def write_official(
    root: Path, numbers: Sequence[int], variant: str = "full", size: tuple[int, int] = (32, 24), passes: bool = True
) -> Path:
    """`root/clevrtex_<variant>` with every file that the official archives have."""
    folder = root / f"clevrtex_{variant}"
    for number in numbers:
        image, labels = scene_arrays(number, size)
        shard = folder / str(number // 1000)
        shard.mkdir(parents=True, exist_ok=True)
        stem = f"CLEVRTEX_{variant}_{number:06d}"
        opaque = np.full((*image.shape[:2], 1), 255, np.uint8)
        Image.fromarray(np.concatenate([image, opaque], 2)).save(shard / f"{stem}.png")
        mask = Image.fromarray(labels)
        mask.putpalette(PALETTE)
        mask.save(shard / f"{stem}_flat.png")
        (shard / f"{stem}.json").write_text(json.dumps({"num_objects": 2, "objects": [{"index": 1}, {"index": 2}]}))
        for other in ("albedo", "depth", "normal", "shadow") if passes else ():
            Image.fromarray(labels).save(shard / f"{stem}_{other}_0001.png")
    return folder
