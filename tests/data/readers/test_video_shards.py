"""WebDataset shards of VideoSAUR and SlotContrast: the same videos as in the official files, and what may be wrong."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from layout_trees import compressed
from modern_trees import (
    movi_parts,
    npy,
    same_video,
    video_card,
    write_shards,
    write_tar,
    ytvis_parts,
)
from pycocotools import mask as rle
from video_layout_trees import all_frames, frame, moving_labels, track, write_movi, write_ytvis

from ocl_bench.core.errors import DataMissingError, SampleError, UsageError
from ocl_bench.data import OpenData, open_data

SHAPE = (12, 20)


def open_movi(root: Path, split: str = "validation", limit: int | None = None) -> OpenData:
    card = video_card(reader="movi", folder="movi_c", split=split, options={"dataset": "movi_c", "size": 128})
    return open_data(card, data_root=root, limit=limit)


def open_ytvis(root: Path, split: str = "validation", **options: object) -> OpenData:
    return open_data(video_card(reader="ytvis", folder="ytvis2021", split=split, options=options), data_root=root)


def write_movi_shards(folder: Path, source: OpenData) -> None:
    samples = [(str(number), movi_parts(video)) for number, video in enumerate(source.reader)]
    write_shards(folder, "movi_c-validation", samples)


@pytest.mark.parametrize("below", ["", "movi_c"])
def test_movi_is_that_of_the_tfrecords(tmp_path: Path, below: str) -> None:
    write_movi(tmp_path / "official", (2, 1))
    official = open_movi(tmp_path / "official")
    write_movi_shards(tmp_path / "shards/movi_c", official)
    data = open_movi(tmp_path / "shards" / below)
    assert data.kind == "official" and data.ids == ("0", "1", "2") and "3 videos of WebDataset shards" in data.note
    for first, second in zip(official.reader, data.reader, strict=True):
        same_video(first, second)
        assert first.names == second.names and all_frames(second)
    assert open_movi(tmp_path / "shards", limit=2).ids == ("0", "1")


def tracks() -> list[dict[str, object]]:
    """Two videos with objects that overlap, hide, are never seen, or are crowds; one without any."""
    random = np.random.default_rng(3)

    def masks(hidden: int | None = None) -> list[object]:
        return [None if t == hidden else compressed((random.random(SHAPE) < 0.3).astype(np.uint8)) for t in range(3)]

    return [
        track(1, 1, masks(), category_id=26),
        track(2, 1, masks(1), category_id=4),
        track(3, 1, [None] * 3, category_id=5),
        track(4, 2, masks(), category_id=7, iscrowd=1),
        track(5, 2, masks(0), category_id=40),
    ]


def test_ytvis_is_that_of_the_table(tmp_path: Path) -> None:
    entries = tracks()
    write_ytvis(tmp_path / "official/ytvis2021", {"b2": 3, "a1": 3, "c3": 3}, entries)
    official = open_ytvis(tmp_path / "official")
    samples = []
    for number, video in enumerate(official.reader, start=1):
        mine = [one for one in entries if one["video_id"] == number and not one["iscrowd"]]
        seen = [
            np.stack([np.zeros(SHAPE, np.uint8) if code is None else rle.decode(code) for code in one["segmentations"]])  # type: ignore[attr-defined]
            for one in mine
        ]
        frames = np.stack([sample.image for sample in video.frames])
        samples.append((str(number), ytvis_parts(frames, seen, [int(str(one["category_id"])) for one in mine])))
    write_shards(tmp_path / "shards/ytvis2021", "ytvis-validation", samples)
    data = open_ytvis(tmp_path / "shards")
    assert data.ids == ("1", "2", "3"), "ids of the table: shards have no names"
    for first, second in zip(official.reader, data.reader, strict=True):
        same_video(first, second)
        assert [one.truth.categories for one in first.frames] == [one.truth.categories for one in second.frames]
    assert any((sample.truth.labels == -2).any() for sample in data.reader[0].frames), "overlaps are there"


def test_the_first_210_of_shards_are_those_of_the_table(tmp_path: Path) -> None:
    parts = ytvis_parts(np.zeros((1, 2, 2, 3), np.uint8), [], [])
    write_shards(tmp_path, "ytvis-validation", [(str(2686 + k), parts) for k in range(300)], each=10)
    assert len(open_ytvis(tmp_path)) == 300
    chosen = open_ytvis(tmp_path, subset="first210").ids
    assert len(chosen) == 210 and chosen[0] == "2686" and chosen[-1] == "2895"


def test_two_forms_are_refused(tmp_path: Path) -> None:
    write_movi(tmp_path, (1,))
    write_movi_shards(tmp_path / "movi_c", open_movi(tmp_path))
    with pytest.raises(UsageError, match=r"found official files in .*1\.0\.0 and WebDataset shards in .*movi_c; give"):
        open_movi(tmp_path)
    assert open_movi(tmp_path / "movi_c/128x128/1.0.0").ids == ("00000-0000",)


def test_frames_are_read_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ocl_bench.data.readers.shards import Array

    write_movi(tmp_path / "official", (1,))
    write_movi_shards(tmp_path / "movi_c", open_movi(tmp_path / "official"))
    read: list[int] = []
    original = Array.__getitem__
    monkeypatch.setattr(Array, "__getitem__", lambda self, t: (read.append(t), original(self, t))[1])
    video = open_movi(tmp_path).reader[0]
    assert read == []
    assert np.array_equal(video.frames[2].truth.labels, moving_labels(2, (128, 128)))
    assert read == [2, 2], "the frame and its segmentations"
    assert np.array_equal(video.frames[0].image, frame(0, (128, 128)))


def test_frames_of_a_block_are_those_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ocl_bench.data.readers import shards

    write_movi(tmp_path / "official", (1,), frames=7)
    write_movi_shards(tmp_path / "movi_c", open_movi(tmp_path / "official"))
    for block in (1, 3 * 128 * 128 * 3, 1 << 20):
        monkeypatch.setattr(shards, "_BLOCK", block)
        video = open_movi(tmp_path).reader[0]
        for t in (6, 0, 1, 2, 3, 5, 4, 1, 6):
            assert np.array_equal(video.frames[t].image, frame(t, (128, 128)))
            assert np.array_equal(video.frames[t].truth.labels, moving_labels(t, (128, 128)))
    video = open_movi(tmp_path).reader[0]
    shard = tmp_path / "movi_c/movi_c-validation-000000.tar"
    shard.write_bytes(shard.read_bytes()[:2000])
    with pytest.raises(SampleError, match="copy the shards again"):
        _ = video.frames[0]


def broken(tmp_path: Path, **parts: bytes) -> OpenData:
    """Shards of one video in which some parts are others."""
    good = {"video.npy": npy(np.zeros((2, 128, 128, 3), np.uint8))}
    good["segmentations.npy"] = npy(np.zeros((2, 128, 128, 1), np.uint8))
    members = good | {f"{name}.npy": content for name, content in parts.items()}
    write_tar(tmp_path / "movi_c-validation-000000.tar", {f"0.{name}": part for name, part in members.items()})
    return open_movi(tmp_path)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"video": b"no array"}, "video.npy is not a NumPy array"),
        ({"segmentations": npy(np.array([{}]), allow_pickle=True)}, "holds Python objects"),
        ({"video": npy(np.zeros((2, 128, 128, 3), np.uint8))[:-5]}, "its head says"),
        ({"video": npy(np.zeros((2, 128, 128, 3), np.float32))}, "float32, expected"),
        ({"segmentations": npy(np.zeros((3, 128, 128, 1), np.uint8))}, r"segmentations.npy is \(3, 128"),
        ({"segmentations": npy(np.full((2, 128, 128, 1), 40000, np.uint16))}, "uint16, expected"),
        ({"video": npy(np.asfortranarray(np.zeros((2, 128, 128, 3), np.uint8)))}, "column by column"),
    ],
)
def test_a_bad_array_fails_its_video(tmp_path: Path, parts: dict[str, bytes], reason: str) -> None:
    data = broken(tmp_path, **parts)
    with pytest.raises(SampleError, match=reason) as caught:
        list(data.reader[0].frames)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [64, 256])
def test_frames_of_another_size_fail(tmp_path: Path, size: int) -> None:
    video, masks = np.zeros((1, size, size, 3), np.uint8), np.zeros((1, size, size, 1), np.uint8)
    data = broken(tmp_path, video=npy(video), segmentations=npy(masks))
    with pytest.raises(SampleError, match=r"expected \(128, 128, 1\); data.options.size says 128"):
        list(data.reader[0].frames)


def test_what_is_wrong_with_shards_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataMissingError, match=r"movi_c-validation.tfrecord"):
        open_movi(tmp_path)
    broken(tmp_path)
    first = tmp_path / "movi_c-validation-000000.tar"
    with pytest.raises(DataMissingError, match=r"no shard movi_c-train-000000.tar"):
        open_movi(tmp_path, "train")
    content = first.read_bytes()
    (tmp_path / "movi_c-validation-000002.tar").write_bytes(content)
    with pytest.raises(DataMissingError, match="shard 1 of 3 is missing"):
        open_movi(tmp_path)
    (tmp_path / "movi_c-validation-000002.tar").rename(tmp_path / "movi_c-validation-000001.tar")
    with pytest.raises(UsageError, match="sample '0' is also in another shard"):
        open_movi(tmp_path)
    (tmp_path / "movi_c-validation-000001.tar").unlink()
    for damaged, reason in ((content[:3000], "cut"), (b"x" * 2000, "not a whole tar file")):
        first.write_bytes(damaged)
        with pytest.raises(UsageError, match=reason):
            open_movi(tmp_path)
    write_tar(first, {"0.video.npy": npy(np.zeros((1, 128, 128, 3), np.uint8))})
    with pytest.raises(DataMissingError, match=r"'0' has no segmentations.npy"):
        open_movi(tmp_path)


def test_links_in_a_shard_lead_nowhere(tmp_path: Path) -> None:
    """A link is no sample, wherever it points."""
    secret = tmp_path / "secret.npy"
    secret.write_bytes(npy(np.zeros((1, 128, 128, 3), np.uint8)))
    with tarfile.open(tmp_path / "movi_c-validation-000000.tar", "w") as archive:
        for part in ("video.npy", "segmentations.npy"):
            link = tarfile.TarInfo(f"0.{part}")
            link.type, link.linkname = tarfile.SYMTYPE, str(secret)
            archive.addfile(link)
    with pytest.raises(DataMissingError, match="hold no video"):
        open_movi(tmp_path)


def test_a_changed_shard_is_another_revision(tmp_path: Path) -> None:
    first = broken(tmp_path).revision
    changed = np.zeros((2, 128, 128, 1), np.uint8)
    changed[0, 3, 3] = 1
    assert broken(tmp_path, segmentations=npy(changed)).revision != first
