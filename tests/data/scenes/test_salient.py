"""Scenes with one salient object: classes, boxes, golden values, the store, and the ILSVRC tree written of them."""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from ocl_bench.cards.task import TaskSpec
from ocl_bench.data.base import OpenData, Request
from ocl_bench.data.readers.imagenet import open_imagenet
from ocl_bench.data.scenes import salient
from ocl_bench.data.scenes.salient import CLASSES, SHAPES, SalientScene, SalientStore, render_salient, sample_salient
from ocl_bench.data.scenes.sampler import REVISIONS, VARIANTS
from ocl_bench.data.scenes.shapes import FULL_SHAPES, SHAPE_NAMES
from ocl_bench.data.stand_ins.imagenet import WNIDS, write

GOLDEN_BOXES = [
    [(0, 0, 0, 87, 85), (8, 85, 64, 110, 88), (19, 90, 0, 106, 11), (16, 94, 38, 118, 67)],
    [(1, 32, 22, 96, 93), (17, 15, 8, 34, 30), (16, 74, 81, 96, 115), (11, 10, 82, 37, 106)],
    [(2, 5, 21, 109, 127), (9, 57, 7, 71, 22)],
]
GOLDEN_GREY = [66.654, 81.5, 83.47, 118.109, 59.109, 106.374]
FIRST = 500_000


@pytest.fixture(scope="module")
def scenes() -> list[SalientScene]:
    return render_salient(1, "test", range(48))


def test_neither_shape_nor_texture_nor_hue_alone_names_a_class() -> None:
    assert [one.index for one in CLASSES] == list(range(24)) and {one.shape for one in CLASSES} == set(FULL_SHAPES)
    assert set(Counter(one.shape for one in CLASSES).values()) == {6}
    assert set(Counter(one.kind for one in CLASSES).values()) == {4}
    assert set(Counter(one.hue for one in CLASSES).values()) == {6}
    assert len({(one.shape, one.kind) for one in CLASSES}) == 24
    assert max(Counter((one.shape, one.hue) for one in CLASSES).values()) == 2


def test_revision_is_frozen(scenes: list[SalientScene]) -> None:
    """A change of any scene is a new revision: boxes are equal, mean grey values move by less than 0.05."""
    assert [[(one, *map(int, box)) for one, box in scene.boxes] for scene in scenes[:3]] == GOLDEN_BOXES
    assert [scene.image.mean() for scene in scenes[:6]] == pytest.approx(GOLDEN_GREY, abs=0.05)


def test_a_scene_depends_on_nothing_but_its_place(scenes: list[SalientScene]) -> None:
    alone = render_salient(1, "test", [17])[0]
    assert np.array_equal(alone.image, scenes[17].image) and alone.boxes == scenes[17].boxes
    for split, seed in (("train", 0), ("val", 0), ("test", 1)):
        assert not np.array_equal(render_salient(1, split, [17], seed)[0].image, alone.image)
    with pytest.raises(ValueError, match=r"there are .*test.* and revision 1 and 2"):
        sample_salient(3, "test", 0)
    # The other variants go through `scenes.render`, which has no salient object to promise.
    assert REVISIONS["salient"] == (1, 2) and "salient" not in VARIANTS


def test_every_class_comes_equally_often_as_the_large_object_in_the_middle(scenes: list[SalientScene]) -> None:
    assert [scene.label for scene in scenes] == [*range(24), *range(24)]
    for index, scene in enumerate(scenes):
        height, width = scene.image.shape[:2]
        assert (height, width) == SHAPES[index % 5] and scene.image.dtype == np.uint8
        assert scene.boxes[0][0] == scene.label and 2 <= len(scene.boxes) <= 7
        (_, (x0, y0, x1, y1)), *others = scene.boxes
        assert abs((x0 + x1) / 2 / width - 0.5) < 0.3 and abs((y0 + y1) / 2 / height - 0.5) < 0.3
        for one, box in scene.boxes:
            assert 0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height
            assert one == scene.label or (box[2] - box[0]) * (box[3] - box[1]) < (x1 - x0) * (y1 - y0)
        assert scene.label not in [one for one, _ in others]
    assert sum(4 <= len(scene.boxes) <= 7 for scene in scenes) > 0.9 * len(scenes)


