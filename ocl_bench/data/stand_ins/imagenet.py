"""Write scenes as an ILSVRC 2012 tree: a folder for each class, and the CLS-LOC boxes of all visible objects as XML.

train/<wnid>/<wnid>_<n>.JPEG              Annotations/CLS-LOC/train/<wnid>/<wnid>_<n>.xml
val/<wnid>/ILSVRC2012_val_<8 digits>.JPEG Annotations/CLS-LOC/val/ILSVRC2012_val_<8 digits>.xml
labels.txt                                all wnids, because a tree of val has no train folder to name them

As in the official files, coordinates are those of the picture that annotators saw. In every fourth image its size,
which is in the XML, differs from that of the file. And a file name may be the literal %s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image

from ..scenes.salient import SalientScene, SalientStore, classes_of


def wnids_of(revision: int) -> tuple[str, ...]:
    """The wnids of the classes of a revision. WordNet has no such numbers: they cannot be mistaken for real ones."""
    return tuple(f"n{90_000_001 + 100 * (revision - 1) + salient.index}" for salient in classes_of(revision))


WNIDS = wnids_of(1)

_DISPLAYED_EVERY, _DISPLAYED = 4, 3.90625
"""In every fourth image the annotators saw 500 pixels where the file has 128."""

_NAMELESS_EVERY = 7


def write(folder: Path, split: str, scenes: Iterable[SalientScene], first: int) -> None:
    """Write the split `train` or `val`; scene k gets the number first + k. Scenes without a store are of revision 1."""
    wnids = wnids_of(scenes.revision if isinstance(scenes, SalientStore) else 1)
    annotations = folder / "Annotations" / "CLS-LOC" / split
    for wnid in wnids:
        (folder / split / wnid).mkdir(parents=True, exist_ok=True)
    annotations.mkdir(parents=True, exist_ok=True)
    (folder / "labels.txt").write_text("".join(f"{wnid}\n" for wnid in wnids), encoding="utf-8")
    for number, scene in enumerate(scenes, start=first):
        wnid = wnids[scene.label]
        name = f"{wnid}_{number}" if split == "train" else f"ILSVRC2012_val_{number:08d}"
        Image.fromarray(scene.image).save(
            folder / split / wnid / f"{name}.JPEG", format="JPEG", quality=95, subsampling=0
        )
        place = annotations / wnid if split == "train" else annotations
        place.mkdir(exist_ok=True)
        _write_boxes(place / f"{name}.xml", wnids, scene, number)


def _write_boxes(path: Path, wnids: Sequence[str], scene: SalientScene, number: int) -> None:
    """Write the XML file of an image; number: of the scene, which decides on the oddities of official files."""
    wnid = wnids[scene.label]
    scale = _DISPLAYED if number % _DISPLAYED_EVERY == 1 else 1.0
    height, width = scene.image.shape[:2]
    root = ElementTree.Element("annotation")
    name = "%s" if number % _NAMELESS_EVERY == 3 else path.stem
    _texts(root, {"folder": wnid if path.parent.name == wnid else "val", "filename": name})
    _texts(ElementTree.SubElement(root, "source"), {"database": "ILSVRC_2012"})
    size = {"width": round(width * scale), "height": round(height * scale), "depth": 3}
    _texts(ElementTree.SubElement(root, "size"), size)
    _texts(root, {"segmented": 0})
    for class_index, box in scene.boxes:
        entry = ElementTree.SubElement(root, "object")
        edge = box[0] == 0 or box[1] == 0 or box[2] == width or box[3] == height
        _texts(entry, {"name": wnids[class_index], "pose": "Unspecified", "truncated": int(edge), "difficult": 0})
        corners = {key: round(value * scale) for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)}
        _texts(ElementTree.SubElement(entry, "bndbox"), corners)
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(path, encoding="utf-8")


def _texts(parent: ElementTree.Element, fields: Mapping[str, object]) -> None:
    """Add one element with text for each field."""
    for key, value in fields.items():
        ElementTree.SubElement(parent, key).text = str(value)
