"""Write scenes as a COCO 2017 tree: instances, panoptic and stuff-thing maps of one split.

<split>2017/<12 digits>.jpg
annotations/instances_<split>2017.json      polygons; run-length codes for crowds and for objects with holes
annotations/panoptic_<split>2017.json, annotations/panoptic_<split>2017/<12 digits>.png
annotations/<split>2017/<12 digits>.png     stuff-thing map, id - 1, 255 unlabelled
curated/<split>2017/Coco164kFull_Stuff_Coarse_7.txt     the images of COCO-Stuff-27, here all of them
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from ..scenes.classes import CLASSES, THINGS, SceneClass
from ..scenes.store import ClassedScene
from .outlines import outlines, signed_area

_CROWD_EVERY = 10
_QUALITY = 95
NO_SOURCE = {"license": 1, "coco_url": "", "flickr_url": "", "date_captured": "2026-01-01 00:00:00"}
"""Fields of official images and videos that mean nothing for rendered ones; tools expect them."""


def write(folder: Path, split: str, scenes: Iterable[ClassedScene], first: int) -> None:
    """Write the split `train` or `val`; scene k gets the image id first + k."""
    images = folder / f"{split}2017"
    annotations = folder / "annotations"
    panoptic, maps = annotations / f"panoptic_{split}2017", annotations / f"{split}2017"
    for place in (images, panoptic, maps):
        place.mkdir(parents=True, exist_ok=True)
    listed: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    segments: list[dict[str, Any]] = []
    for number, scene in enumerate(scenes, start=first):
        stem = f"{number:012d}"
        Image.fromarray(scene.image).save(images / f"{stem}.jpg", quality=_QUALITY, subsampling=0)
        height, width = scene.objects.shape
        listed.append({**NO_SOURCE, "id": number, "file_name": f"{stem}.jpg", "height": height, "width": width})
        groups = _groups(scene, crowd=number % _CROWD_EVERY == 3)
        objects += [_annotation(*group, number, 1 + len(objects) + k) for k, group in enumerate(groups)]
        unlabelled = border(scene.objects)
        picture, entry = _panoptic(scene, groups, unlabelled, number)
        segments.append(entry)
        Image.fromarray(picture).save(panoptic / f"{stem}.png")
        values = np.array([scene_class.coco - 1 for scene_class in CLASSES], dtype=np.uint8)[scene.semantic]
        Image.fromarray(np.where(unlabelled, 255, values).astype(np.uint8)).save(maps / f"{stem}.png")
    curated = folder / "curated" / f"{split}2017" / "Coco164kFull_Stuff_Coarse_7.txt"
    curated.parent.mkdir(parents=True)
    curated.write_text("".join(f"{entry['id']:012d}\n" for entry in listed), encoding="utf-8")
    head = {**file_head("rendered scenes in the layout of COCO 2017"), "images": listed}
    things = [_category(thing) for thing in THINGS]
    _dump(annotations / f"instances_{split}2017.json", {**head, "annotations": objects, "categories": things})
    kinds = [{**_category(scene_class), "isthing": int(scene_class.thing)} for scene_class in CLASSES]
    _dump(annotations / f"panoptic_{split}2017.json", {**head, "annotations": segments, "categories": kinds})


def file_head(description: str) -> dict[str, Any]:
    """The fields `info` and `licenses` of an annotation file."""
    info = {"description": description, "version": "1.0", "year": 2026}
    info |= {"url": "", "contributor": "ocl-bench", "date_created": "2026-01-01"}
    return {"info": info, "licenses": [{"id": 1, "name": "Apache-2.0", "url": ""}]}


def border(objects: np.ndarray) -> np.ndarray:
    """(H, W) bool: ground pixels beside an object, which real annotations often leave unlabelled."""
    padded = np.pad(objects, 1, mode="edge")
    beside = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return (objects == 0) & np.any([neighbour > 0 for neighbour in beside], axis=0)


Group = tuple[np.ndarray, int, bool]
"""Mask (H, W) bool, class index, and whether it is a crowd."""


def _groups(scene: ClassedScene, crowd: bool) -> list[Group]:
    """The objects of a scene. With `crowd`, several objects of the commonest class become one region."""
    together = -1  # class whose objects become a crowd
    if crowd and scene.classes:
        common, number = Counter(scene.classes).most_common(1)[0]
        together = common if number > 1 else -1
    labelled = list(enumerate(scene.classes, start=1))
    groups = [(scene.objects == label, index, False) for label, index in labelled if index != together]
    if together >= 0:
        labels = [label for label, index in labelled if index == together]
        groups.append((np.isin(scene.objects, labels), together, True))
    return groups


def _annotation(mask: np.ndarray, index: int, crowd: bool, image: int, number: int) -> dict[str, Any]:
    """The entry of one object. index: of its class. image, number: ids of the image and of the entry."""
    code = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {
        "id": number,
        "image_id": image,
        "category_id": CLASSES[index].coco,
        "iscrowd": int(crowd),
        "area": float(rle.area(code)),
        "bbox": [float(value) for value in rle.toBbox(code)],
        "segmentation": uncompressed_counts(mask) if crowd else _segmentation(mask, code),
    }


def _segmentation(mask: np.ndarray, code: dict[str, Any]) -> Any:
    """Polygons if they give exactly this mask when they are filled, else a run-length code: polygons have no holes."""
    loops = [loop for loop in outlines(mask) if signed_area(loop) > 0]
    polygons = [[float(value) for point in loop for value in point] for loop in loops]
    # pycocotools needs at least 3 corners; an outline along pixels has 4 or more.
    filled = rle.decode(rle.merge(rle.frPyObjects(polygons, *mask.shape)))
    if np.array_equal(filled.astype(bool), mask):
        return polygons
    return {"size": list(mask.shape), "counts": code["counts"].decode()}


def uncompressed_counts(mask: np.ndarray) -> dict[str, Any]:
    """An uncompressed run-length code, which COCO uses for crowds: column by column, starting with a run of zeros."""
    flat = np.concatenate([[0], mask.T.reshape(-1).astype(np.int8), [-1]])
    edges = np.flatnonzero(np.diff(flat)) if flat[1] == 0 else np.concatenate([[0], np.flatnonzero(np.diff(flat))])
    return {"size": list(mask.shape), "counts": [int(run) for run in np.diff(np.concatenate([[0], np.unique(edges)]))]}


def _panoptic(
    scene: ClassedScene, groups: list[Group], unlabelled: np.ndarray, number: int
) -> tuple[np.ndarray, dict[str, Any]]:
    """The panoptic PNG, whose colours are ids of segments (R + 256 G + 65536 B), and its entry in the JSON file."""
    regions = [
        *groups,
        *((scene.stuff == index, int(index), False) for index in np.unique(scene.stuff[scene.stuff < 255])),
    ]
    ids = np.zeros(scene.objects.shape, dtype=np.int64)
    segments = []
    for k, (mask, index, crowd) in enumerate(regions, start=1):
        mask = mask & ~unlabelled
        if not mask.any():
            continue
        # Ids that need all three channels: a reader that looks at one of them only cannot pass for right.
        code = 7 * (k + 1) + 256 * (40 + 3 * k) + 65536 * (k % 5)
        ids[mask] = code
        shape = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
        box, area = [int(value) for value in rle.toBbox(shape)], int(rle.area(shape))
        segments.append(
            {"id": code, "category_id": CLASSES[index].coco, "iscrowd": int(crowd), "bbox": box, "area": area}
        )
    picture = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
    return picture, {"image_id": number, "file_name": f"{number:012d}.png", "segments_info": segments}


def _category(scene_class: SceneClass) -> dict[str, Any]:
    return {"id": scene_class.coco, "name": scene_class.name, "supercategory": scene_class.kind}


def _dump(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")