def test_a_sliver_at_the_border_has_no_box() -> None:
    hit = np.full((128, 128), -1)
    hit[40:80, 40:90], hit[0:40, 124:128], hit[112:128, 110:128] = 0, 1, 2
    image = np.zeros((128, 128, 3), np.uint8)
    assert salient.crop_scene(image, hit, [5, 6, 7], (128, 128)).boxes[1] == (6, (124, 0, 128, 40))
    scene = salient.crop_scene(image, hit, [5, 6, 7], (102, 126))
    assert scene.image.shape == (102, 126, 3) and scene.label == 5
    assert scene.boxes == ((5, (39, 27, 89, 67)), (6, (123, 0, 126, 27)))


def test_the_drawn_objects_are_of_their_classes() -> None:
    counts: Counter[int] = Counter()
    for index in range(120):
        scene = sample_salient(1, "train", index)
        counts[len(scene.objects) - 1] += 1
        assert len({ground.kind for ground in scene.grounds}) in (2, 3)
        for one in scene.objects:
            assert SHAPE_NAMES[one.shape] == CLASSES[one.category].shape
        assert scene.objects[0].category == index % 24
        assert min(scene.objects[0].half) > max(max(one.half) for one in scene.objects[1:])
    assert set(counts) == {4, 5, 6} and min(counts.values()) > 20


def test_the_store_gives_back_what_was_rendered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scenes: list[SalientScene], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path))
    store = SalientStore(split="test")
    assert store.files(20) == {"00000.npz": 0, "00001.npz": 1} and store.folder == tmp_path / "scenes/salient-r1/test"
    store.render([0], lambda n: None)
    job = json.dumps({"store": asdict(store), "chunks": [1]})
    monkeypatch.setattr("sys.stdin", io.StringIO(job))
    salient.main()
    assert capsys.readouterr().out == "ready\n16\nready\n" and json.loads(store.to_json()) == asdict(store)
    assert all((store.folder / name).is_file() for name in store.files(32))
    full = replace(store, count=20)
    assert len(full) == len(list(full)) == 20
    for read, made in zip(full, scenes, strict=False):
        assert np.array_equal(read.image, made.image) and (read.label, read.boxes) == (made.label, made.boxes)
    assert full[-1].boxes == scenes[19].boxes and type(full[17].boxes[0][1][0]) is float
    with pytest.raises(IndexError):
        full[20]
    (store.folder / "00001.npz").write_bytes(b"PK")
    with pytest.raises(OSError, match=r"damaged.*delete it"):
        full[16]
    with pytest.raises(ValueError, match="revision 9 is not rendered"):
        SalientStore(revision=9).check_revision()


def open_tree(root: Path, split: str) -> OpenData:
    card = {
        "name": "probe",
        "version": 1,
        "family": "knn",
        "data": {"reader": "imagenet", "folder": "imagenet", "split": split, "options": {"boxes": "labelled"}},
        "protocol": {"temperature": 0.07},
        "fit": {"head": "bank"},
        "metrics": ["knn_top1"],
        "main": "knn_top1",
    }
    return open_imagenet(Request(TaskSpec.model_validate(card), root, None, split, None, False))


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_tree_comes_back_through_the_reader(tmp_path: Path, scenes: list[SalientScene], split: str) -> None:
    write(tmp_path / "tree", split, scenes[:30], FIRST)
    data = open_tree(tmp_path / "tree", split)
    assert dict(data.categories) == dict(enumerate(WNIDS)) and len(data) == 30
    stem = "{wnid}_{n}" if split == "train" else "ILSVRC2012_val_{n:08d}"
    for number, scene in enumerate(scenes[:30], start=FIRST):
        wnid = WNIDS[scene.label]
        sample = data.reader[data.ids.index(f"{wnid}/{stem.format(wnid=wnid, n=number)}")]
        assert sample.truth.label == scene.label and sample.image.shape == scene.image.shape
        assert np.abs(sample.image.astype(int) - scene.image).mean() < 6
        assert [one.category for one in sample.truth.instances] == [one for one, _ in scene.boxes]
        boxes = np.array([one.box for one in sample.truth.instances])
        # Where annotators saw another size, coordinates were rounded at that size.
        assert np.abs(boxes - [box for _, box in scene.boxes]).max() <= (0.3 if number % 4 == 1 else 0)
    sizes = [
        (int(xml.findtext("size/height") or 0), int(xml.findtext("size/width") or 0))
        for xml in map(ElementTree.parse, sorted((tmp_path / "tree").rglob("*.xml")))
    ]
    assert sum(size not in SHAPES for size in sizes) == 8 and max(max(size) for size in sizes) == 500


def test_the_tree_is_the_same_each_time(tmp_path: Path, scenes: list[SalientScene]) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, "val", scenes[:8], FIRST)
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*") if path.is_file()]
    assert len(files) == 17
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in files)
