"""Write scenes as a Cityscapes tree: label and instance ids, colours and polygons of one city."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..readers.cityscapes import CLASSES as NAMES
from ..scenes.classes import CLASSES
from ..scenes.store import ClassedScene
from .coco import border
from .outlines import Point, outlines, signed_area

CITY = "rendered"
_UNLABELED = 0

COLOURS = {
    7: (128, 64, 128), 8: (244, 35, 232), 11: (70, 70, 70), 12: (102, 102, 156), 13: (190, 153, 153),
    17: (153, 153, 153), 19: (250, 170, 30), 20: (220, 220, 0), 21: (107, 142, 35), 22: (152, 251, 152),
    23: (70, 130, 180), 24: (220, 20, 60), 25: (255, 0, 0), 26: (0, 0, 142), 27: (0, 0, 70), 28: (0, 60, 100),
    31: (0, 80, 100), 32: (0, 0, 230), 33: (119, 11, 32),
}  # fmt: skip
"""labelId -> colour of `_color.png`."""


def write(folder: Path, split: str, scenes: Iterable[ClassedScene], first: int) -> None:
    """Write leftImg8bit and gtFine of one split; scene k is frame first + k of one city."""
    images, truth = folder / "leftImg8bit" / split / CITY, folder / "gtFine" / split / CITY
    for place in (images, truth):
        place.mkdir(parents=True, exist_ok=True)
    colours = np.zeros((max(NAMES) + 1, 3), dtype=np.uint8)
    colours[list(COLOURS)] = list(COLOURS.values())
    for number, scene in enumerate(scenes, start=first):
        name = f"{CITY}_000000_{number:06d}"
        Image.fromarray(scene.image).save(images / f"{name}_leftImg8bit.png", compress_level=1)
        labels, instances = number_pixels(scene)
        Image.fromarray(labels).save(truth / f"{name}_gtFine_labelIds.png")
        Image.fromarray(instances).save(truth / f"{name}_gtFine_instanceIds.png")
        Image.fromarray(colours[labels]).convert("RGBA").save(truth / f"{name}_gtFine_color.png")
        text = json.dumps(_polygons(scene), separators=(",", ":"))
        (truth / f"{name}_gtFine_polygons.json").write_text(text, encoding="utf-8")


def number_pixels(scene: ClassedScene) -> tuple[np.ndarray, np.ndarray]:
    """labelIds (H, W) uint8 and instanceIds (H, W) uint16 of a scene; a line around objects is unlabelled.

    Object k (from 0) of a labelId has the id 1000 * labelId + k. Several classes of scenes may share a labelId.
    """
    table = np.array([scene_class.cityscapes for scene_class in CLASSES], dtype=np.uint8)
    labels = np.where(border(scene.objects), _UNLABELED, table[scene.semantic]).astype(np.uint8)
    kinds = [int(table[index]) for index in scene.classes]
    ids = [1000 * kind + kinds[:position].count(kind) for position, kind in enumerate(kinds)]
    instances = np.where(scene.objects > 0, np.array([0, *ids])[scene.objects], labels)
    return labels, instances.astype(np.uint16)


def _polygons(scene: ClassedScene) -> dict[str, Any]:
    """Content of `_polygons.json`: the regions of the ground, then the objects.

    Large regions come first, because later polygons are drawn over earlier ones.
    """
    height, width = scene.objects.shape
    ground: list[tuple[float, str, list[Point]]] = []
    objects: list[tuple[str, list[Point]]] = []
    for index in np.unique(scene.stuff[scene.objects == 0]):
        for loop in outlines(scene.stuff == index):
            ground.append((signed_area(loop), NAMES[CLASSES[index].cityscapes], loop))
    for label, index in enumerate(scene.classes, start=1):
        loops = [loop for loop in outlines(scene.objects == label) if signed_area(loop) > 0]
        objects += [(NAMES[CLASSES[index].cityscapes], loop) for loop in loops]
    regions = [(name, loop) for area, name, loop in sorted(ground, key=lambda entry: -entry[0]) if area > 0]
    entries = [{"label": name, "polygon": [list(point) for point in loop]} for name, loop in regions + objects]
    return {"imgHeight": height, "imgWidth": width, "objects": entries}
