"""Write scenes as an ADE20K SceneParsing-150 tree: pixels have one of 150 labels, or 0 along the edges of objects."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from ..scenes.classes import CLASSES
from ..scenes.store import ClassedScene
from .coco import border

_FOLDERS = {"train": "training", "val": "validation"}


def write(folder: Path, split: str, scenes: Iterable[ClassedScene], first: int) -> None:
    """Write ADEChallengeData2016 with one split; scene k gets the number first + k."""
    root = folder / "ADEChallengeData2016"
    images, annotations = (root / kind / _FOLDERS[split] for kind in ("images", "annotations"))
    for place in (images, annotations):
        place.mkdir(parents=True, exist_ok=True)
    table = np.array([scene_class.ade20k for scene_class in CLASSES], dtype=np.uint8)
    counts = np.zeros(151, dtype=np.int64)
    for number, scene in enumerate(scenes, start=first):
        name = f"ADE_{split}_{number:08d}"
        Image.fromarray(scene.image).save(images / f"{name}.jpg", quality=95, subsampling=0)
        labels = np.where(border(scene.objects), 0, table[scene.semantic]).astype(np.uint8)
        counts += np.bincount(labels.reshape(-1), minlength=151)
        Image.fromarray(labels).save(annotations / f"{name}.png")
    by_label = {scene_class.ade20k: scene_class for scene_class in CLASSES}
    lines = ["Idx\tRatio\tTrain\tVal\tStuff\tName"]
    for label, scene_class in sorted(by_label.items()):
        share, stuff = counts[label] / counts.sum(), int(not scene_class.thing)
        lines.append(f"{label}\t{share:.4f}\t-\t-\t{stuff}\t{scene_class.name}")
    (root / "objectInfo150.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
