"""What is written in COCO's layout comes back through the reader and through pycocotools; numbers, names, files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO
from scenes_with_classes import classed_scene

from ocl_bench.cards.task import TaskSpec
from ocl_bench.data import OpenData, open_data
from ocl_bench.data.readers.coco import COARSE
from ocl_bench.data.scenes.classes import CLASSES, STUFF, THINGS
from ocl_bench.data.stand_ins.coco import border
from ocl_bench.data.stand_ins.outlines import outlines, signed_area
from ocl_bench.data.stand_ins.writers import find_writer

FIRST = 70
SCENES = [classed_scene(number) for number in range(14)]
CROWDED = [k for k in range(len(SCENES)) if (FIRST + k) % 10 == 3]
TABLE = np.array([one.coco for one in CLASSES])


def read(root: Path, split: str = "val", **options: Any) -> OpenData:
    """Write the scenes as one split from number 70, and open it as official data."""
    if not root.exists():
        find_writer("coco")(root, split, SCENES, FIRST)
    card = {
        "name": "probe",
        "version": 1,
        "family": "discovery",
        "data": {"reader": "coco", "folder": "coco", "split": split, "options": options},
        "protocol": {"crop": "none", "input": 64, "score_at": 64},
        "metrics": ["ari"],
        "main": "ari",
    }
    return open_data(TaskSpec.model_validate(card), data_root=root)


def crowd_class(number: int) -> int:
    """Class whose objects are one crowd in a scene: the one that most objects have, the first of equals; else -1."""
    classes = SCENES[number].classes
    if number not in CROWDED:
        return -1
    common = max(classes, key=classes.count)
    return common if classes.count(common) > 1 else -1


@pytest.mark.parametrize("split", ["train", "val"])
def test_instances_come_back(tmp_path: Path, split: str) -> None:
    data = read(tmp_path / "tree", split)
    assert data.ids == tuple(f"{number:012d}" for number in range(FIRST, FIRST + len(SCENES)))
    assert data.categories == {one.coco: one.name for one in THINGS} and data.categories[1] == "person"
    assert sum(crowd_class(number) >= 0 for number in range(len(SCENES))) == len(CROWDED) == 2
    for number, (scene, sample) in enumerate(zip(SCENES, data.reader, strict=True)):
        crowd = crowd_class(number)
        kept = [label for label, index in enumerate(scene.classes, start=1) if index != crowd]
        expected = np.zeros(scene.objects.shape)
        for label, stored in enumerate(kept, start=1):
            expected[scene.objects == stored] = label
        assert np.array_equal(sample.truth.labels, expected)
        assert sample.truth.categories == tuple(TABLE[scene.classes[label - 1]] for label in kept)
        assert len(sample.truth.instances) == len(kept) + (crowd >= 0)
        assert sample.image.shape == scene.image.shape
        assert np.abs(sample.image.astype(int) - scene.image).mean() < 4
        if crowd >= 0:
            last, labels = sample.truth.instances[-1], 1 + np.flatnonzero(np.array(scene.classes) == crowd)
            assert last.crowd and np.array_equal(rle.decode(last.mask), np.isin(scene.objects, labels))


def test_pycocotools_reads_the_file_and_gives_exact_masks(tmp_path: Path) -> None:
    root = read(tmp_path / "tree").root
    oracle = COCO(str(root / "annotations/instances_val2017.json"))
    assert len(oracle.imgs) == len(SCENES) and sorted(oracle.getCatIds()) == sorted(one.coco for one in THINGS)
    kinds = set()
    for number, scene in enumerate(SCENES):
        entries = oracle.loadAnns(oracle.getAnnIds(imgIds=[FIRST + number]))
        masks = np.stack([oracle.annToMask(entry) for entry in entries]) if entries else np.zeros((1, 1, 1))
        assert np.array_equal(masks.max(0), scene.objects > 0) if entries else not scene.objects.any()
        assert masks.sum(0).max() <= 1
        for mask, entry in zip(masks, entries, strict=bool(entries)):
            rows, columns = np.nonzero(mask)
            box = [columns.min(), rows.min(), columns.max() - columns.min() + 1, rows.max() - rows.min() + 1]
            assert entry["bbox"] == box and entry["area"] == mask.sum()
            segmentation = entry["segmentation"]
            kind = "polygons" if isinstance(segmentation, list) else type(segmentation["counts"]).__name__
            assert (kind == "list") == (entry["iscrowd"] == 1)
            kinds.add(kind)
    assert kinds == {"polygons", "str", "list"}, "polygons, and both kinds of run-length code"
    numbers = [entry["id"] for entry in oracle.dataset["annotations"]]
    assert len(set(numbers)) == len(numbers)


def test_fields_are_those_of_the_official_files(tmp_path: Path) -> None:
    folder = read(tmp_path / "tree").root / "annotations"
    image = {"license", "file_name", "coco_url", "height", "width", "date_captured", "flickr_url", "id"}
    segment = {"id", "category_id", "iscrowd", "bbox", "area"}
    instance = {"segmentation", "area", "iscrowd", "image_id", "bbox", "category_id", "id"}
    kinds = (
        ("instances", instance, {"supercategory", "id", "name"}),
        ("panoptic", {"segments_info", "file_name", "image_id"}, {"supercategory", "isthing", "id", "name"}),
    )
    for kind, entry, category in kinds:
        content = json.loads((folder / f"{kind}_val2017.json").read_text())
        assert set(content) == {"info", "licenses", "images", "annotations", "categories"}
        assert set(content["info"]) == {"description", "url", "version", "year", "contributor", "date_created"}
        for name, fields in (("images", image), ("annotations", entry), ("categories", category)):
            assert all(set(one) == fields for one in content[name])
        assert set(content["licenses"][0]) == {"url", "id", "name"}
        assert all(set(one) == segment for part in content["annotations"] for one in part.get("segments_info", ()))


@pytest.mark.parametrize("stuff", ["merged", "segments"])
def test_panoptic_comes_back(tmp_path: Path, stuff: str) -> None:
    data = read(tmp_path / "tree", annotations="panoptic", stuff=stuff)
    assert set(data.categories) == {one.coco for one in CLASSES}
    for number, (scene, sample) in enumerate(zip(SCENES, data.reader, strict=True)):
        truth, void, crowd = sample.truth, border(scene.objects), crowd_class(number)
        assert np.array_equal(truth.labels == -1, void)
        named = np.array([0, *truth.categories])[np.maximum(truth.labels, 0)]
        things_only = scene.objects > 0 if stuff == "merged" else ~void
        assert np.array_equal(named[~void], np.where(things_only, TABLE[scene.semantic], 0)[~void])
        for label, index in enumerate(scene.classes, start=1):
            found = np.unique(truth.labels[scene.objects == label])
            assert len(found) == 1
            same = [k for k, one in enumerate(scene.classes, start=1) if k == label or index == one == crowd]
            assert np.array_equal(truth.labels == found[0], np.isin(scene.objects, same))


def test_panoptic_ids_are_colours(tmp_path: Path) -> None:
    root = read(tmp_path / "tree").root
    content = json.loads((root / "annotations/panoptic_val2017.json").read_text())
    assert {one["id"]: one["isthing"] for one in content["categories"]} == {one.coco: one.thing for one in CLASSES}
    largest = 0
    for entry in content["annotations"]:
        with Image.open(root / "annotations/panoptic_val2017" / entry["file_name"]) as picture:
            assert picture.mode == "RGB"
            codes = np.asarray(picture).astype(int) @ [1, 256, 65536]
        areas = {one["id"]: one["area"] for one in entry["segments_info"]}
        numbers, counts = np.unique(codes[codes > 0], return_counts=True)
        assert dict(zip(numbers.tolist(), counts.tolist(), strict=True)) == areas
        for one in entry["segments_info"]:
            rows, columns = np.nonzero(codes == one["id"])
            left, top, width, height = one["bbox"]
            assert (left, top) == (columns.min(), rows.min())
            assert (left + width, top + height) == (columns.max() + 1, rows.max() + 1)
        largest = max(largest, *numbers.tolist())
        crowds = [one["iscrowd"] for one in entry["segments_info"]]
        assert sum(crowds) == (crowd_class(entry["image_id"] - FIRST) >= 0)
    assert largest > 65536, "all three channels are used"


def test_stuff_thing_maps_come_back_as_one_coarse_class_for_each_class(tmp_path: Path) -> None:
    data = read(tmp_path / "tree", annotations="stuffthings")
    coarse = [
        next(k for k, ranges in enumerate(COARSE) if any(first < one.coco <= last + 1 for first, last in ranges))
        for one in CLASSES
    ]
    assert sorted(coarse) == list(range(27))
    assert max(coarse[one.index] for one in THINGS) < 12 <= min(coarse[one.index] for one in STUFF)
    for scene, sample in zip(SCENES, data.reader, strict=True):
        expected = np.where(border(scene.objects), -1, np.array(coarse)[scene.semantic])
        assert np.array_equal(sample.truth.classes, expected)
    with Image.open(data.root / f"annotations/val2017/{FIRST + 1:012d}.png") as picture:
        assert picture.mode == "L"


def test_outlines_are_exact_for_any_mask() -> None:
    random = np.random.default_rng(0)
    for share in (0.05, 0.3, 0.5, 0.7, 0.95, 1):
        mask = random.random((23, 31)) < share
        loops = outlines(mask)
        assert sum(signed_area(loop) for loop in loops) == mask.sum()
        x, y = np.meshgrid(np.arange(31) + 0.5, np.arange(23) + 0.5)
        inside = np.zeros(mask.shape, int)
        for loop in loops:  # crossings of a ray to the right, for each pixel's centre
            for (x0, y0), (x1, y1) in zip(loop, loop[1:] + loop[:1], strict=True):
                assert (x0 == x1) != (y0 == y1)
                inside += (x0 == x1) & (x < x0) & (min(y0, y1) < y) & (y < max(y0, y1))
        assert np.array_equal(inside % 2 == 1, mask)


def test_regions_that_touch_at_a_corner_are_loops_of_their_own() -> None:
    mask = np.zeros((8, 8), bool)
    mask[1:3, 1:3] = mask[3:5, 3:5] = mask[5:7, 1:3] = True
    loops = outlines(mask)
    assert [len(loop) for loop in loops] == [4, 4, 4] and [signed_area(loop) for loop in loops] == [4, 4, 4]


def test_one_object_alone_is_no_crowd(tmp_path: Path) -> None:
    scene = replace(SCENES[3], classes=(0, 1, 2, 3, 4, 5))
    find_writer("coco")(tmp_path, "val", [scene], 73)
    for name in ("instances", "panoptic"):
        content = (tmp_path / f"annotations/{name}_val2017.json").read_text()
        assert '"iscrowd":0' in content and '"iscrowd":1' not in content


@pytest.mark.parametrize("layout", ["coco", "voc2012", "voc2007", "ade20k", "cityscapes"])
def test_the_same_scenes_give_the_same_bytes(tmp_path: Path, layout: str) -> None:
    trees = []
    for name in ("a", "b"):
        find_writer(layout)(tmp_path / name, "val", SCENES[:4], FIRST)
        files = (path for path in (tmp_path / name).rglob("*") if path.is_file())
        trees.append({path.relative_to(tmp_path / name).as_posix(): path.read_bytes() for path in files})
    assert trees[0] == trees[1] and len(trees[0]) > 8
