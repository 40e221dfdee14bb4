"""What is written in the layouts of VOC, ADE20K and Cityscapes comes back through their readers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.path import Path as Polygon
from PIL import Image

from ocl_bench.cards.task import TaskSpec
from ocl_bench.data import OpenData, open_data
from ocl_bench.data.scenes.classes import CLASSES, N_THINGS, STUFF, THINGS
from ocl_bench.data.scenes.store import ClassedScene
from ocl_bench.data.stand_ins.cityscapes import COLOURS, number_pixels
from ocl_bench.data.stand_ins.coco import border
from ocl_bench.data.stand_ins.voc import voc_palette, void_border
from ocl_bench.data.stand_ins.writers import find_writer


def make_scene(number: int) -> ClassedScene:
    """Random boxes over three kinds of ground: some touch, lie at the edge, or are one pixel; scene 0 has none."""
    generator = np.random.default_rng(number)
    height, width = ((30, 44), (44, 30), (36, 36))[number % 3]
    stuff = np.full((height, width), generator.integers(N_THINGS, len(CLASSES)), dtype=np.uint8)
    stuff[:, width // 2 :] = generator.integers(N_THINGS, len(CLASSES))
    stuff[12:20, 4:-4] = generator.integers(N_THINGS, len(CLASSES))
    objects = np.zeros((height, width), dtype=np.uint8)
    for label in range(1, 6 if number else 1):
        top, left = generator.integers(0, (height - 4, width - 4))
        objects[top : top + generator.integers(4, 16), left : left + generator.integers(4, 16)] = label
    if number:
        objects[0, 0] = 6
        objects[10, 10:12] = 7
    present = np.unique(objects[objects > 0])
    objects = np.where(objects > 0, np.searchsorted(present, objects) + 1, 0).astype(np.uint8)
    image = np.repeat(generator.integers(0, 256, (height, width, 1), dtype=np.uint8), 3, axis=2)
    classes = tuple(int(index) for index in generator.integers(0, N_THINGS, len(present)))
    return ClassedScene(image, objects, np.where(objects > 0, 255, stuff).astype(np.uint8), classes)


FOLDERS = {"voc": "VOCdevkit", "ade20k": "ADEChallengeData2016", "cityscapes": "cityscapes"}
SCENES = [make_scene(number) for number in range(12)]


def read(root: Path, reader: str, split: str, layout: str, **options: Any) -> OpenData:
    """Write the scenes as one split from number 70, and open it as official data."""
    if not root.exists():
        find_writer(layout)(root, split, SCENES, 70)
    card = {
        "name": "probe",
        "version": 1,
        "family": "discovery",
        "data": {"reader": reader, "folder": FOLDERS[reader], "split": split, "options": options},
        "protocol": {"crop": "none", "input": 64, "score_at": 64},
        "metrics": ["ari"],
        "main": "ari",
    }
    return open_data(TaskSpec.model_validate(card), data_root=root)


@pytest.mark.parametrize(
    ("year", "split"), [(2012, "val"), (2012, "trainaug"), (2007, "all-masks"), (2007, "trainval")]
)
def test_voc_comes_back_except_for_the_void_border(tmp_path: Path, year: int, split: str) -> None:
    data = read(tmp_path / "tree", "voc", split, f"voc{year}", year=year)
    assert data.ids == tuple(f"{year}_{number:06d}" for number in range(70, 82))
    for scene, sample in zip(SCENES, data.reader, strict=True):
        truth, void = sample.truth, void_border(scene.objects)
        assert np.array_equal(truth.labels, np.where(void, -1, scene.objects.astype(int)))
        assert truth.categories == tuple(CLASSES[index].voc for index in scene.classes)
        named = np.array([0, *truth.categories])[np.maximum(truth.labels, 0)]
        assert np.array_equal(truth.classes, np.where(truth.labels > 0, named, truth.labels))
        assert sample.image.shape == scene.image.shape
        assert np.abs(sample.image.astype(int) - scene.image).mean() < 4


def test_void_lies_around_objects_and_hides_none() -> None:
    for scene in SCENES:
        void = void_border(scene.objects)
        for label in range(1, len(scene.classes) + 1):
            mask = scene.objects == label
            assert (mask & ~void).any()
        edges = np.zeros_like(void)
        for axis in (0, 1):
            step = np.diff(scene.objects.astype(int), axis=axis) != 0
            edges |= np.pad(step, [(0, 1) if one == axis else (0, 0) for one in (0, 1)])
            edges |= np.pad(step, [(1, 0) if one == axis else (0, 0) for one in (0, 1)])
        assert not (void & ~edges).any()
        if len(scene.classes) > 3:
            assert 0.02 < void.mean() < 0.5


def test_a_dot_beside_a_large_object_stays() -> None:
    objects = np.zeros((20, 20), dtype=np.uint8)
    objects[2:12, 2:12], objects[5, 12] = 1, 2
    void = void_border(objects)
    assert not void[5, 12] and void[4, 12] and void[5, 11] and not void[5, 5] and not void[18, 18]


def test_voc_palette_is_the_official_colour_map(tmp_path: Path) -> None:
    palette = np.array(voc_palette()).reshape(256, 3).tolist()
    official = {0: [0, 0, 0], 1: [128, 0, 0], 2: [0, 128, 0], 8: [64, 0, 0], 15: [192, 128, 128], 20: [0, 64, 128]}
    assert {number: palette[number] for number in official} == official and palette[255] == [224, 224, 192]
    root = read(tmp_path / "tree", "voc", "val", "voc2012").root
    for kind in ("SegmentationClass", "SegmentationObject"):
        with Image.open(root / kind / "2012_000073.png") as picture:
            assert picture.mode == "P" and picture.getpalette() == voc_palette()
    listed = (root / "ImageSets/Segmentation/val.txt").read_text().split()
    assert len(listed) == len(SCENES) and listed[3] == "2012_000073"


def test_voc_boxes_are_those_of_the_whole_objects_and_carry_their_masks(tmp_path: Path) -> None:
    plain = read(tmp_path / "tree", "voc", "val", "voc2012")
    boxed = read(tmp_path / "tree", "voc", "val", "voc2012", boxes="annotations")
    assert plain.revision != boxed.revision
    for scene, sample, other in zip(SCENES, boxed.reader, plain.reader, strict=True):
        assert len(sample.truth.instances) == len(scene.classes) == len(other.truth.instances)
        for label, one in enumerate(sample.truth.instances, start=1):
            rows, columns = np.nonzero(scene.objects == label)
            assert one.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert one.category == CLASSES[scene.classes[label - 1]].voc and not one.crowd
        masks = sorted(str(one.mask) for one in other.truth.instances)
        assert sorted(str(one.mask) for one in sample.truth.instances) == masks
    entry = ElementTree.parse(boxed.root / "Annotations/2012_000071.xml").getroot()
    assert entry.findtext("filename") == "2012_000071.jpg" and entry.findtext("size/depth") == "3"
    truncated = [one.findtext("truncated") for one in entry.findall("object")]
    assert "1" in truncated and "0" in truncated


@pytest.mark.parametrize("split", ["train", "val"])
def test_ade20k_comes_back_except_for_lines_around_objects(tmp_path: Path, split: str) -> None:
    data = read(tmp_path / "tree", "ade20k", split, "ade20k")
    assert data.ids[0] == f"ADE_{split}_00000070" and len(data) == len(SCENES)
    folder = {"train": "training", "val": "validation"}[split]
    assert (data.root / "annotations" / folder / f"ADE_{split}_00000081.png").is_file()
    table = np.array([one.ade20k for one in CLASSES])
    for scene, sample in zip(SCENES, data.reader, strict=True):
        expected = np.where(border(scene.objects), -1, table[scene.semantic] - 1)
        assert np.array_equal(sample.truth.classes, expected)
    assert data.categories[12] == "person" and set(data.categories) == {one.ade20k - 1 for one in CLASSES}


def test_cityscapes_comes_back_with_classes_and_with_instances(tmp_path: Path) -> None:
    data = read(tmp_path / "tree", "cityscapes", "val", "cityscapes")
    apart = read(tmp_path / "tree", "cityscapes", "val", "cityscapes", truth="instances")
    assert data.ids[0] == "rendered_000000_000070" == apart.ids[0]
    order = {label: position for position, label in enumerate(sorted(COLOURS))}
    for scene, sample, other in zip(SCENES, data.reader, apart.reader, strict=True):
        kinds = np.array([order[one.cityscapes] for one in CLASSES])
        expected = np.where(border(scene.objects), -1, kinds[scene.semantic])
        assert np.array_equal(sample.image, scene.image)
        assert np.array_equal(sample.truth.classes, expected) and np.array_equal(other.truth.classes, expected)
        found = {
            (other.truth.labels[scene.objects == label].tolist()[0], kinds[index])
            for label, index in enumerate(scene.classes, start=1)
        }
        assert len(found) == len(scene.classes)
        assert all(other.truth.categories[label - 1] == kind for label, kind in found)
        for label in range(1, len(scene.classes) + 1):
            assert len(np.unique(other.truth.labels[scene.objects == label])) == 1
        assert sorted(set(sample.truth.categories)) == sorted(set(expected[expected >= 0].tolist()))


def test_cityscapes_numbers_objects_within_each_label_and_leaves_unlabelled_pixels_zero() -> None:
    things = [one.index for one in THINGS if one.cityscapes == 26]
    objects = np.zeros((9, 12), dtype=np.uint8)
    objects[2:4, 1:3], objects[2:4, 5:7], objects[6:8, 5:7] = 1, 2, 3
    stuff = np.where(objects > 0, 255, STUFF[0].index).astype(np.uint8)
    scene = ClassedScene(np.zeros((9, 12, 3), np.uint8), objects, stuff, (things[0], things[1], 0))
    labels, instances = number_pixels(scene)
    assert [int(instances[objects == label][0]) for label in (1, 2, 3)] == [26000, 26001, 24000]
    assert (instances[labels == 0] == 0).all() and (labels == 0).any()
    assert (instances[objects == 0] == labels[objects == 0]).all()


def test_polygons_drawn_in_order_give_the_label_ids(tmp_path: Path) -> None:
    root = read(tmp_path / "tree", "cityscapes", "val", "cityscapes").root
    names = {"road": 7, "sky": 23, "car": 26, "vegetation": 21, "person": 24}
    for scene, number in zip(SCENES[:5], range(70, 75), strict=True):
        stem = root / f"gtFine/val/rendered/rendered_000000_{number:06d}_gtFine"
        content = json.loads(Path(f"{stem}_polygons.json").read_text())
        height, width = scene.objects.shape
        assert (content["imgHeight"], content["imgWidth"]) == (height, width)
        centres = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), -1).reshape(-1, 2)
        drawn = np.full((height, width), "", dtype=object)
        for entry in content["objects"]:
            corners = [*entry["polygon"], entry["polygon"][0]]
            drawn[Polygon(corners, closed=True).contains_points(centres).reshape(height, width)] = entry["label"]
        kept = ~border(scene.objects)
        table = np.array([one.cityscapes for one in CLASSES])
        assert (drawn[kept] != "").all()
        for name, label in names.items():
            assert np.array_equal((drawn == name)[kept], (table[scene.semantic] == label)[kept])
        with Image.open(f"{stem}_color.png") as picture:
            colours = np.asarray(picture)
        with Image.open(f"{stem}_labelIds.png") as picture:
            labels = np.asarray(picture)
        assert colours.shape == (height, width, 4) and (colours[..., 3] == 255).all()
        assert all((colours[labels == label, :3] == COLOURS[label]).all() for label in np.unique(labels) if label)
