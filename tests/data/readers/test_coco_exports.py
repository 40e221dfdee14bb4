"""COCO's JSON as annotation programs export it, and COCO 2014: equal to the same annotations in the layout of 2017."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_trees import annotation, card, compressed, filled, square, write_coco

from ocl_bench.core.errors import DataMissingError, UsageError
from ocl_bench.data import OpenData, open_data

SHAPE = (20, 30)
ENTRIES = [
    annotation(1, 7, square(2, 2, 12, 14)),
    annotation(2, 7, compressed(filled((3, 3, 9, 9), shape=SHAPE)), category_id=18),
    annotation(3, 9, square(5, 5, 20, 18), iscrowd=0),
]
EXPORTS = {
    "Roboflow": ("valid/_annotations.coco.json", "valid", ""),
    "CVAT": ("annotations/instances_default.json", "images/default", ""),
    "CVAT, flat": ("annotations/instances_default.json", "images", ""),
    "CVAT, subset": ("annotations/instances_Validation.json", "images/Validation", ""),
    "CVAT, small": ("annotations/instances_val.json", "images/val", ""),
    "FiftyOne": ("labels.json", "data", ""),
    "LabelMe": ("annotations.json", "JPEGImages", "JPEGImages/"),
}
"""Annotation file, folder of the images, and what stands before the names of images."""


def open_coco(root: Path, split: str = "val", **options: Any) -> OpenData:
    return open_data(card(reader="coco", folder="coco", split="val", options=options), data_root=root, split=split)


def rearrange(root: Path, table: str, folder: str, before: str, names: dict[str, str] | None = None) -> None:
    """Move the files of `write_coco` to other places; `names` renames images."""
    content = json.loads((root / "annotations/instances_val2017.json").read_text())
    shutil.rmtree(root / "annotations")
    for image in content["images"]:
        name = (names or {}).get(image["file_name"], image["file_name"])
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / "val2017" / image["file_name"]).rename(root / folder / name)
        image["file_name"] = before + name
    (root / "val2017").rmdir()
    (root / table).parent.mkdir(parents=True, exist_ok=True)
    (root / table).write_text(json.dumps(content))


@pytest.mark.parametrize("program", EXPORTS)
@pytest.mark.parametrize("below", ["coco", ""])
def test_exports(tmp_path: Path, program: str, below: str) -> None:
    write_coco(tmp_path / "official", {7: SHAPE, 9: SHAPE}, ENTRIES)
    write_coco(tmp_path / "export" / below, {7: SHAPE, 9: SHAPE}, ENTRIES)
    rearrange(tmp_path / "export" / below, *EXPORTS[program])
    official, data = open_coco(tmp_path / "official"), open_coco(tmp_path / "export")
    assert data.kind == "supplied" and data.revision.startswith("supplied-") and program.split(",")[0] in data.note
    assert data.ids == official.ids and data.categories == official.categories
    for first, second in zip(official.reader, data.reader, strict=True):
        assert np.array_equal(first.image, second.image) and np.array_equal(first.truth.labels, second.truth.labels)
        assert first.truth.instances == second.truth.instances


def test_only_roboflow_has_other_splits(tmp_path: Path) -> None:
    write_coco(tmp_path, {7: SHAPE}, ENTRIES[:1])
    rearrange(tmp_path, *EXPORTS["FiftyOne"])
    with pytest.raises(DataMissingError):
        open_coco(tmp_path, "train")
    (tmp_path / "train").mkdir()
    (tmp_path / "labels.json").rename(tmp_path / "train/_annotations.coco.json")
    for path in (tmp_path / "data").iterdir():
        path.rename(tmp_path / "train" / path.name)
    assert len(open_coco(tmp_path, "train")) == 1


def test_an_export_beside_official_files_is_refused(tmp_path: Path) -> None:
    write_coco(tmp_path / "coco", {7: SHAPE}, ENTRIES[:1])
    shutil.copytree(tmp_path / "coco", tmp_path / "valid")
    shutil.copy(tmp_path / "coco/annotations/instances_val2017.json", tmp_path / "valid/_annotations.coco.json")
    with pytest.raises(UsageError, match=r"found official files in .*coco and export of Roboflow in"):
        open_coco(tmp_path)
    assert open_coco(tmp_path / "coco").kind == "official"


def test_coco_2014(tmp_path: Path) -> None:
    for root in (tmp_path / "new", tmp_path / "old"):
        write_coco(root, {7: SHAPE, 9: SHAPE}, ENTRIES)
    names = {f"{number:012d}.jpg": f"COCO_val2014_{number:012d}.jpg" for number in (7, 9)}
    rearrange(tmp_path / "old", "annotations/instances_val2014.json", "val2014", "", names)
    new, old = open_coco(tmp_path / "new"), open_coco(tmp_path / "old", year=2014)
    assert old.ids == ("COCO_val2014_000000000007", "COCO_val2014_000000000009") and "val2014" in old.note
    assert list(old.image_ids.values()) == [7, 9], "results files know them by their ids"
    for first, second in zip(new.reader, old.reader, strict=True):
        assert np.array_equal(first.truth.labels, second.truth.labels)
    with pytest.raises(DataMissingError, match="val2017"):
        open_coco(tmp_path / "old")
    (tmp_path / "old/lists").mkdir()
    (tmp_path / "old/lists/val.txt").write_text("COCO_val2014_000000000009.jpg\n")
    assert open_coco(tmp_path / "old", year=2014, ids="lists/{split}.txt").ids == old.ids[1:]


@pytest.mark.parametrize("program", ["CVAT", "FiftyOne"])
def test_an_export_without_its_images(tmp_path: Path, program: str) -> None:
    """CVAT leaves images out unless it is told otherwise."""
    write_coco(tmp_path, {7: SHAPE, 9: SHAPE}, ENTRIES)
    table, folder, _ = EXPORTS[program]
    rearrange(tmp_path, table, folder, "")
    shutil.rmtree(tmp_path / Path(folder).parts[0])
    with pytest.raises(DataMissingError, match=rf"{table}: export of {program} without images, there is no folder "):
        open_coco(tmp_path)
