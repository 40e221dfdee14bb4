"""COCO's instances: small trees as the archives unpack, pycocotools as oracle, and everything that may be wrong."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import layout_trees
import numpy as np
import pytest
from layout_trees import COCO_CATEGORIES as CATEGORIES
from layout_trees import (
    annotation,
    compressed,
    message,
    open_layout,
    save_image,
    square,
    uncompressed,
    write_coco,
    write_json,
)
from PIL import Image
from places import SHARED
from pycocotools import mask as rle
from pycocotools.coco import COCO

from ocl_bench.core.errors import DataMissingError, UsageError
from ocl_bench.data import OpenData

REAL = SHARED / "real/coco_sample"
SHAPE = (20, 30)
open_split = partial(open_layout, "coco")
filled = partial(layout_trees.filled, shape=SHAPE)


def random_annotations(images: int, each: int) -> list[dict[str, Any]]:
    """Polygons of one or two parts that may leave the image, and both kinds of run-length code."""
    random, found = np.random.default_rng(5), []
    for number in range(images * each):
        image = number // each
        if number % 4 < 2:
            parts = random.uniform(-6, 34, (1 + number % 2, 2 * int(random.integers(3, 9))))
            segmentation: Any = parts.round(2).tolist()
        else:
            mask = (random.random(SHAPE) < random.uniform(0.05, 0.95)).astype(np.uint8)
            segmentation = (compressed if number % 4 == 2 else uncompressed)(mask)
        found.append(annotation(1000 + number, image, segmentation, category_id=(0, 1, 18)[number % 3]))
    return found


def assert_masks_of_pycocotools(path: Path, data: OpenData) -> int:
    """Compare all instances with pycocotools; their number."""
    oracle, count = COCO(str(path)), 0
    names = {entry["id"]: Path(entry["file_name"]).stem for entry in oracle.dataset["images"]}
    for number, name in names.items():
        sample = data.reader[data.ids.index(name)]
        expected = oracle.loadAnns(oracle.getAnnIds(imgIds=[number]))
        assert len(sample.truth.instances) == len(expected)
        for one, entry in zip(sample.truth.instances, expected, strict=True):
            assert one.mask is not None and np.array_equal(rle.decode(one.mask), oracle.annToMask(entry))
            x, y, width, height = entry["bbox"]
            assert one.box == (x, y, x + width, y + height) and one.area == entry["area"]
            assert (one.category, one.crowd) == (entry["category_id"], bool(entry["iscrowd"]))
            count += 1
    return count


def test_masks_are_those_of_pycocotools(tmp_path: Path) -> None:
    path = write_coco(tmp_path, dict.fromkeys(range(5), SHAPE), random_annotations(5, 8))
    data = open_split(tmp_path)
    assert data.kind == "official" and data.categories == {0: "zero", 1: "person", 18: "dog"}
    assert data.ids == tuple(f"{number:012d}" for number in range(5)), "image id 0 is an image"
    assert assert_masks_of_pycocotools(path, data) == 40
    for sample in data.reader:
        masks = np.stack([rle.decode(one.mask) for one in sample.truth.instances])
        claims, order = masks.sum(0), 1 + masks.argmax(0)
        assert np.array_equal(sample.truth.labels, np.select([claims == 0, claims > 1], [0, -2], order))
        assert sample.truth.categories == tuple(one.category for one in sample.truth.instances)
        assert sample.truth.labels.dtype == np.int16 and sample.truth.classes is None


@pytest.mark.parametrize("crowd", ["drop", "instance", "ignore"])
def test_crowds_follow_the_card_and_detection_gets_them_always(tmp_path: Path, crowd: str) -> None:
    group = filled((4, 2, 20, 12))
    entries = [
        annotation(1, 7, square(2, 2, 10, 8)),
        annotation(2, 7, uncompressed(group), iscrowd=1, category_id=18),
        annotation(3, 7, square(22, 2, 28, 8), category_id=0),
    ]
    write_coco(tmp_path, {7: SHAPE}, entries)
    truth = open_split(tmp_path, crowd=crowd).reader[0].truth
    first, last, region = filled((2, 2, 10, 8)), filled((22, 2, 28, 8)), group.astype(bool)
    expected = np.select([first == 1, last == 1], [1, 3 if crowd == "instance" else 2], 0)
    if crowd == "instance":
        expected[region] = 2
        expected[region & (first == 1)] = -2
    elif crowd == "ignore":
        expected[region & (expected == 0)] = -1
    assert np.array_equal(truth.labels, expected)
    assert truth.categories == ((1, 18, 0) if crowd == "instance" else (1, 0))
    assert [one.crowd for one in truth.instances] == [False, True, False]


def test_images_without_objects_and_objects_without_pixels(tmp_path: Path) -> None:
    entries = [
        annotation(1, 2, [], category_id=18),
        annotation(2, 2, square(5, 6, 6, 7)),
        annotation(3, 2, square(50, 6, 60, 7), category_id=0),
        {key: value for key, value in annotation(4, 2, None).items() if key not in ("segmentation", "area", "iscrowd")},
    ]
    write_coco(tmp_path, {1: SHAPE, 2: (9, 9)}, entries)
    empty, dots = open_split(tmp_path).reader
    assert not empty.truth.labels.any() and empty.truth.categories == () == empty.truth.instances
    assert dots.truth.labels.sum() == 1 == dots.truth.labels[6, 5]
    assert dots.truth.categories == (1, 0), "an object outside the image is listed, but owns no pixel"
    assert [one.mask is None for one in dots.truth.instances] == [True, False, False, True]
    assert dots.truth.instances[3].area == 12 and dots.truth.instances[0].area == 12.5


@pytest.mark.parametrize("mode", ["turned", "as stored", "L", "CMYK"])
def test_unusual_photographs(tmp_path: Path, mode: str) -> None:
    write_coco(tmp_path, {1: SHAPE}, [annotation(1, 1, square(0, 0, 4, 4))])
    pixels = np.full((*SHAPE, 3), 30, np.uint8)
    pixels[:10, :15] = 220
    picture, path = Image.fromarray(pixels), tmp_path / "val2017/000000000001.jpg"
    exif = Image.Exif()
    if mode == "turned":
        exif[0x0112] = 6  # stored lying on its side; shown, it has the annotated size
        picture.rotate(90, expand=True).save(path, exif=exif, quality=95)
    elif mode == "as stored":
        exif[0x0112] = 3
        picture.save(path, exif=exif, quality=95)
    else:
        picture.convert(mode).save(path, quality=95)
    image = open_split(tmp_path).reader[0].image
    assert image.shape == (*SHAPE, 3) and image.dtype == np.uint8
    assert np.abs(image.astype(int) - pixels).max() < 20


def test_every_accepted_place(tmp_path: Path) -> None:
    write_coco(tmp_path / "coco", {3: SHAPE, 1: SHAPE}, [annotation(1, 3, square(0, 0, 4, 4))])
    for root in (tmp_path, tmp_path / "coco"):
        data = open_split(root)
        assert data.root == tmp_path / "coco" and data.ids == ("000000000003", "000000000001")
    revision = data.revision
    (tmp_path / "coco/images").mkdir()
    shutil.move(tmp_path / "coco/val2017", tmp_path / "coco/images/val2017")
    moved = open_split(tmp_path)
    assert moved.reader[0].truth.labels.sum() == 16 and moved.revision.startswith("official-")
    write_coco(tmp_path / "coco", {9: SHAPE}, split="train", images="train2017")
    assert open_split(tmp_path, "train").ids == ("000000000009",)
    assert open_split(tmp_path, limit=1).ids == ("000000000003",)
    assert len({revision, moved.revision, open_split(tmp_path, limit=1).revision}) == 3


def test_a_list_chooses_images_and_their_order(tmp_path: Path) -> None:
    write_coco(tmp_path, dict.fromkeys((1, 2, 3), SHAPE), [annotation(1, 2, square(0, 0, 4, 4))])
    (tmp_path / "curated").mkdir()
    (tmp_path / "curated/val.txt").write_text("000000000003\n\n000000000002.jpg\n")
    data = open_split(tmp_path, ids="curated/{split}.txt")
    assert data.ids == ("000000000003", "000000000002") and data.reader[1].truth.labels.sum() == 16
    assert open_split(tmp_path, ids="curated/{split}.txt", limit=1).ids == ("000000000003",)


@pytest.mark.parametrize(
    ("content", "kind", "text"),
    [
        (None, DataMissingError, "list of images cannot be read"),
        ("", DataMissingError, "lists no image"),
        ("000000000004\n", DataMissingError, "1 listed images are not annotated, first 000000000004"),
        ("000000000001\n000000000001.jpg\n", UsageError, "'000000000001' is listed twice"),
        ("../../outside\n", DataMissingError, r"not annotated, first \.\./\.\./outside"),
    ],
)
def test_bad_lists_are_refused(tmp_path: Path, content: str | None, kind: type[Exception], text: str) -> None:
    write_coco(tmp_path, {1: SHAPE})
    if content is not None:
        (tmp_path / "list.txt").write_text(content)
    with pytest.raises(kind, match=text) as caught:
        open_split(tmp_path, ids="list.txt")
    assert "\n" not in str(caught.value) and "list.txt" in str(caught.value)
    for name in ("../list.txt", "/list.txt"):
        with pytest.raises(UsageError, match="must lie below the data root"):
            open_split(tmp_path, ids=name)


NAN, FAR, HUGE = float("nan"), 1e12, 10**400
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "category": ({"category_id": 99}, "annotation 5: unknown category 99"),
    "category list": ({"category_id": [1]}, "annotation 5: "),
    "box": ({"bbox": [1, 2, 3]}, "annotation 5: not enough values"),
    "box of words": ({"bbox": ["a", 2, 3, 4]}, "bbox has 'a', expected a finite number"),
    "box of digits": ({"bbox": ["1", 2, 3, 4]}, "bbox has '1', expected a finite number"),
    "box of truth": ({"bbox": [True, 2, 3, 4]}, "bbox has True, expected a finite number"),
    "area of digits": ({"area": "12"}, "area has '12', expected a finite number"),
    "polygon of digits": ({"segmentation": [["1", 2, 3, 4, 5, 6]]}, "a polygon has '1', expected a finite number"),
    "box NaN": ({"bbox": [NAN, 2, 3, 4]}, "bbox has nan, expected a finite number"),
    "box beyond numbers": ({"bbox": [1, 2, 3, HUGE]}, "too large to convert to float"),
    "box inside out": ({"bbox": [1, 2, -3, 4]}, "are not a box and its area"),
    "area": ({"area": None}, "annotation 5: "),
    "size": ({"segmentation": compressed(np.zeros((30, 20), np.uint8))}, r"size [30, 20] (height, width), its image"),
    "long": ({"segmentation": {"size": SHAPE, "counts": [400, 201]}}, "code of 601 pixels, its image has 600"),
    "negative": ({"segmentation": {"size": SHAPE, "counts": [-10, 610]}}, "not a whole number"),
    "short": ({"segmentation": {"size": SHAPE, "counts": "52"}}, "code of 7 pixels, its image has 600"),
    "empty": ({"segmentation": {"size": SHAPE, "counts": ""}}, "code of 0 pixels"),
    "letters": ({"segmentation": {"size": SHAPE, "counts": "5 2"}}, "with the character ' '"),
    "cut": ({"segmentation": {"size": SHAPE, "counts": "hh"}}, "ends within a number"),
    "half": ({"segmentation": {"size": SHAPE}}, "or has size and counts"),
    "word": ({"segmentation": "5"}, "is a list of polygons, or has size and counts"),
    "two points": ({"segmentation": [[1, 2, 3, 4]]}, "a polygon needs at least 3 points"),
    "odd": ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "a polygon needs at least 3 points"),
    "pairs": ({"segmentation": [[[1, 2], [3, 4], [5, 6]]]}, "a polygon needs at least 3 points"),
    "NaN": ({"segmentation": [[1, 2, NAN, 4, 5, 6]]}, "a polygon has a coordinate that is not a number"),
    "beyond numbers": ({"segmentation": [[1, 2, HUGE, 4, 5, 6]]}, "too large to convert to float"),
    "far away": ({"segmentation": [[1, 2, FAR, 4, 5, 6]]}, "a polygon has a coordinate that is not a number"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_annotation_is_one_line_and_leaves_the_others_alone(tmp_path: Path, fault: str) -> None:
    fields, text = FAULTS[fault]
    entries = [annotation(4, 1, square(0, 0, 4, 4)), {**annotation(5, 1, square(0, 0, 4, 4)), **fields}]
    write_coco(tmp_path, {1: SHAPE, 2: SHAPE}, [*entries, annotation(6, 2, square(0, 0, 4, 4))])
    data = open_split(tmp_path)
    found = message(data)
    assert text in found and "annotation 5" in found and "data.options.ids" in found
    assert data.reader[1].truth.labels.sum() == 16


def test_odd_boxes_of_annotations_are_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    odd = [{**annotation(k, k, square(0, 0, 4, 4)), "bbox": [0.1, 0.2, 0.3, 0.4]} for k in (1, 2)]
    write_coco(tmp_path, {1: SHAPE, 2: SHAPE}, odd)
    data = open_split(tmp_path)
    for position in (0, 1):
        assert len(data.reader[position].truth.instances) == 1
    assert caplog.text.count("1 boxes within the first pixel of their image (0..1 instead of pixels?)") == 1


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    for field in ("bbox", "category_id"):
        entry = annotation(5, 1, square(0, 0, 4, 4))
        del entry[field]
        write_coco(tmp_path, {1: SHAPE}, [entry])
        assert f"annotation 5: field '{field}' is missing" in message(open_split(tmp_path))


def test_numbers_of_polygons_are_kept_at_eight_bytes(tmp_path: Path) -> None:
    count = 2_000
    polygon = [float(value) + 0.123 for value in range(count)]
    write_coco(tmp_path, {1: SHAPE}, [annotation(number, 1, [polygon]) for number in range(100)])
    open_split(tmp_path)  # imports and caches are none of the reader's memory
    tracemalloc.start()
    data = open_split(tmp_path)
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(data.reader) == 1 and 100 * count * 8 < kept < 100 * count * 12, "as Python numbers it would be 32"


def test_a_polygon_that_leaves_the_image_is_cut(tmp_path: Path) -> None:
    write_coco(tmp_path, {1: SHAPE}, [annotation(1, 1, square(-40, -9, 5, 4))])
    assert np.array_equal(open_split(tmp_path).reader[0].truth.labels, filled((0, 0, 5, 4)))


def test_bad_images_are_failed_samples(tmp_path: Path) -> None:
    write_coco(tmp_path, dict.fromkeys(range(1, 5), SHAPE))
    (tmp_path / "val2017/000000000001.jpg").unlink()
    save_image(tmp_path / "val2017/000000000002.jpg", (20, 40))
    path = tmp_path / "val2017/000000000003.jpg"
    path.write_bytes(path.read_bytes()[:200])
    data = open_split(tmp_path)
    assert "000000000001.jpg: image file is missing" in message(data, 0)
    assert "image size 40x20, its annotation 30x20" in message(data, 1)
    assert "image cannot be read" in message(data, 2)
    assert data.reader[3].image.shape == (*SHAPE, 3)


@pytest.mark.parametrize("name", ["../outside.jpg", "/outside.jpg"])
def test_file_names_stay_in_their_folder(tmp_path: Path, name: str) -> None:
    path = write_coco(tmp_path / "coco", {1: SHAPE, 2: SHAPE})
    save_image(tmp_path / "coco/outside.jpg", SHAPE)
    content = json.loads(path.read_text())
    content["images"][0]["file_name"] = name if name.startswith("..") else f"{tmp_path}/coco{name}"
    write_json(path, content)
    data = open_split(tmp_path)
    assert "leaves its folder" in message(data) and data.reader[1].id == "000000000002"


def test_annotations_of_images_that_are_not_listed_are_counted(tmp_path: Path) -> None:
    entries = [annotation(number, image, square(0, 0, 4, 4)) for number, image in enumerate((1, 2, 8, 9))]
    write_coco(tmp_path, {1: SHAPE, 2: SHAPE}, entries)
    data = open_split(tmp_path)
    assert "2 annotations point to images that are not listed" in data.note and "\n" not in data.note
    assert [len(sample.truth.instances) for sample in data.reader] == [1, 1]
    assert "2 annotations point" in open_split(tmp_path, limit=1).note, "a limit changes nothing about strangers"


def without(field: str) -> Callable[[dict[str, Any]], Any]:
    return lambda content: {key: value for key, value in content.items() if key != field}


def changed(field: str, name: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda content: {**content, field: [{**content[field][0], name: value}, *content[field][1:]]}


BAD_FILES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "images": (without("images"), "field 'images' is missing or not a list"),
    "annotations": (without("annotations"), "field 'annotations' is missing or not a list"),
    "list": (lambda content: [content], "holds a list, expected an object"),
    "image id": (changed("images", "id", None), r"images\[0\]\.id is missing or of a wrong type"),
    "height": (changed("images", "height", "20"), r"images\[0\]\.height is missing or of a wrong type"),
    "image_id": (changed("annotations", "image_id", [3]), r"annotations\[0\]\.image_id is missing or of"),
    "category": (changed("categories", "id", "1"), r"categories\[0\]\.id is missing or of a wrong type"),
    "no entry": (lambda content: {**content, "categories": [3]}, r"categories\[0\]\.id is missing"),
    "same id": (changed("images", "id", 2), "two images are called 2"),
    "same category": (changed("categories", "id", 18), "two categories are called 18"),
    "same name": (changed("images", "file_name", "./000000000002.jpg"), "two images are called '000000000002.jpg'"),
}


@pytest.mark.parametrize("fault", BAD_FILES)
def test_a_bad_annotation_file_is_refused_in_one_line(tmp_path: Path, fault: str) -> None:
    path = write_coco(tmp_path, {1: SHAPE, 2: SHAPE}, [annotation(1, 1, [])])
    change, text = BAD_FILES[fault]
    write_json(path, change(json.loads(path.read_text())))
    with pytest.raises(UsageError, match=text) as caught:
        open_split(tmp_path)
    assert str(path) in str(caught.value) and "download" in str(caught.value) and "\n" not in str(caught.value)


def test_a_cut_download_is_refused_in_one_line(tmp_path: Path) -> None:
    path = write_coco(tmp_path, {1: SHAPE})
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UsageError, match=r"instances_val2017\.json: is not JSON, perhaps a cut download .*again$"):
        open_split(tmp_path)


def test_bad_requests_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataMissingError, match=r"no folder 'annotations' .* looked in .*; get it: cocodataset\.org"):
        open_split(tmp_path)
    path = write_coco(tmp_path, {1: SHAPE})
    with pytest.raises(UsageError, match="splits train and val, not 'test'"):
        open_split(tmp_path, "test")
    with pytest.raises(DataMissingError, match="no images in train2017 or images/train2017"):
        open_split(tmp_path, "train")
    with pytest.raises(UsageError, match=r"data\.options\.crowd: .*'drop', 'instance' or 'ignore'"):
        open_split(tmp_path, crowd="keep")
    with pytest.raises(UsageError, match=r"data\.options\.masks: .*; known options: annotations, crowd, stuff, ids"):
        open_split(tmp_path, masks="polygons")
    write_json(path, {"images": [], "annotations": [], "categories": CATEGORIES})
    with pytest.raises(DataMissingError, match="lists no image"):
        open_split(tmp_path)
    path.unlink()
    with pytest.raises(DataMissingError, match=r"instances_val2017\.json: cannot be read \(No such file"):
        open_split(tmp_path)


@pytest.mark.skipif(not REAL.is_dir(), reason="no real samples beside the checkout")
def test_real_photographs() -> None:
    data = open_split(REAL)
    assert data.ids == ("2011_000003", "2011_000025", "2011_000006") and data.categories[15] == "person"
    assert assert_masks_of_pycocotools(REAL / "annotations/instances_val2017.json", data) > 5
    for sample in data.reader:
        assert sample.image.shape[:2] == sample.truth.labels.shape
        assert set(range(1, len(sample.truth.categories) + 1)) <= set(np.unique(sample.truth.labels).tolist())
