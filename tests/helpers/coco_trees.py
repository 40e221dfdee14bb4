"""Small trees in COCO's official layout."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_trees import card
from PIL import Image

from ocl_bench.core.errors import SampleError
from ocl_bench.data import OpenData, open_data

CATEGORIES = [{"id": 0, "name": "zero"}, {"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]


def save_image(path: Path, shape: tuple[int, int], value: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*shape, 3), value, np.uint8)).save(path)
    return path


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
    content = {"images": listed, "annotations": list(annotations), "categories": CATEGORIES}
    return write_json(root / f"annotations/instances_{split}2017.json", content)


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def open_split(root: Path, split: str = "val", limit: int | None = None, **options: Any) -> OpenData:
    task = card(reader="coco", folder="coco", split=split, options=options, get="cocodataset.org")
    return open_data(task, data_root=root, limit=limit)


def message(data: OpenData, index: int = 0) -> str:
    """The error of a sample, which must be one line."""
    with pytest.raises(SampleError) as caught:
        data.reader[index]
    assert "\n" not in str(caught.value) and caught.value.sample_id == data.ids[index]
    return str(caught.value)
