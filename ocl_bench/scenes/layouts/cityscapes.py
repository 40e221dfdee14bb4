"""Write scenes as a Cityscapes tree: label and instance ids, colours and polygons of one city."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..classes import CLASSES
from ..store import ClassedScene
from .coco import border
from .outlines import outlines, signed_area
from .voc import voc_palette

CITY = "rendered"
_UNLABELED = 0


def write(folder: Path, split: str, scenes: Iterable[ClassedScene], first: int) -> None:
    """Write leftImg8bit and gtFine of one split; scene k is frame first + k of one city."""
    images, truth = folder / "leftImg8bit" / split / CITY, folder / "gtFine" / split / CITY
    for place in (images, truth):
        place.mkdir(parents=True, exist_ok=True)
    table = np.array([one.cityscapes for one in CLASSES], dtype=np.uint8)
    colours = np.array(voc_palette(), dtype=np.uint8).reshape(256, 3)
    for number, scene in enumerate(scenes, start=first):
        name = f"{CITY}_000000_{number:06d}"
        Image.fromarray(scene.image).save(images / f"{name}_leftImg8bit.png", compress_level=1)
        unlabelled = border(scene.objects)
        labels = np.where(unlabelled, _UNLABELED, table[scene.semantic]).astype(np.uint8)
        ids = np.where(scene.objects > 0, labels.astype(np.int32) * 1000 + scene.objects - 1, labels)
        Image.fromarray(labels).save(truth / f"{name}_gtFine_labelIds.png")
        Image.fromarray(ids.astype(np.uint16)).save(truth / f"{name}_gtFine_instanceIds.png")
        Image.fromarray(colours[labels]).save(truth / f"{name}_gtFine_color.png")
        text = json.dumps(_polygons(scene), separators=(",", ":"))
        (truth / f"{name}_gtFine_polygons.json").write_text(text, encoding="utf-8")


def _polygons(scene: ClassedScene) -> dict[str, Any]:
    height, width = scene.objects.shape
    found = []
    for label, index in enumerate(scene.classes, start=1):
        loops = [loop for loop in outlines(scene.objects == label) if signed_area(loop) > 0]
        found += [{"label": CLASSES[index].name, "polygon": [list(point) for point in loop]} for loop in loops]
    return {"imgHeight": height, "imgWidth": width, "objects": found}
