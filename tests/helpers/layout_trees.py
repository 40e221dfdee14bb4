"""Small trees of images in official layouts: CLEVRTEX, COCO, PASCAL VOC with SBD, ADE20K and Cityscapes.

Written with Pillow, json and scipy, so that no code of the package takes part in writing what it reads. Trees of
videos are in video_layout_trees.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle
from scipy.io import savemat

from ocl_bench.cards.task import TaskSpec
from ocl_bench.core.errors import SampleError
from ocl_bench.data import OpenData, open_data

PALETTE = [0, 0, 0, 200, 30, 30, 20, 160, 40, 30, 60, 220, 240, 220, 40, 90, 90, 90]
PLACES = {
    "ade20k": {"folder": "ADEChallengeData2016", "get": "the archive"},
    "cityscapes": {"folder": "cityscapes", "get": "login"},
    "coco": {"folder": "coco", "get": "cocodataset.org"},
    "voc": {"folder": "VOCdevkit"},
}
"""Where a card looks for the data of a reader, and where it says that they come from."""
COCO_CATEGORIES = [{"id": 0, "name": "zero"}, {"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]


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


def open_layout(reader: str, root: Path, split: str = "val", limit: int | None = None, **options: Any) -> OpenData:
    """Data below `root` through the card of a reader."""
    task = card(reader=reader, split=split, options=options, **PLACES[reader])
    return open_data(task, data_root=root, limit=limit)


def fault(act: Callable[[], Any], sample_id: str) -> str:
    """The error of a sample, which must be one line with its id."""
    with pytest.raises(SampleError) as caught:
        act()
    assert "\n" not in str(caught.value) and caught.value.sample_id == sample_id
    return str(caught.value)


def message(data: OpenData, index: int = 0) -> str:
    """The error of a sample of data, which must be one line."""
    return fault(lambda: data.reader[index], data.ids[index])


def save_image(path: Path, shape: Sequence[int], value: int = 90) -> Path:
    """An image of one grey."""
    return save_picture(path, np.full((*shape, 3), value, np.uint8))


def save_picture(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def save_palette(path: Path, labels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(labels.astype(np.uint8))
    picture.putpalette((PALETTE + [128] * 768)[:768])  # a short palette would be stored in fewer bits
    picture.save(path)
    return path


def save_changed(path: Path, labels: np.ndarray, changes: Mapping[int, int], kind: type[Any] = np.uint8) -> None:
    """A mask in whose place other numbers stand, in grey of 8 or 16 bits."""
    changed = labels.astype(int)
    for old, new in changes.items():
        changed[labels == old] = new
    save_picture(path, changed.astype(kind))


def damage_mask(path: Path, fault: str, number: int = 0) -> None:
    """What happens to masks: re-saved in colour, at another size, or as 16 bits with a large number; cut; or missing.

    number: what the large number stands in place of.
    """
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:-25])
    elif fault == "missing":
        path.unlink()
    else:
        with Image.open(path) as picture:
            palette, colours, labels = picture.mode == "P", picture.convert("RGB"), np.asarray(picture)
        if fault == "RGB":
            colours.save(path)
        elif fault == "size":
            (save_palette if palette else save_picture)(path, labels[::2, ::2])
        elif fault == "16 bit":
            save_changed(path, labels, {number: 40_000}, np.uint16)
        else:
            raise ValueError(fault)


def square(left: int, top: int, right: int, bottom: int) -> list[list[float]]:
    """One polygon around whole pixels."""
    return [[left, top, right, top, right, bottom, left, bottom]]


def filled(*boxes: tuple[int, int, int, int], shape: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    for left, top, right, bottom in boxes:
        mask[top:bottom, left:right] = 1
    return mask


def compressed(mask: np.ndarray) -> dict[str, Any]:
    """The run-length code that pycocotools writes."""
    code = rle.encode(np.asfortranarray(mask))
    return {"size": list(mask.shape), "counts": code["counts"].decode()}


def uncompressed(mask: np.ndarray) -> dict[str, Any]:
    """The run-length code of crowds: plain numbers."""
    flat = mask.reshape(-1, order="F")
    starts = np.flatnonzero(np.diff(flat.astype(int), prepend=0, append=2))
    return {"size": list(mask.shape), "counts": np.diff(starts, prepend=0).tolist()}


def scene_arrays(number: int, size: tuple[int, int] = (32, 24)) -> tuple[np.ndarray, np.ndarray]:
    """Image (H, W, 3) and labels (H, W) that differ from scene to scene; two objects."""
    width, height = size
    generator = np.random.default_rng(number)
    image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    labels = np.zeros((height, width), np.uint8)
    labels[height // 4 : height // 2, 2 : width // 2] = 1
    labels[height // 2 : -2, width // 3 : -2] = 2
    return image, labels


def write_clevrtex(
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


def annotation(number: int, image: int, segmentation: Any, **fields: Any) -> dict[str, Any]:
    """One object; a box and an area that no test reads off the mask."""
    entry = {"id": number, "image_id": image, "category_id": 1, "iscrowd": 0, "area": 12.5, "bbox": [1, 2, 3, 4]}
    return {**entry, "segmentation": segmentation, **fields}


def write_coco(
    root: Path,
    sizes: Mapping[int, tuple[int, int]],
    annotations: Sequence[Mapping[str, Any]] = (),
    split: str = "val",
    images: str = "val2017",
) -> Path:
    """Images of these ids and (height, width) with annotations/instances_<split>2017.json, which is returned."""
    listed = []
    for number, (height, width) in sizes.items():
        name = f"{number:012d}.jpg"
        save_image(root / images / name, (height, width))
        listed.append({"id": number, "file_name": name, "height": height, "width": width})
    content = {"images": listed, "annotations": list(annotations), "categories": COCO_CATEGORIES}
    return write_json(root / f"annotations/instances_{split}2017.json", content)


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def write_voc(root: Path, classes: np.ndarray, objects: np.ndarray, year: int = 2012, **lists: tuple[str, ...]) -> Path:
    """VOCdevkit/VOC<year> with images and both masks of all ids of the lists."""
    folder = root / f"VOCdevkit/VOC{year}"
    (folder / "ImageSets/Segmentation").mkdir(parents=True)
    for split, ids in lists.items():
        (folder / f"ImageSets/Segmentation/{split}.txt").write_text("".join(f"{name}\n" for name in ids))
        for name in ids:
            save_image(folder / f"JPEGImages/{name}.jpg", classes.shape)
            save_palette(folder / f"SegmentationClass/{name}.png", classes)
            save_palette(folder / f"SegmentationObject/{name}.png", objects)
    return folder


def write_sbd(root: Path, classes: np.ndarray, objects: np.ndarray, **lists: tuple[str, ...]) -> Path:
    """benchmark_RELEASE/dataset with images and both masks of all ids of the lists."""
    folder = root / "benchmark_RELEASE/dataset"
    for place in ("cls", "inst", "img"):
        (folder / place).mkdir(parents=True)
    categories = [int(value) for value in np.unique(classes) if value]
    for split, ids in lists.items():
        (folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in ids))
        for name in ids:
            save_image(folder / f"img/{name}.jpg", classes.shape)
            found = {"Segmentation": classes, "CategoriesPresent": categories}
            savemat(folder / f"cls/{name}.mat", {"GTcls": found})
            found = {"Segmentation": objects, "Categories": categories * int(objects.max())}
            savemat(folder / f"inst/{name}.mat", {"GTinst": found})
    return folder


def write_ade20k(root: Path, place: str, name: str, labels: np.ndarray) -> Path:
    """An image and its annotation in images/<place> and annotations/<place>; returns the annotation."""
    save_image(root / "images" / place / f"{name}.jpg", labels.shape)
    return save_picture(root / "annotations" / place / f"{name}.png", labels)


def write_cityscapes(root: Path, labels: np.ndarray, instances: np.ndarray, name: str, split: str = "val") -> Path:
    """Image and annotations of `<city>_<sequence>_<frame>`; returns the start of the annotations' names."""
    place = f"{split}/{name.split('_')[0]}/{name}"
    start = root / "gtFine" / f"{place}_gtFine"
    save_image(root / "leftImg8bit" / f"{place}_leftImg8bit.png", labels.shape)
    save_picture(Path(f"{start}_labelIds.png"), labels)
    save_picture(Path(f"{start}_instanceIds.png"), instances)
    save_picture(Path(f"{start}_color.png"), np.full((*labels.shape, 4), 50, np.uint8))
    Path(f"{start}_polygons.json").write_text("{}")
    return start
