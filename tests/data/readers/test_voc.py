"""PASCAL VOC with SBD: small trees as the archives unpack, and everything that may be wrong with them."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import layout_trees
import numpy as np
import pytest
from layout_trees import damage_mask, message, open_layout, save_image, save_palette
from PIL import Image
from places import SHARED
from scipy.io import savemat

from ocl_bench.core.errors import DataMissingError, UsageError
from ocl_bench.core.types import Instance
from ocl_bench.data.readers import voc

HEIGHT, WIDTH = 24, 32
REAL = SHARED / "real/voc_sample"

CLASSES = np.zeros((HEIGHT, WIDTH), np.uint8)
CLASSES[2:10, 2:12], CLASSES[12:22, 4:14], CLASSES[12:22, 18:30] = 15, 15, 8
OBJECTS = np.zeros((HEIGHT, WIDTH), np.uint8)
OBJECTS[2:10, 2:12], OBJECTS[12:22, 4:14], OBJECTS[12:22, 18:30] = 1, 4, 2
CLASSES[12, 4:30] = OBJECTS[12, 4:30] = 255
CLASSES[14, 18:20] = 15  # two pixels of another class do not name the object
LABELS = np.select([OBJECTS == 255, OBJECTS == 4], [-1, 3], OBJECTS.astype(int))
open_split = partial(open_layout, "voc")


def write_voc(root: Path, year: int = 2012, **lists: tuple[str, ...]) -> Path:
    return layout_trees.write_voc(root, CLASSES, OBJECTS, year, **lists)


def write_sbd(root: Path, train: tuple[str, ...], val: tuple[str, ...]) -> Path:
    """Its masks are class 3 in the upper half, objects 1 and 2 left and right in it."""
    classes, objects = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    classes[:12], objects[:12, :16], objects[:12, 16:] = 3, 1, 2
    return layout_trees.write_sbd(root, classes, objects, train=train, val=val)


def test_every_place_of_the_root_is_found(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, val=("2011_000003", "2007_000033"))
    for root in (folder, folder.parent, folder.parent.parent):
        data = open_split(root)
        assert data.root == folder and data.ids == ("2011_000003", "2007_000033") and data.kind == "official"
    assert data.categories[15] == "person" and len(data.categories) == 20
    assert open_split(tmp_path, limit=1).ids == ("2011_000003",)


def test_another_year_is_not_taken_for_this_one(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, 2007, val=("000005",))
    assert open_split(folder, year=2007).ids == ("000005",)
    with pytest.raises(DataMissingError, match="no folder JPEGImages of VOC2012"):
        open_split(folder)
    with pytest.raises(UsageError, match="SBD extends VOC2012"):
        open_split(folder, "trainaug", year=2007)


def test_instances_are_numbered_without_gaps_and_named_by_most_of_their_pixels(tmp_path: Path) -> None:
    write_voc(tmp_path, val=("a",))
    truth = open_split(tmp_path).reader[0].truth
    assert truth.labels.dtype == np.int16 and np.array_equal(truth.labels, LABELS)
    assert truth.categories == (15, 8, 15)
    assert np.array_equal(truth.classes, np.where(CLASSES == 255, -1, CLASSES.astype(int)))
    assert [one.box for one in truth.instances] == [(2, 2, 12, 10), (18, 13, 30, 22), (4, 13, 14, 22)]
    assert [one.area for one in truth.instances] == [80, 108, 90]


def test_classes_alone_are_enough_where_the_card_asks_for_classes(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, val=("a",))
    shutil.rmtree(folder / "SegmentationObject")
    truth = open_split(tmp_path, truth="classes").reader[0].truth
    assert truth.categories == (8, 15)
    assert np.array_equal(truth.labels, np.select([CLASSES == 255, CLASSES == 8, CLASSES == 15], [-1, 1, 2], 0))
    with pytest.raises(DataMissingError, match="SegmentationObject: there is no such folder"):
        open_split(tmp_path)
    (folder / "SegmentationObject").mkdir()
    assert "SegmentationObject: mask file is missing" in message(open_split(tmp_path))


def test_objects_alone_are_enough_for_instances(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, 2007, trainval=("000032", "000039"))
    shutil.rmtree(folder / "SegmentationClass")
    data = open_split(tmp_path, "all-masks", year=2007)
    assert data.ids == ("000032", "000039")
    truth = data.reader[1].truth
    assert truth.classes is None and truth.categories == () and np.array_equal(truth.labels, LABELS)


def test_void_of_either_map_is_void(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, val=("a",))
    save_palette(folder / "SegmentationObject/a.png", np.where(OBJECTS == 255, 0, OBJECTS))
    assert np.array_equal(open_split(tmp_path).reader[0].truth.labels, LABELS)


def test_all_masks_needs_no_list(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, 2007, train=("000042",), test=("000068",))
    shutil.rmtree(folder / "ImageSets")
    (folder / "SegmentationObject/._000042.png").write_bytes(b"left by another system")
    assert open_split(tmp_path, "all-masks", year=2007).ids == ("000042", "000068")
    shutil.rmtree(folder / "SegmentationObject")
    with pytest.raises(DataMissingError, match="split 'all-masks' names no image"):
        open_split(tmp_path, "all-masks", year=2007)


@pytest.mark.parametrize("beside", [True, False])
def test_trainaug_is_made_from_sbd_without_the_images_of_val(tmp_path: Path, beside: bool) -> None:
    folder = write_voc(tmp_path, train=("b", "d"), val=("c", "f"))
    write_sbd(tmp_path if beside else folder.parent, train=("e", "b", "f"), val=("a", "c"))
    data = open_split(tmp_path, "trainaug")
    assert data.ids == ("a", "b", "d", "e")
    samples = {sample.id: sample.truth for sample in data.reader}
    assert np.array_equal(samples["b"].labels, LABELS), "VOC's own masks go before those of SBD"
    expected = np.zeros((HEIGHT, WIDTH))
    expected[:12] = 3
    assert np.array_equal(samples["a"].classes, expected)
    assert samples["a"].categories == (3, 3) and samples["a"].labels[0].tolist() == [1] * 16 + [2] * 16
    assert open_split(tmp_path, "trainaug", truth="classes").reader[3].truth.categories == (3, 3)


@pytest.mark.parametrize("name", ["trainaug.txt", "train_aug.txt", "aug.txt"])
def test_trainaug_of_converters(tmp_path: Path, name: str) -> None:
    folder = write_voc(tmp_path, train=("b",), val=("c",))
    listed = ("x",) if name == "aug.txt" else ("b", "x")
    (folder / "ImageSets/Segmentation" / name).write_text("\n".join(listed))
    save_image(folder / "JPEGImages/x.jpg", (HEIGHT, WIDTH))
    grey = np.where(CLASSES == 15, 7, CLASSES).astype(np.uint8)
    for image in ("b", "x", "c"):
        (folder / "SegmentationClassAug").mkdir(exist_ok=True)
        Image.fromarray(grey).save(folder / f"SegmentationClassAug/{image}.png")
    data = open_split(tmp_path, "trainaug", truth="classes")
    assert data.ids == ("b", "x")
    assert data.reader[0].truth.classes.max() == 15 and data.reader[1].truth.classes.max() == 8


def test_no_other_split_takes_masks_of_sbd(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, train=("b",), val=("c",))
    write_sbd(tmp_path, train=("c",), val=())
    (folder / "SegmentationClassAug").mkdir()
    save_palette(folder / "SegmentationClassAug/c.png", CLASSES)
    (folder / "SegmentationClass/c.png").unlink()
    (folder / "SegmentationObject/c.png").unlink()
    for truth in ("classes", "instances"):
        assert "mask file is missing" in message(open_split(tmp_path, truth=truth))


def test_trainaug_without_sbd_says_what_is_missing(tmp_path: Path) -> None:
    write_voc(tmp_path, train=("b",), val=("c",))
    with pytest.raises(DataMissingError, match=r"no trainaug\.txt, and no benchmark_RELEASE"):
        open_split(tmp_path, "trainaug")


BAD_MASKS = {
    "RGB": "is in colour, expected palette numbers",
    "size": "mask size 16x12, its image 32x24",
    "class 21": "number 21, expected 0..20 or 255",
    "16 bit": "number 40000, expected 0..20 or 255",
    "cut": "mask cannot be read",
    "text": "not a PNG file",
}


@pytest.mark.parametrize("fault", BAD_MASKS)
def test_a_bad_mask_is_one_line_and_leaves_the_others_alone(tmp_path: Path, fault: str) -> None:
    folder = write_voc(tmp_path, val=("a", "b"))
    path = folder / "SegmentationClass/a.png"
    if fault == "class 21":
        save_palette(path, np.where(CLASSES == 8, 21, CLASSES))
    elif fault == "text":
        path.write_text("no image")
    else:
        damage_mask(path, fault, 8)
    data = open_split(tmp_path, truth="classes")
    text = message(data)
    assert BAD_MASKS[fault] in text and str(path) in text
    assert data.reader[1].truth.classes.max() == 15


@pytest.mark.parametrize("fault", ["cut", "text", "other field", "size", "class"])
def test_a_bad_mask_of_sbd_is_one_line(tmp_path: Path, fault: str) -> None:
    write_voc(tmp_path, train=("b",), val=("c",))
    path = write_sbd(tmp_path, train=("a",), val=()) / "cls/a.mat"
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:200])
    elif fault == "text":
        path.write_text("no matrix" * 40)
    elif fault == "other field":
        savemat(path, {"GTinst": {"Segmentation": CLASSES}})
    else:
        values = CLASSES[::2] if fault == "size" else np.full_like(CLASSES, 33)
        savemat(path, {"GTcls": {"Segmentation": values}})
    expected = {"size": "mask size 32x12, its image 32x24", "class": "number 33, expected 0..20"}
    text = message(open_split(tmp_path, "trainaug"))
    assert expected.get(fault, "no SBD mask 'GTcls'") in text and "a.mat" in text


def test_a_listed_image_that_is_not_there_is_a_failed_sample(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, val=("a", "b"))
    (folder / "JPEGImages/a.jpg").unlink()
    data = open_split(tmp_path)
    assert "a.jpg: image file is missing" in message(data) and data.reader[1].id == "b"


@pytest.mark.parametrize(
    ("content", "kind", "text"),
    [
        ("", DataMissingError, "names no image"),
        ("a\nb\na\n", UsageError, "'a' is listed twice"),
        ("/JPEGImages/a.jpg /SegmentationClass/a.png\n", UsageError, "is not a plain image id"),
        ("../a\n", UsageError, "is not a plain image id"),
    ],
)
def test_bad_lists_are_refused(tmp_path: Path, content: str, kind: type[Exception], text: str) -> None:
    folder = write_voc(tmp_path, val=("a", "b"))
    (folder / "ImageSets/Segmentation/val.txt").write_text(content)
    with pytest.raises(kind, match=text):
        open_split(tmp_path)


def test_bad_requests_are_one_line(tmp_path: Path) -> None:
    write_voc(tmp_path, val=("a",))
    with pytest.raises(DataMissingError, match=r"test\.txt: list of images cannot be read"):
        open_split(tmp_path, "test")
    with pytest.raises(UsageError, match=r"split '\.\./val' is not a plain name"):
        open_split(tmp_path, "../val")
    with pytest.raises(UsageError, match=r"data\.options\.year.*known options: year, truth, boxes"):
        open_split(tmp_path, year=2011)
    with pytest.raises(UsageError, match=r"data\.options\.void"):
        open_split(tmp_path, void=255)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataMissingError, match="no folder JPEGImages of VOC2012; looked in"):
        open_split(tmp_path / "empty")


def test_the_revision_changes_with_a_file(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, val=("a", "b"))
    before = open_split(tmp_path).revision
    assert open_split(tmp_path).revision == before
    save_palette(folder / "SegmentationObject/b.png", np.zeros_like(CLASSES))
    assert open_split(tmp_path).revision != before


def boxed(name: str, *corners: object, difficult: int = 0) -> str:
    fields = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    box = "".join(f"<{key}>{value}</{key}>" for key, value in fields)
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{box}</bndbox>{part}</object>"


def write_boxes(folder: Path, *objects: str) -> Path:
    path = folder / "Annotations/a.xml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"<annotation><filename>a.jpg</filename>{''.join(objects)}</annotation>")
    return path


def test_boxes_of_annotations_find_their_masks_in_any_order(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, val=("a",))
    write_boxes(
        folder,
        boxed("person", 4, 12, 15, 23),
        boxed("cat", 18.5, 12, 40, 23),
        boxed("sofa", 1, 1, 32, 24, difficult=1),
        boxed("person", 2, 2, 13, 11),
    )
    plain = open_split(tmp_path).reader[0].truth.instances
    found = open_split(tmp_path, boxes="annotations").reader[0].truth.instances
    assert [one.box for one in found] == [(3, 11, 15, 23), (17.5, 11, 32, 23), (0, 0, 32, 24), (1, 1, 13, 11)]
    assert [one.category for one in found] == [15, 8, 18, 15]
    assert [one.mask for one in found] == [plain[2].mask, plain[1].mask, None, plain[0].mask]
    assert [one.area for one in found] == [90, 108, 32 * 24, 80]
    assert [one.crowd for one in found] == [False, False, True, False]


def test_a_box_of_another_class_takes_no_mask(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, val=("a",))
    write_boxes(folder, boxed("dog", 3, 3, 12, 10), boxed("person", 1, 1, 14, 12))
    found = open_split(tmp_path, boxes="annotations").reader[0].truth.instances
    assert found[0].mask is None and found[1].mask is not None and found[1].area == 80


def test_a_mask_without_a_box_stays_an_instance(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, val=("a",))
    write_boxes(folder, boxed("person", 3, 3, 12, 10))
    found: tuple[Instance, ...] = open_split(tmp_path, boxes="annotations").reader[0].truth.instances
    assert [one.box for one in found] == [(2, 2, 12, 10), (18, 13, 30, 22), (4, 13, 14, 22)]
    write_boxes(folder)
    assert len(open_split(tmp_path, boxes="annotations").reader[0].truth.instances) == 3


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (boxed("person", 40, 3, 50, 10), r"object 1: box (40, 3, 50, 10) is not in the image"),
        (boxed("person", 9, 3, 5, 10), "is not in the image"),
        (boxed("person", "", 3, 5, 10), "box (nan, 3, 5, 10) is not in the image"),
        (boxed("person", 1, 3, "1e300", 10), "box (1, 3, 1e+300, 10) is not in the image"),
        (boxed("person", "left", 3, 5, 10), "could not convert string to float"),
        (boxed("unicorn", 1, 3, 5, 10), "object 1 has the unknown class 'unicorn'"),
        ("<object>", "boxes cannot be read (mismatched tag"),
    ],
)
def test_bad_boxes_are_one_line_and_only_where_they_are_asked_for(tmp_path: Path, content: str, text: str) -> None:
    path = write_boxes(write_voc(tmp_path, val=("a",)), content)
    found = message(open_split(tmp_path, boxes="annotations"))
    assert text in found and str(path) in found
    assert len(open_split(tmp_path).reader[0].truth.instances) == 3
    path.unlink()
    assert "boxes cannot be read (No such file" in message(open_split(tmp_path, boxes="annotations"))


@pytest.mark.skipif(not REAL.is_dir(), reason="no real samples beside the checkout")
def test_real_photographs() -> None:
    data = open_split(REAL)
    assert data.ids == ("2011_000003", "2011_000006", "2011_000025")
    gaps = []
    for sample in data.reader:
        with Image.open(data.root / f"SegmentationObject/{sample.id}.png") as picture:
            stored = np.asarray(picture)
        truth = sample.truth
        assert sample.image.shape[:2] == truth.labels.shape == stored.shape
        # labelme, which wrote these files, marks void in the class map only.
        assert np.array_equal(truth.labels == -1, (stored == 0) & (truth.classes == -1))
        numbers = [number for number in np.unique(stored) if number not in (0, 255)]
        assert len(truth.categories) == truth.labels.max() == len(numbers) == len(truth.instances)
        for label, (number, category) in enumerate(zip(numbers, truth.categories, strict=True), start=1):
            assert np.array_equal(truth.labels == label, stored == number)
            assert set(truth.classes[stored == number].tolist()) == {category} and 1 <= category <= 20
        gaps.append(len(numbers) < numbers[-1])
    assert any(gaps)


def test_instances_are_encoded_only_when_they_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_voc(tmp_path, val=("a",))
    calls: list[int] = []
    encode = voc.region_codes
    monkeypatch.setattr(voc, "region_codes", lambda labels, count: calls.append(count) or encode(labels, count))
    truth = open_split(tmp_path).reader[0].truth
    assert np.array_equal(truth.labels, LABELS) and len(truth.instances) == 3 and not calls
    assert truth.instances[-1] == list(truth.instances)[2] == truth.instances[1:][1] and calls == [3], "and once"
