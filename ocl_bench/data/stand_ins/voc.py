"""Write scenes as a PASCAL VOC tree: images, palette masks with a void border, boxes as XML, the list of the split."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion

from ..readers.voc import CLASSES as NAMES
from ..scenes.classes import CLASSES
from ..scenes.store import ClassedScene

_VOID = 255


def write(folder: Path, split: str, scenes: Iterable[ClassedScene], first: int, *, year: int) -> None:
    """Write VOCdevkit/VOC<year> with one split; scene k gets the id <year>_<first + k>."""
    root = folder / "VOCdevkit" / f"VOC{year}"
    places = ("JPEGImages", "SegmentationClass", "SegmentationObject", "Annotations", "ImageSets/Segmentation")
    images, classes, objects, annotations, lists = (root / place for place in places)
    for place in (images, classes, objects, annotations, lists):
        place.mkdir(parents=True, exist_ok=True)
    ids = []
    for number, scene in enumerate(scenes, start=first):
        name = f"{year}_{number:06d}"
        Image.fromarray(scene.image).save(images / f"{name}.jpg", quality=95, subsampling=0)
        void = void_border(scene.objects)
        table = np.array([0, *(CLASSES[index].voc for index in scene.classes)], dtype=np.uint8)
        for place, values in ((classes, table[scene.objects]), (objects, scene.objects)):
            save_palette(np.where(void, _VOID, values).astype(np.uint8), place / f"{name}.png")
        _write_boxes(annotations / f"{name}.xml", name, scene)
        ids.append(name)
    # `all-masks` reads no list, but the archive has one, so one is written.
    listed = "trainval" if split == "all-masks" else split
    (lists / f"{listed}.txt").write_text("".join(f"{name}\n" for name in ids), encoding="utf-8")


write_2007, write_2012 = partial(write, year=2007), partial(write, year=2012)


def void_border(objects: np.ndarray) -> np.ndarray:
    """(H, W) bool: a line around each object, one pixel on either side of its edge, as VOC's annotators left it.

    An object that the lines would cover completely keeps its pixels.
    """
    void = np.zeros(objects.shape, dtype=bool)
    masks = [objects == label for label in np.unique(objects[objects > 0])]
    for mask in masks:
        core = binary_erosion(mask, border_value=1)
        void |= (binary_dilation(mask) & ~core) if core.any() else np.zeros_like(mask)
    # Only after all borders are drawn: that of a neighbour may cover a small object as well.
    for mask in masks:
        if void[mask].all():
            void[mask] = False
    return void


def voc_palette() -> list[int]:
    """The colour map of VOC as 256 x (R, G, B): the bits of the number, spread over the three channels."""
    colours = []
    for number in range(256):
        channels = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                channels[channel] |= (number >> (3 * bit + channel) & 1) << (7 - bit)
        colours += channels
    return colours


def save_palette(values: np.ndarray, path: Path) -> None:
    """Write numbers (H, W) uint8 as a palette PNG."""
    picture = Image.fromarray(values)
    picture.putpalette(voc_palette())
    picture.save(path)


def _write_boxes(path: Path, name: str, scene: ClassedScene) -> None:
    height, width = scene.objects.shape
    root = ElementTree.Element("annotation")
    _texts(root, {"folder": path.parent.parent.name, "filename": f"{name}.jpg", "segmented": "1"})
    _texts(ElementTree.SubElement(root, "size"), {"width": width, "height": height, "depth": 3})
    for label, index in enumerate(scene.classes, start=1):
        rows, columns = np.nonzero(scene.objects == label)
        entry = ElementTree.SubElement(root, "object")
        edge = rows.min() == 0 or columns.min() == 0 or rows.max() == height - 1 or columns.max() == width - 1
        fields = {"name": NAMES[CLASSES[index].voc], "pose": "Unspecified", "truncated": int(edge), "difficult": 0}
        _texts(entry, fields)
        # VOC counts pixels from 1, and both ends belong to the box.
        corners = {"xmin": columns.min(), "ymin": rows.min(), "xmax": columns.max(), "ymax": rows.max()}
        _texts(ElementTree.SubElement(entry, "bndbox"), {key: int(value) + 1 for key, value in corners.items()})
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(path, encoding="utf-8")


def _texts(parent: ElementTree.Element, fields: dict[str, object]) -> None:
    for key, value in fields.items():
        ElementTree.SubElement(parent, key).text = str(value)
