"""MOVi: TFRecords that are encoded by hand, incomplete and damaged files, and reading one record at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_trees import fault
from PIL import Image
from video_layout_trees import (
    all_frames,
    frame,
    movi_features,
    moving_labels,
    open_with,
    png,
    record_opens,
    write_movi,
    write_tfrecord,
)

from ocl_bench.core.errors import DataMissingError, UsageError
from ocl_bench.data.base import Request
from ocl_bench.data.readers import movi
from ocl_bench.data.readers.movi import open_movi
from ocl_bench.data.stand_ins.layouts import LayoutTree

SHAPE = (128, 128)
NAMES = (
    "{dataset}-{split}.tfrecord-{number:05d}-of-{total:05d}",
    "{dataset}-{split}-{number:05d}-of-{total:05d}.tfrecord",
    "{dataset}-{split}-{number:05d}-of-{total:05d}",
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dataset", ["movi_c", "movi_e"])
def test_videos_come_back(tmp_path: Path, dataset: str, name: str) -> None:
    folder = write_movi(tmp_path, (2, 0, 1), dataset=dataset, name=name)
    data = open_with(open_movi, tmp_path, "validation", folder="movi", dataset=dataset)
    assert data.kind == "official" and data.root == folder.resolve()
    assert data.ids == ("00000-0000", "00000-0001", "00002-0000"), "number of the file and of the record"
    assert dataset in data.note and "3 videos" in data.note and data.categories == {}
    for salt, video in enumerate(data.reader):
        assert video.names == ("00000", "00001", "00002")
        for t, sample in enumerate(all_frames(video)):
            assert np.array_equal(sample.image, frame(t + salt, SHAPE)), "PNG keeps every value"
            assert np.array_equal(sample.truth.labels, moving_labels(t, SHAPE))
            assert sample.truth.categories == (16, 0)


@pytest.mark.parametrize("below", ["", "movi_c", "movi_c/128x128", "movi_c/128x128/1.0.0"])
def test_any_folder_above_the_files_is_a_root(tmp_path: Path, below: str) -> None:
    write_movi(tmp_path, (1,))
    (tmp_path / "movi_c/128x128/1.0.0/movi_e-validation.tfrecord-00000-of-00002").write_bytes(b"")
    if below == "movi_c/128x128":
        with pytest.raises(DataMissingError, match=r"movi_c/128x128/1.0.0; get it: example.org"):
            open_with(open_movi, tmp_path / below, "validation")
    else:
        assert len(open_with(open_movi, tmp_path / below, "validation")) == 1


def test_one_record_and_one_frame_are_read_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_movi(tmp_path, (2, 1))
    read: list[tuple[str, int]] = []
    original = movi.read_record
    monkeypatch.setattr(
        movi, "read_record", lambda path, offset: (read.append((path.name, offset)), original(path, offset))[1]
    )
    reader = open_with(open_movi, tmp_path, "validation").reader
    opened = record_opens(monkeypatch)
    assert read == []
    video = reader[2]
    assert read == [("movi_c-validation.tfrecord-00001-of-00002", 0)] and opened == []
    assert np.array_equal(video.frames[1].image, frame(3, SHAPE)) and len(opened) == 2, "a frame and its mask"
    assert len(read) == 1, "the record is not read again"


def test_features_that_are_not_needed_may_be_absent(tmp_path: Path) -> None:
    def strip(features: dict[str, Any]) -> None:
        for name in ("instances/category", "background", "metadata/video_name"):
            del features[name]

    folder = write_movi(tmp_path, (1,), change=strip)
    (folder / "dataset_info.json").unlink()
    (folder / "features.json").unlink()
    (folder / "instances-category.labels.txt").write_text("Bag\nToys\n")
    data = open_with(open_movi, tmp_path, "validation")
    assert data.reader[0].frames[0].truth.categories == () and data.categories == {0: "Bag", 1: "Toys"}


def test_jpeg_frames_are_read(tmp_path: Path) -> None:
    def to_jpeg(features: dict[str, Any]) -> None:
        path = tmp_path / "frame.jpg"
        Image.fromarray(frame(0, SHAPE)).save(path)
        features["video"] = [path.read_bytes()] * 3

    write_movi(tmp_path, (1,), change=to_jpeg)
    video = open_with(open_movi, tmp_path, "validation").reader[0]
    assert all(np.abs(s.image.astype(int) - frame(0, SHAPE)).max() <= 2 for s in all_frames(video))


def test_incomplete_files_are_refused(tmp_path: Path) -> None:
    folder = write_movi(tmp_path, (1, 2, 1))
    second = folder / "movi_c-validation.tfrecord-00001-of-00003"
    content = second.read_bytes()

    def message(kind: type[Exception] = UsageError) -> str:
        with pytest.raises(kind) as caught:
            open_with(open_movi, tmp_path, "validation")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    second.write_bytes(content[: len(content) * 3 // 4])
    text = message()
    assert str(second) in text and "cut" in text and "byte" in text
    second.write_bytes(content[: len(content) // 2 + 7])
    assert str(second) in message()
    write_tfrecord(second, [])
    assert "0 videos, dataset_info.json says 2" in message()
    second.write_bytes(b"\x05" + content[1:])
    assert "checksum" in message()
    second.unlink()
    assert "1 of 3 files of split 'validation' are missing" in message(DataMissingError)
    second.write_bytes(content)
    copy = folder / "movi_c-validation-00001-of-00003.tfrecord"
    copy.write_bytes(content)
    assert "are one file; remove one" in message()
    copy.rename(folder / "movi_c-validation.tfrecord-00000-of-00002")
    assert "files of 2 and of 3" in message()
    (folder / "movi_c-validation.tfrecord-00000-of-00002").unlink()
    assert len(open_with(open_movi, tmp_path, "validation")) == 4
    info = json.loads((folder / "dataset_info.json").read_text())
    info["splits"][1]["shardLengths"] = ["1", "2"]
    (folder / "dataset_info.json").write_text(json.dumps(info))
    assert "2 files in split 'validation', 3 are there" in message()
    for splits in ([{"shardLengths": ["1"]}], 3, [{"name": "validation", "shardLengths": ["one"]}]):
        (folder / "dataset_info.json").write_text(json.dumps({"splits": splits}))
        assert "field 'splits'" in message()
    (folder / "dataset_info.json").write_text('{"splits": [')
    assert "is not JSON" in message()


def test_no_video_and_no_file(tmp_path: Path) -> None:
    write_movi(tmp_path, (0, 0))
    with pytest.raises(UsageError, match="hold no video"):
        open_with(open_movi, tmp_path, "validation")
    with pytest.raises(DataMissingError, match="no file movi_c-test"):
        open_with(open_movi, tmp_path, "test")
    with pytest.raises(DataMissingError, match="no file movi_e-validation"):
        open_with(open_movi, tmp_path, "validation", dataset="movi_e")
    with pytest.raises(UsageError, match="splits train, validation, test, not 'val'"):
        open_with(open_movi, tmp_path, "val")
    with pytest.raises(UsageError, match=r"data\.options\.dataset"):
        open_with(open_movi, tmp_path, "validation", dataset="movi_z")


def test_a_damaged_record_fails_alone(tmp_path: Path) -> None:
    folder = write_movi(tmp_path, (3,))
    path = folder / "movi_c-validation.tfrecord-00000-of-00001"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content))
    reader = open_with(open_movi, tmp_path, "validation").reader
    text = fault(lambda: reader[1], "00000-0001")
    assert "checksum" in text and str(path) in text and text.count(str(path)) == 1
    assert len(all_frames(reader[0])) == len(all_frames(reader[2])) == 3


CHANGES: dict[str, tuple[Any, str]] = {
    "no video": (lambda f: f.pop("video"), "feature 'video' is missing"),
    "no masks": (lambda f: f.pop("segmentations"), "feature 'segmentations' is missing"),
    "numbers": (lambda f: f.update(video=[1, 2]), "feature 'video' is missing or not a list of images"),
    "fewer masks": (lambda f: f["segmentations"].pop(), "3 frames, 2 segmentations"),
    "no image": (lambda f: f["video"].__setitem__(1, b"none"), "video[1] is not an image"),
    "half an image": (lambda f: f["video"].__setitem__(1, f["video"][1][:-30]), "video[1] is not an image"),
    "other size": (lambda f: f["video"].__setitem__(2, png(frame(1, (64, 64)))), "video[2] has 64x64 pixels"),
    "colour": (lambda f: f["segmentations"].__setitem__(0, png(frame(1, SHAPE))), "segmentations[0] has mode 'RGB'"),
    "16 bits": (
        lambda f: f["segmentations"].__setitem__(0, png(np.full(SHAPE, 40000, np.uint16))),
        "segmentations[0] has mode 'I;16'",
    ),
    "names": (lambda f: f.update({"instances/category": [b"Bag", b"Toys"]}), "'instances/category' is not a list of"),
    "categories": (lambda f: f.update({"instances/category": [4]}), "segmentations[0] shows instance 1 of 1"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_contradictions_are_one_line(tmp_path: Path, name: str) -> None:
    change, expected = CHANGES[name]
    write_movi(tmp_path, (1,), change=change)
    reader = open_with(open_movi, tmp_path, "validation").reader
    assert expected in fault(lambda: list(reader[0].frames), "00000-0000")


def test_a_record_that_is_no_example(tmp_path: Path) -> None:
    folder = write_movi(tmp_path, (1,))
    write_tfrecord(folder / "movi_c-validation.tfrecord-00000-of-00001", [b"\xff" * 40])
    reader = open_with(open_movi, tmp_path, "validation").reader
    assert "record at byte 0: not a tf.train.Example" in fault(lambda: reader[0], "00000-0000")


def test_limit_and_revision(tmp_path: Path) -> None:
    folder = write_movi(tmp_path, (2, 2))
    data = open_with(open_movi, tmp_path, "validation", limit=3)
    assert data.ids == ("00000-0000", "00000-0001", "00001-0000") and len(data.reader) == 3
    path = folder / "movi_c-validation.tfrecord-00001-of-00002"
    path.write_bytes(path.read_bytes() * 2)
    (folder / "dataset_info.json").unlink()
    assert open_with(open_movi, tmp_path, "validation", limit=3).revision != data.revision


def test_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_movi(tmp_path, (2,), dataset="movi_e")
    asked: list[str] = []

    def layout(request: Request, name: str) -> LayoutTree:
        asked.append(name)
        return LayoutTree(tmp_path, "embedded-r1-0", 2, "data: embedded")

    monkeypatch.setattr(movi, "ensure_layout", layout)
    data = open_with(open_movi, None, "validation", dataset="movi_e")
    assert (data.kind, data.revision, len(data), asked) == ("embedded", "embedded-r1-0", 2, ["movi_e"])
    for options in ({"dataset": "movi_f"}, {"dataset": "movi_e", "size": 256}):
        with pytest.raises(DataMissingError, match="has no stand-in"):
            open_with(open_movi, None, "validation", **options)


def test_the_encoder_of_this_test_writes_known_bytes() -> None:
    from video_layout_trees import crc32c, example

    # CRC-32C of "123456789" is 0xE3069283 (RFC 3720); masked by hand.
    assert crc32c(b"123456789") == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) & 0xFFFFFFFF
    assert example({"a": [b"xy"]}) == b"\n\r\n\x0b\n\x01a\x12\x06\n\x04\n\x02xy"
    assert sorted(movi_features(1))[0] == "background"
