"""Archives that a tool unpacked into a folder of their name: the official layout, one folder deeper."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from layout_trees import annotation, open_layout, square, write_ade20k, write_cityscapes, write_coco, write_voc

from ocl_bench.core.errors import DataMissingError, UsageError
from ocl_bench.data import OpenData

LABELS = np.zeros((20, 30), np.uint8)
LABELS[3:9, 2:12] = 7
open_voc, open_city, open_coco = (partial(open_layout, reader) for reader in ("voc", "cityscapes", "coco"))


def put(folder: Path, place: Path) -> Path:
    """Move a folder to a place, whose folders are made."""
    parked = shutil.move(folder, folder.parents[1] / "parked")
    place.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.move(parked, place))


def write_city(root: Path) -> Path:
    write_cityscapes(root / "cityscapes", LABELS, LABELS, "ulm_000000_000019")
    return root / "cityscapes"


def write_photos(root: Path) -> Path:
    entries = [annotation(1, 1, square(2, 3, 12, 9))]
    write_coco(root / "coco", {1: (20, 30)}, entries)
    return root / "coco"


def same(first: OpenData, second: OpenData) -> None:
    assert first.ids == second.ids and len(first) and first.kind == second.kind == "official"
    for one, other in zip(first.reader, second.reader, strict=True):
        assert np.array_equal(one.truth.labels, other.truth.labels) and np.array_equal(one.image, other.image)


@pytest.mark.parametrize("root", ["", "VOC2012_train_val", "VOC2012_train_val/VOC2012_train_val"])
def test_the_voc_tree_of_kaggle(tmp_path: Path, root: str) -> None:
    expected = open_voc(write_voc(tmp_path / "official", LABELS, LABELS, val=("2007_000032",)))
    made = write_voc(tmp_path / "made", LABELS, LABELS, val=("2007_000032",))
    put(made, tmp_path / "kaggle/VOC2012_train_val/VOC2012_train_val")
    test_set = tmp_path / "kaggle/VOC2012_test/VOC2012_test"
    (test_set / "JPEGImages").mkdir(parents=True)
    same(open_voc(tmp_path / "kaggle" / root), expected)


def test_the_year_of_a_wrapped_voc_counts(tmp_path: Path) -> None:
    made = write_voc(tmp_path / "made", LABELS, LABELS, 2007, val=("000005",))
    put(made, tmp_path / "VOC2007_train_val/VOC2007_train_val")
    shutil.rmtree(tmp_path / "made")
    assert open_voc(tmp_path, year=2007).ids == ("000005",)
    for root in (tmp_path, tmp_path / "VOC2007_train_val", tmp_path / "VOC2007_train_val/VOC2007_train_val"):
        with pytest.raises(DataMissingError, match="no folder JPEGImages of VOC2012"):
            open_voc(root)


def test_an_archive_of_voc_in_a_folder_of_its_name(tmp_path: Path) -> None:
    expected = open_voc(write_voc(tmp_path / "official", LABELS, LABELS, val=("2007_000032",)))
    write_voc(tmp_path / "other/VOCtrainval_11-May-2012", LABELS, LABELS, val=("2007_000032",))
    same(open_voc(tmp_path / "other"), expected)


@pytest.mark.parametrize("wrapped", [("gtFine",), ("leftImg8bit",), ("gtFine", "leftImg8bit")])
def test_the_archives_of_cityscapes_in_folders_of_their_names(tmp_path: Path, wrapped: tuple[str, ...]) -> None:
    expected = open_city(write_city(tmp_path / "official"))
    root = write_city(tmp_path / "other")
    for name in wrapped:
        put(root / name, root / f"{name}_trainvaltest" / name)
    for place in (root, root.parent):
        same(open_city(place), expected)


@pytest.mark.parametrize("images", ["val2017", "images/val2017"])
def test_the_archives_of_coco_in_folders_of_their_names(tmp_path: Path, images: str) -> None:
    expected = open_coco(write_photos(tmp_path / "official"))
    root = write_photos(tmp_path / "other")
    put(root / "val2017", root / images / "val2017")
    (root / images / ".DS_Store").touch()
    same(open_coco(root), expected)
    put(root / "annotations", root / "annotations_trainval2017/annotations")
    same(open_coco(root.parent), expected)


def test_a_data_set_in_a_folder_of_its_name(tmp_path: Path) -> None:
    name = "ADEChallengeData2016"
    for place in ("official", f"other/{name}"):
        write_ade20k(tmp_path / place / name, "validation", "ADE_val_00000001", LABELS)
    expected = open_layout("ade20k", tmp_path / "official")
    for root in (tmp_path / "other", tmp_path / "other" / name):
        same(open_layout("ade20k", root), expected)


def test_a_wrapper_may_be_a_link(tmp_path: Path) -> None:
    expected, root = open_city(write_city(tmp_path / "official")), write_city(tmp_path / "other")
    moved = put(root / "gtFine", tmp_path / "disk/gtFine")
    (root / "gtFine_trainvaltest").symlink_to(moved.parent)
    same(open_city(root), expected)


def test_two_that_fit_are_refused(tmp_path: Path) -> None:
    voc = write_voc(tmp_path / "made", LABELS, LABELS, val=("2007_000032",))
    for name in ("VOC2012_train_val", "VOC2012 (copy)"):
        shutil.copytree(voc, tmp_path / "voc" / name / "VOC2012_train_val")
    city = write_city(tmp_path / "city")
    for name in ("gtFine_trainvaltest", "gtFine_new"):
        shutil.copytree(city / "gtFine", city / name / "gtFine")
    shutil.rmtree(city / "gtFine")
    photos = write_photos(tmp_path / "coco")
    for name in ("annotations_trainval2017", "annotations_new"):
        shutil.copytree(photos / "annotations", photos / name / "annotations")
    shutil.rmtree(photos / "annotations")
    for opened, root in ((open_voc, tmp_path / "voc"), (open_city, city), (open_coco, photos)):
        with pytest.raises(UsageError, match=r"found the same data in \S.+ and in \S.+; move one elsewhere"):
            opened(root)


def test_the_official_place_goes_first(tmp_path: Path) -> None:
    root = write_city(tmp_path)
    shutil.copytree(root / "gtFine", root / "gtFine_trainvaltest/gtFine")
    data = open_city(root)
    assert all(not name.startswith("gtFine_") for name in data.reader.manifest.annotations)  # type: ignore[attr-defined]
