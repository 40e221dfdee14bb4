"""ADE20K SceneParsing-150: small trees as the archive unpacks, bad files, and its own evaluation code as oracle."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from layout_trees import damage_mask, message, open_layout, save_changed, write_ade20k
from PIL import Image
from places import SHARED
from safetensors.numpy import load_file

from ocl_bench.core.errors import DataMissingError, UsageError
from ocl_bench.data import OpenData
from ocl_bench.metrics.semantic import confusion, miou_sem, occurring, pixel_acc

REAL, PARITY = SHARED / "real/ade20k_sample", SHARED / "parity/ade20k_metrics.safetensors"
LABELS = np.zeros((20, 28), np.uint8)
LABELS[:8], LABELS[9:, :10], LABELS[9:, 12:] = 3, 150, 1
write_pair = partial(write_ade20k, labels=LABELS)
open_split = partial(open_layout, "ade20k")


def test_splits_ids_and_classes(tmp_path: Path) -> None:
    root = tmp_path / "ADEChallengeData2016"
    for number in (2, 1):
        write_pair(root, "validation", f"ADE_val_{number:08d}")
    write_pair(root, "training", "ADE_train_00000009")
    (root / "images/validation/._ADE_val_00000001.jpg").write_bytes(b"left by another system")
    table = ["Idx\tRatio\tTrain\tVal\tStuff\tName", "1\t0.2\t1\t1\t1\twall", "3\t0.1\t1\t1\t1\tsky"]
    (root / "objectInfo150.txt").write_text("\n".join(table) + "\n")
    for place in (tmp_path, root):
        data = open_split(place)
        assert data.ids == ("ADE_val_00000001", "ADE_val_00000002") and data.root == root and data.kind == "official"
    assert data.categories == {0: "wall", 2: "sky"}
    assert open_split(tmp_path, "train").ids == ("ADE_train_00000009",)
    assert open_split(tmp_path, limit=1).ids == ("ADE_val_00000001",)
    truth = data.reader[0].truth
    assert truth.classes.dtype == truth.labels.dtype == np.int16
    assert np.array_equal(truth.classes, LABELS.astype(int) - 1)
    assert truth.categories == (0, 2, 149)
    assert np.array_equal(truth.labels, np.select([LABELS == 0, LABELS == 1, LABELS == 3], [-1, 1, 2], 3))


def test_without_folders_of_splits_the_names_tell_them_apart(tmp_path: Path) -> None:
    write_pair(tmp_path, "", "ADE_val_00000001")
    write_pair(tmp_path, "", "ADE_train_00000001")
    assert open_split(tmp_path).ids == ("ADE_val_00000001",)
    assert open_split(tmp_path, "train").ids == ("ADE_train_00000001",)
    (tmp_path / "images/ADE_train_00000001.jpg").unlink()
    with pytest.raises(DataMissingError, match=r"no image ADE_train_\*\.jpg"):
        open_split(tmp_path, "train")


BAD_MASKS = {
    "RGB": "is in colour, expected class numbers",
    "size": "mask size 14x10, its image 28x20",
    "class 151": "label 151, expected 0..150",
    "16 bit": "label 40000, expected 0..150",
    "cut": "mask cannot be read",
    "missing": "mask file is missing",
}


@pytest.mark.parametrize("fault", BAD_MASKS)
def test_a_bad_annotation_is_one_line_and_leaves_the_others_alone(tmp_path: Path, fault: str) -> None:
    path = write_pair(tmp_path, "validation", "ADE_val_00000001")
    write_pair(tmp_path, "validation", "ADE_val_00000002")
    if fault == "class 151":
        save_changed(path, LABELS, {150: 151})
    else:
        damage_mask(path, fault, 150)
    data = open_split(tmp_path)
    text = message(data)
    assert BAD_MASKS[fault] in text and str(path) in text
    assert data.reader[1].truth.categories == (0, 2, 149)


def test_an_annotation_without_image_is_a_failed_sample(tmp_path: Path) -> None:
    for number in (1, 2):
        write_pair(tmp_path, "validation", f"ADE_val_{number:08d}")
    (tmp_path / "images/validation/ADE_val_00000001.jpg").unlink()
    data = open_split(tmp_path)
    assert len(data) == 2 and "ADE_val_00000001.jpg: image file is missing" in message(data)


def test_bad_requests_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataMissingError, match=r"no folders images and annotations; looked in .*; get it: the archive"):
        open_split(tmp_path)
    with pytest.raises(UsageError, match="splits train and val, not 'test'"):
        open_split(tmp_path, "test")
    write_pair(tmp_path, "validation", "ADE_val_00000001")
    (tmp_path / "objectInfo150.txt").write_text("Idx\tName\nwall\t1\n")
    with pytest.raises(UsageError, match="is not the table of SceneParsing-150"):
        open_split(tmp_path)


def check_scores(data: OpenData, predictions: list[np.ndarray], expected: dict[str, np.ndarray], case: str) -> None:
    """Compare with the official code, for which 0 on a labelled pixel is wrong, but belongs to no class."""
    total = np.zeros((151, 151), dtype=np.int64)
    for position, (sample, named) in enumerate(zip(data.reader, predictions, strict=True)):
        table = confusion(sample.truth.classes, np.where(named == 0, 150, named.astype(int) - 1), 151)
        both = np.diagonal(table)[:150]
        union = table.sum(1)[:150] + table.sum(0)[:150] - both
        for name, value in {
            "intersection": both,
            "union": union,
            "pixel_labeled": table.sum(),
            "pixel_correct": both.sum(),
            "pixel_accuracy": pixel_acc(table),
        }.items():
            assert np.allclose(value, expected[f"out.{case}.{name}"][position], rtol=0, atol=1e-12), name
        total += table
    counted = occurring(total) & (np.arange(151) < 150)
    assert miou_sem(total, counted) == pytest.approx(expected[f"out.{case}.mean_iou_present"].item(), abs=1e-12)
    assert pixel_acc(total) == pytest.approx(expected[f"out.{case}.pixel_accuracy_all"].item(), abs=1e-12)


@pytest.mark.skipif(not (REAL.is_dir() and PARITY.is_file()), reason="no real samples beside the checkout")
def test_real_images_score_as_in_the_evaluation_code_of_the_benchmark() -> None:
    data = open_split(REAL)
    assert data.ids == ("ADE_val_00000001", "ADE_val_00000002", "ADE_val_00000003")
    assert [sample.image.shape for sample in data.reader] == [(512, 683, 3), (364, 500, 3), (300, 400, 3)]
    predictions = [np.asarray(Image.open(REAL / f"predictions/{name}.png")) for name in data.ids]
    check_scores(data, predictions, load_file(PARITY), "sample")


@pytest.mark.skipif(not PARITY.is_file(), reason="no parity files beside the checkout")
def test_wrong_predictions_score_as_in_the_evaluation_code_of_the_benchmark(tmp_path: Path) -> None:
    arrays = load_file(PARITY)
    for position in range(3):
        write_pair(tmp_path, "validation", f"ADE_val_{position:08d}", labels=arrays[f"in.{position}.true"])
    check_scores(open_split(tmp_path), [arrays[f"in.{position}.pred"] for position in range(3)], arrays, "perturbed")
