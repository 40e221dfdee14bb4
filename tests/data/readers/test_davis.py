"""DAVIS 2017: a small tree as the archive unpacks, everything that may be wrong, and a real sample."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from layout_trees import fault, save_palette
from PIL import Image
from places import SHARED
from video_layout_trees import (
    all_frames,
    frame,
    moving_labels,
    open_with,
    record_opens,
    save_jpeg,
    write_davis,
)

from ocl_bench.core.errors import DataMissingError, UsageError
from ocl_bench.data.base import subset
from ocl_bench.data.readers.davis import open_davis

REAL = SHARED / "real/video_sample"
SHAPE = (12, 20)


@pytest.mark.parametrize("place", ["below the folder", "below the root", "the folder itself"])
def test_frames_and_labels_come_back(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "davis" if place == "below the folder" else tmp_path
    base = write_davis(folder, {"swan": 4, "bear": 2})
    data = open_with(open_davis, base if place == "the folder itself" else tmp_path, "val", folder="davis")
    assert data.ids == ("swan", "bear"), "the order of the list"
    assert data.kind == "official" and data.root == base.resolve() and "2 sequences" in data.note
    assert len(data.reader) == 2 and [video.id for video in data.reader] == ["swan", "bear"]
    for video, count in zip(data.reader, (4, 2), strict=True):
        assert video.names == tuple(f"{t:05d}" for t in range(count))
        for t, sample in enumerate(all_frames(video)):
            assert np.array_equal(sample.truth.labels, moving_labels(t, SHAPE)) and sample.truth.categories == ()
            assert np.abs(sample.image.astype(int) - frame(t, SHAPE)).max() <= 2


def test_one_frame_is_read_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = write_davis(tmp_path, {"swan": 5})
    opened = record_opens(monkeypatch)
    video = open_with(open_davis, tmp_path, "val").reader[0]
    assert opened == []
    expected = [base / f"JPEGImages/480p/swan/{t:05d}.jpg" for t in range(5)]
    masks = [base / f"Annotations_unsupervised/480p/swan/{t:05d}.png" for t in range(5)]
    assert video.frames[3].image.shape == (*SHAPE, 3) and opened == [expected[3], masks[3]]
    assert len(video.frames[-2:]) == 2 and opened[2:] == [expected[3], masks[3], expected[4], masks[4]]
    with pytest.raises(IndexError):
        video.frames[5]


def test_numbers_keep_their_meaning_and_255_is_void(tmp_path: Path) -> None:
    base = write_davis(tmp_path, {"swan": 2})
    labels = moving_labels(1, SHAPE, (7, 3))
    labels[0] = 255
    save_palette(base / "Annotations_unsupervised/480p/swan/00001.png", labels)
    sample = open_with(open_davis, tmp_path, "val").reader[0].frames[1]
    assert set(np.unique(sample.truth.labels)) == {-1, 0, 7}
    assert (sample.truth.labels[0] == -1).all() and np.array_equal(sample.truth.labels[1:], labels[1:])


@pytest.mark.parametrize("number", [256, 40000])
def test_numbers_that_eight_bits_do_not_hold_fail_their_sequence(tmp_path: Path, number: int) -> None:
    base = write_davis(tmp_path, {"swan": 2})
    path = base / "Annotations_unsupervised/480p/swan/00001.png"
    Image.fromarray(np.full(SHAPE, number, np.uint16)).save(path)
    video = open_with(open_davis, tmp_path, "val").reader[0]
    assert f"{path}: number {number}, expected 0..255" in fault(lambda: video.frames[1], "swan")


def test_other_annotations_are_named(tmp_path: Path) -> None:
    write_davis(tmp_path, {"swan": 2}, annotations="Annotations")
    assert len(all_frames(open_with(open_davis, tmp_path, "val", annotations="semi").reader[0])) == 2
    with pytest.raises(DataMissingError, match=r"Annotations_unsupervised/480p.*data.options.annotations: semi"):
        open_with(open_davis, tmp_path, "val")
    with pytest.raises(UsageError, match=r"data\.options\.annotations"):
        open_with(open_davis, tmp_path, "val", annotations="scribbles")


def test_a_missing_file_fails_its_sequence_only(tmp_path: Path) -> None:
    base = write_davis(tmp_path, {"mask": 3, "image": 3, "both": 4, "last": 3, "all": 2, "good": 2})
    images, masks = base / "JPEGImages/480p", base / "Annotations_unsupervised/480p"
    for path in (masks / "mask/00001.png", images / "image/00001.jpg", images / "last/00002.jpg"):
        path.unlink()
    for path in (images / "both/00002.jpg", masks / "both/00002.png"):
        path.unlink()
    shutil.rmtree(images / "all")
    shutil.rmtree(masks / "all")
    reader = open_with(open_davis, tmp_path, "val").reader
    for index, (name, path) in enumerate(
        [
            ("mask", "Annotations_unsupervised/480p/mask/00001.png"),
            ("image", "JPEGImages/480p/image/00001.jpg"),
            ("both", "JPEGImages/480p/both/00002.jpg"),
            ("last", "JPEGImages/480p/last/00002.jpg"),
        ]
    ):
        video = reader[index]
        assert video.frames[0].id == name
        text = fault(lambda video=video: list(video.frames), name)
        assert path in text and "is missing" in text
    assert "without frames" in fault(lambda: reader[4], "all")
    assert len(all_frames(reader[5])) == 2


def test_contradictions_are_one_line(tmp_path: Path) -> None:
    base = write_davis(tmp_path, {"size": 3, "mask": 2, "colour": 2, "text": 2, "name": 2})
    images, masks = base / "JPEGImages/480p", base / "Annotations_unsupervised/480p"
    save_jpeg(images / "size/00001.jpg", frame(1, (12, 22)))
    save_palette(masks / "size/00001.png", moving_labels(1, (12, 22)))
    save_palette(masks / "mask/00001.png", moving_labels(1, (14, 20)))
    Image.fromarray(frame(1, SHAPE)).save(masks / "colour/00001.png")
    (images / "text/00001.jpg").write_text("no image")
    save_jpeg(images / "name/frame1.jpg", frame(1, SHAPE))
    videos = open_with(open_davis, tmp_path, "val").reader
    texts = [fault(lambda index=index: list(videos[index].frames), videos.ids[index]) for index in range(5)]
    assert "frame 00001: size 22x12, frame 00000 has 20x12" in texts[0]
    assert "mask size 20x14, its image 20x12" in texts[1]
    assert "colour" in texts[2] and "not a PNG or JPEG" in texts[3] and "'frame1'" in texts[4]


def test_lists_and_splits(tmp_path: Path) -> None:
    base = write_davis(tmp_path, {"swan": 2, "bear": 2, "cat": 1})
    assert open_with(open_davis, tmp_path, "val", limit=2).ids == ("swan", "bear")
    lists = base / "ImageSets/2017"
    with pytest.raises(UsageError, match="train and val, not 'test-dev'"):
        open_with(open_davis, tmp_path, "test-dev")
    with pytest.raises(DataMissingError, match=r"train\.txt: lists no sequence"):
        open_with(open_davis, tmp_path, "train")
    for text, expected in (("swan\n\nswan\n", "listed twice"), ("../swan\n", "is not the name"), ("..\n", "is not")):
        (lists / "val.txt").write_text(text)
        with pytest.raises(UsageError, match=expected):
            open_with(open_davis, tmp_path, "val")
    (lists / "val.txt").unlink()
    with pytest.raises(DataMissingError, match=r"val.txt: list of sequences cannot be read"):
        open_with(open_davis, tmp_path, "val")
    shutil.rmtree(base / "ImageSets")
    data = open_with(open_davis, tmp_path, "val")
    assert data.ids == ("bear", "cat", "swan") and "no ImageSets" in data.note
    with pytest.raises(DataMissingError, match=r"no folder JPEGImages/480p.*get it: example.org"):
        open_with(open_davis, lists.parent.parent / "Annotations_unsupervised", "val")


def test_revision_follows_the_files(tmp_path: Path) -> None:
    base = write_davis(tmp_path, {"swan": 2, "bear": 2})
    first = open_with(open_davis, tmp_path, "val").revision
    assert first.startswith("official-") and first == open_with(open_davis, tmp_path, "val").revision
    (base / "JPEGImages/480p/bear/00001.jpg").unlink()
    assert open_with(open_davis, tmp_path, "val").revision != first


def test_a_part_of_the_data_stays_lazy(tmp_path: Path) -> None:
    write_davis(tmp_path, {"swan": 2, "bear": 3})
    data = subset(open_with(open_davis, tmp_path, "val"), [1])
    assert data.ids == ("bear",) and len(data.reader[0]) == 3


@pytest.mark.skipif(not REAL.is_dir(), reason="the real sample is not beside the checkout")
def test_real_sample() -> None:
    data = open_with(open_davis, REAL, "val", annotations="semi")
    assert data.ids == ("room",) and "no ImageSets" in data.note
    samples = all_frames(data.reader[0])
    assert [sample.image.shape for sample in samples] == [(563, 1000, 3)] * 5
    assert all(set(np.unique(sample.truth.labels)) == {0, 1, 2} for sample in samples)
    for label in (1, 2):
        places = [np.argwhere(sample.truth.labels == label).mean(0) for sample in samples]
        assert all(np.linalg.norm(a - b) < 40 for a, b in pairwise(places)), "the same object"


def test_a_list_from_another_system_and_suffixes_in_capitals(tmp_path: Path) -> None:
    base = write_davis(tmp_path, {"swan": 2, "bear": 2})
    (base / "ImageSets/2017/val.txt").write_bytes("swan\r\nbear\r\n".encode("utf-8-sig"))
    for path in [*base.glob("*/480p/swan/*.jpg"), *base.glob("*/480p/bear/*.png")]:
        path.rename(path.with_suffix(path.suffix.upper()))
    data = open_with(open_davis, tmp_path, "val")
    assert data.ids == ("swan", "bear")
    for video in data.reader:
        for t, sample in enumerate(all_frames(video)):
            assert np.array_equal(sample.truth.labels, moving_labels(t, SHAPE))


def test_a_file_that_is_not_read_changes_no_revision(tmp_path: Path) -> None:
    """Windows puts a Thumbs.db into each folder that somebody looks at."""
    base = write_davis(tmp_path, {"bear": 2})
    before = open_with(open_davis, tmp_path, "val").revision
    for place in ("JPEGImages/480p/bear", "Annotations_unsupervised/480p/bear", "ImageSets/2017"):
        (base / place / "Thumbs.db").write_bytes(b"x")
    assert open_with(open_davis, tmp_path, "val").revision == before
    assert "1 sequence of" in open_with(open_davis, tmp_path, "val").note
