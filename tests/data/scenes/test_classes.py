"""Scenes with classes: the table, its ids, what is drawn how often, the stuff map."""

from __future__ import annotations

import hashlib
from collections import Counter

import torch

from ocl_bench.data.scenes import NO_STUFF, render
from ocl_bench.data.scenes.classes import CLASSES, STUFF, THINGS
from ocl_bench.data.scenes.sampler import FULL_SHAPES, sample_scene
from ocl_bench.data.scenes.shapes import SHAPE_NAMES


def test_the_table_is_consistent() -> None:
    assert [one.index for one in CLASSES] == list(range(27)) and len(THINGS) == 12 and len(STUFF) == 15
    assert len({(one.shape, one.kind, one.scale) for one in CLASSES}) == 27
    assert all(1 <= one.coco <= 90 for one in THINGS) and all(92 <= one.coco <= 182 for one in STUFF)
    assert sorted(one.voc for one in THINGS) == sorted({one.voc for one in THINGS})
    assert all(1 <= one.voc <= 20 for one in THINGS) and {one.voc for one in STUFF} == {0}
    assert len({one.ade20k for one in CLASSES}) == 27 and all(1 <= one.ade20k <= 150 for one in CLASSES)
    assert {one.cityscapes for one in THINGS} == {24, 25, 26, 27, 28, 31, 32, 33}
    assert {one.cityscapes for one in STUFF} <= {7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23}


def test_neither_shape_nor_texture_alone_names_a_thing() -> None:
    assert set(Counter(one.shape for one in THINGS).values()) == {3}
    assert set(Counter(one.kind for one in THINGS).values()) == {4}
    assert {one.shape for one in THINGS} <= set(FULL_SHAPES)
    assert set(Counter(one.hue for one in CLASSES).values()) == {3}, "no hue names a class"


def test_the_stuff_map_is_frozen() -> None:
    stuff = render("things", 1, "test", [0, 1, 511]).stuff
    assert hashlib.sha256(stuff.numpy().tobytes()).hexdigest()[:16] == "cc463814cd7fdc7e"


def test_every_pixel_is_a_thing_or_stuff() -> None:
    scenes = render("things", 1, "val", range(6), size=64)
    assert torch.equal(scenes.stuff == NO_STUFF, scenes.labels > 0)
    for index, (stuff, objects) in enumerate(zip(scenes.stuff, scenes.objects, strict=True)):
        scene = sample_scene("things", 1, "val", index)
        assert set(stuff.unique().tolist()) - {NO_STUFF} <= set(scene.stuff)
        for entry in objects:
            one = CLASSES[entry["category"]]
            assert (entry["shape"], entry["material"]) == (one.shape, one.kind)


def test_numbers_and_classes_are_uneven_but_all_occur() -> None:
    scenes = [sample_scene("things", 1, "train", index) for index in range(400)]
    counts = Counter(len(scene.objects) for scene in scenes)
    assert 0 < counts[0] <= 16 and 0.05 < counts[1] / 400 < 0.2 and max(counts) == 9
    regions = Counter(len(scene.stuff) for scene in scenes)
    assert set(regions) == {1, 2, 3} and regions[1] < 0.3 * 400
    things = Counter(one.category for scene in scenes for one in scene.objects)
    stuff = Counter(index for scene in scenes for index in scene.stuff)
    assert set(things) == {one.index for one in THINGS} and set(stuff) == {one.index for one in STUFF}
    assert 2.5 < max(things.values()) / min(things.values()) < 12
    assert all(SHAPE_NAMES[one.shape] == CLASSES[one.category].shape for scene in scenes for one in scene.objects)
