"""Cityscapes fine: small trees as the archives unpack, instances, and bad files."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from layout_trees import damage_mask, message, open_layout, save_changed, save_picture, write_cityscapes

from ocl_bench.core.errors import DataMissingError, UsageError
from ocl_bench.data.readers.cityscapes import CLASSES, read_truth

SIZE = (16, 32)
LABELS = np.full(SIZE, 7, np.uint8)
LABELS[:6], LABELS[8:14, 2:6], LABELS[8:14, 8:12], LABELS[8:14, 20:30], LABELS[15], LABELS[0, 0] = (
    23,
    26,
    26,
    24,
    1,
    255,
)
INSTANCES = LABELS.astype(np.uint16)
INSTANCES[8:14, 2:6], INSTANCES[8:14, 8:12], INSTANCES[8:14, 20:25] = 26000, 26012, 24003
open_split = partial(open_layout, "cityscapes")


def write_frame(root: Path, name: str, split: str = "val") -> Path:
    return write_cityscapes(root, LABELS, INSTANCES, name, split)


def test_the_classes_are_those_of_the_benchmark() -> None:
    expected = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
    codes = np.array([[*range(34), 255]])
    classes = read_truth(codes, Path("x.png"), "x").classes
    assert tuple(codes[classes >= 0]) == expected == tuple(CLASSES)
    assert classes[classes >= 0].tolist() == list(range(19)) and set(classes[classes < 0].tolist()) == {-1}


def test_frames_of_all_cities_have_ids_and_classes(tmp_path: Path) -> None:
    root = tmp_path / "cityscapes"
    for name in ("munster_000001_000019", "lindau_000007_000019", "lindau_000003_000019"):
        write_frame(root, name)
    write_frame(root, "aachen_000000_000019", "train")
    for hidden in ("leftImg8bit/val/lindau/._x_leftImg8bit.png", "gtFine/val/lindau/._x_gtFine_labelIds.png"):
        (root / hidden).write_bytes(b"left by another system")
    for place in (tmp_path, root):
        data = open_split(place)
        assert data.ids == ("lindau_000003_000019", "lindau_000007_000019", "munster_000001_000019")
        assert data.root == root and data.kind == "official"
    assert (
        open_split(tmp_path, "train").ids == ("aachen_000000_000019",)
        and open_split(tmp_path, limit=2).ids == data.ids[:2]
    )
    assert data.categories[0] == "road" and data.categories[18] == "bicycle" and len(data.categories) == 19
    truth = data.reader[0].truth
    table = {7: 0, 23: 10, 24: 11, 26: 13}
    assert np.array_equal(truth.classes, np.vectorize(lambda code: table.get(code, -1))(LABELS))
    assert truth.categories == (0, 10, 11, 13)
    assert [int(truth.labels[y, x]) for y, x in ((7, 0), (3, 0), (9, 21), (9, 3), (9, 9), (15, 0), (0, 0))] == [
        1,
        2,
        3,
        4,
        4,
        -1,
        -1,
    ]


def test_instance_ids_tell_objects_apart_and_groups_stay_together(tmp_path: Path) -> None:
    write_frame(tmp_path, "lindau_000003_000019")
    truth = open_split(tmp_path, truth="instances").reader[0].truth
    assert truth.categories == (0, 10, 11, 11, 13, 13)
    places = ((7, 0), (3, 0), (9, 28), (9, 21), (9, 3), (9, 9), (15, 0), (0, 0))
    assert [int(truth.labels[y, x]) for y, x in places] == [1, 2, 3, 4, 5, 6, -1, -1]
    assert truth.labels.dtype == np.int16
    assert np.array_equal(truth.classes, open_split(tmp_path).reader[0].truth.classes)


BAD_MASKS = {
    "RGB": "is in colour, expected class numbers",
    "size": "mask size 16x8, its image 32x16",
    "label": "label 34, expected labelIds 0..33",
    "instance ids": "label 26012, expected labelIds 0..33",
    "cut": "mask cannot be read",
    "missing": "mask file is missing",
}


@pytest.mark.parametrize("fault", BAD_MASKS)
def test_bad_label_ids_are_one_line_and_leave_the_others_alone(tmp_path: Path, fault: str) -> None:
    path = Path(f"{write_frame(tmp_path, 'lindau_000003_000019')}_labelIds.png")
    write_frame(tmp_path, "lindau_000007_000019")
    if fault == "label":
        save_changed(path, LABELS, {26: 34})
    elif fault == "instance ids":
        save_picture(path, INSTANCES)
    else:
        damage_mask(path, fault)
    data = open_split(tmp_path)
    text = message(data)
    assert BAD_MASKS[fault] in text and str(path) in text
    assert data.reader[1].truth.categories == (0, 10, 11, 13)


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("missing", "mask file is missing"),
        ("other label", "instance id 33001 where lindau_000003_000019_gtFine_labelIds.png has label 26"),
        ("size", "mask size 16x8, its image 32x16"),
    ],
)
def test_bad_instance_ids_matter_only_where_they_are_asked_for(tmp_path: Path, fault: str, text: str) -> None:
    path = Path(f"{write_frame(tmp_path, 'lindau_000003_000019')}_instanceIds.png")
    if fault == "other label":
        save_changed(path, INSTANCES, {26000: 33001}, np.uint16)
    else:
        damage_mask(path, fault)
    assert open_split(tmp_path).reader[0].truth.categories == (0, 10, 11, 13)
    found = message(open_split(tmp_path, truth="instances"))
    assert text in found and str(path) in found


def test_an_annotation_without_image_is_a_failed_sample(tmp_path: Path) -> None:
    for name in ("lindau_000003_000019", "lindau_000007_000019"):
        write_frame(tmp_path, name)
    (tmp_path / "leftImg8bit/val/lindau/lindau_000003_000019_leftImg8bit.png").unlink()
    data = open_split(tmp_path)
    assert len(data) == 2 and "leftImg8bit.png: image file is missing" in message(data)


def test_bad_requests_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataMissingError, match=r"no folders leftImg8bit and gtFine; looked in .*; get it: login"):
        open_split(tmp_path)
    write_frame(tmp_path, "aachen_000000_000019", "train")
    with pytest.raises(DataMissingError, match=r"leftImg8bit/val: no image <city>/\*_leftImg8bit\.png"):
        open_split(tmp_path)
    with pytest.raises(UsageError, match="splits train and val, not 'test'"):
        open_split(tmp_path, "test")
    with pytest.raises(UsageError, match=r"data\.options\.truth: .*'classes' or 'instances'"):
        open_split(tmp_path, truth="boxes")
