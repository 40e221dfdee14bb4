"""YouTube-VIS: every kind of segmentation against pycocotools, the split of SlotContrast, and what may be wrong."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import layout_trees
import numpy as np
import pytest
from layout_trees import compressed, fault, square, uncompressed
from pycocotools import mask as rle
from video_layout_trees import (
    all_frames,
    frame,
    open_with,
    record_opens,
    save_jpeg,
    track,
    write_ytvis,
    ytvis_table,
)

from ocl_bench.core.errors import DataMissingError, UsageError
from ocl_bench.data.base import Request
from ocl_bench.data.readers import ytvis
from ocl_bench.data.readers.ytvis import open_ovis, open_ytvis
from ocl_bench.data.stand_ins.layouts import LayoutTree

SHAPE = (12, 20)


def filled(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    return layout_trees.filled((left, top, right, bottom), shape=SHAPE)


def decoded(segmentation: Any) -> np.ndarray:
    """What pycocotools makes of an entry, null as nothing."""
    if not segmentation:
        return np.zeros(SHAPE, np.uint8)
    if isinstance(segmentation, list):
        return np.asarray(rle.decode(rle.merge(rle.frPyObjects(segmentation, *SHAPE))))
    if isinstance(segmentation["counts"], list):
        segmentation = rle.frPyObjects(segmentation, *SHAPE)
    return np.asarray(rle.decode(segmentation))


def random_tracks(videos: int, each: int, frames: int) -> list[dict[str, Any]]:
    """Each kind of segmentation in turn, also of polygons that leave the image; a third is null."""
    random, found = np.random.default_rng(4), []
    for number in range(videos * each):
        masks: list[Any] = []
        for t in range(frames):
            if random.random() < 0.33:
                masks.append(None)
            elif (number + t) % 3 == 0:
                masks.append(random.uniform(-5, 24, (1 + t % 2, 2 * int(random.integers(3, 8)))).round(2).tolist())
            else:
                mask = (random.random(SHAPE) < random.uniform(0.05, 0.6)).astype(np.uint8)
                masks.append((compressed if (number + t) % 3 == 1 else uncompressed)(mask))
        found.append(track(900 + number, 1 + number // each, masks, category_id=1 + number % 40))
    return found


def test_masks_are_those_of_pycocotools(tmp_path: Path) -> None:
    tracks = random_tracks(3, 4, 6)
    write_ytvis(tmp_path / "ytvis", {"b2": 6, "a1": 6, "c3": 6}, tracks)
    data = open_with(open_ytvis, tmp_path, "validation", folder="ytvis")
    assert data.kind == "official" and data.ids == ("b2", "a1", "c3"), "in the order of the table"
    assert data.categories[26] == "person" and len(data.categories) == 40
    assert "YouTube-VIS 2021 (validation, all), 3 videos" in data.note and "left out" not in data.note
    overlaps = 0
    for number, video in enumerate(data.reader, start=1):
        mine = [one for one in tracks if one["video_id"] == number]
        assert video.names == tuple(f"{5 * t:05d}" for t in range(6))
        for t, sample in enumerate(all_frames(video)):
            masks = np.stack([decoded(one["segmentations"][t]) for one in mine])
            claims, order = masks.sum(0), 1 + masks.argmax(0)
            assert np.array_equal(sample.truth.labels, np.select([claims == 0, claims > 1], [0, -2], order))
            assert sample.truth.categories == tuple(one["category_id"] for one in mine), "the same in all frames"
            assert np.abs(sample.image.astype(int) - frame(t, SHAPE)).max() <= 2
            overlaps += int((claims > 1).sum())
    assert overlaps > 100


def test_numbers_of_objects_and_what_is_left_out(tmp_path: Path) -> None:
    tracks = [
        track(1, 1, [square(0, 0, 4, 4), square(0, 0, 20, 12)], iscrowd=1),
        track(2, 1, [None, square(1, 1, 4, 4)], category_id=7),
        track(3, 1, [None, None]),
        track(4, 1, None),
        track(5, 1, [[], []]),
        track(6, 2, [square(2, 2, 3, 3)]),
        track(7, 99, [square(2, 2, 3, 3)]),
        track(8, 1, [square(6, 6, 9, 9), None], category_id=2),
    ]
    del tracks[4]["bboxes"], tracks[7]["iscrowd"]
    write_ytvis(tmp_path, {"a": 2, "b": 1, "c": 1}, tracks)
    data = open_with(open_ytvis, tmp_path, "validation")
    first, second = all_frames(data.reader[0])
    assert np.array_equal(first.truth.labels, 2 * filled(6, 6, 9, 9)), "object 1 is not seen yet and keeps its number"
    assert np.array_equal(second.truth.labels, 1 * filled(1, 1, 4, 4))
    assert first.truth.categories == second.truth.categories == (7, 2)
    assert "1 annotations are crowds" in data.note and "3 annotations have no mask in any frame" in data.note
    assert "1 annotations point to videos that are not listed" in data.note
    (empty,) = all_frames(data.reader[2])
    assert not empty.truth.labels.any() and empty.truth.categories == ()


def test_a_crowd_in_another_video_is_not_counted(tmp_path: Path) -> None:
    write_ytvis(tmp_path, {"a": 1, "b": 1}, [track(1, 2, [square(0, 0, 4, 4)], iscrowd=1)])
    assert "crowds" not in open_with(open_ytvis, tmp_path, "validation", limit=1).note
    assert "crowds" in open_with(open_ytvis, tmp_path, "validation").note


def test_splits_are_those_of_slotcontrast(tmp_path: Path) -> None:
    names = [f"v{(7 * k) % 331:03d}" for k in range(331)]
    write_ytvis(tmp_path, dict.fromkeys(names, 1), pictures=False)
    assert open_with(open_ytvis, tmp_path, "validation").ids == tuple(names[31:])
    first = open_with(open_ytvis, tmp_path, "validation", subset="first210")
    assert first.ids == tuple(names[31:241]) and "first210" in first.note
    assert open_with(open_ytvis, tmp_path, "train", subset="first210").ids == tuple(names[:31])
    assert open_with(open_ytvis, tmp_path, "validation", limit=2).ids == tuple(names[31:33])


def test_few_videos_are_all_validation(tmp_path: Path) -> None:
    write_ytvis(tmp_path, {"a": 1, "b": 1})
    assert open_with(open_ytvis, tmp_path, "validation", subset="first210").ids == ("a", "b")
    with pytest.raises(DataMissingError, match="2 videos, none of them for this split"):
        open_with(open_ytvis, tmp_path, "train")
    with pytest.raises(UsageError, match="not 'valid'"):
        open_with(open_ytvis, tmp_path, "valid")


def test_layout_of_2019_and_years_that_are_confused(tmp_path: Path) -> None:
    path = write_ytvis(tmp_path, {"a": 2}, table="train.json")
    assert len(all_frames(open_with(open_ytvis, tmp_path, "validation").reader[0])) == 2, "2021 in the place of 2019"
    with pytest.raises(UsageError, match=r"category 26 is person, as in YouTube-VIS 2021.*asks for YouTube-VIS 2019"):
        open_with(open_ytvis, tmp_path, "validation", year=2019)
    content = json.loads(path.read_text())
    content["categories"] = [{"id": 1, "name": "person"}, {"id": 26, "name": "zebra"}]
    path.write_text(json.dumps(content))
    assert "2019" in open_with(open_ytvis, tmp_path, "validation", year=2019).note
    with pytest.raises(UsageError, match="category 1 is person"):
        open_with(open_ytvis, tmp_path, "validation")
    write_ytvis(tmp_path, {"x": 1})
    assert open_with(open_ytvis, tmp_path, "validation", year=2019).ids == ("a",)
    assert open_with(open_ytvis, tmp_path, "validation", year=2021).ids == ("x",)


def test_one_frame_is_read_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_ytvis(tmp_path, {"a": 4}, [track(1, 1, [square(0, 0, 4, 4)] * 4)])
    opened = record_opens(monkeypatch)
    video = open_with(open_ytvis, tmp_path, "validation").reader[0]
    assert len(video) == 4 and opened == []
    assert video.frames[2].truth.labels.any() and opened == [tmp_path / "train/JPEGImages/a/00010.jpg"]


def test_a_fault_fails_its_video_only(tmp_path: Path) -> None:
    good = square(0, 0, 4, 4)
    tracks = [
        track(1, 1, [good]),
        track(2, 2, [good, good], category_id=41),
        track(3, 3, "masks"),
        track(4, 4, [good, {"size": [12, 21], "counts": [252]}]),
        track(5, 5, [good, {"size": [12, 20], "counts": [100, 3]}]),
        track(6, 6, [good, {"size": [12, 20], "counts": "!!"}]),
        track(7, 7, [good, [[1, 2, 3]]]),
        track(8, 8, [good, {"counts": "00"}]),
        track(9, 9, [good, good]),
        track(10, 10, [good, [0, 0, 4, 0, 4, 4]]),
        track(11, 11, [good, {"size": [None, 20], "counts": [240]}]),
        track(12, 12, [good, {"size": [12, 20], "counts": 240}]),
    ]
    write_ytvis(tmp_path, {f"v{k}": 2 for k in range(1, 14)}, tracks)
    folder = tmp_path / "train/JPEGImages"
    save_jpeg(folder / "v9/00005.jpg", frame(1, (12, 22)))
    (folder / "v13/00005.jpg").unlink()
    reader = open_with(open_ytvis, tmp_path, "validation").reader
    expected = [
        "annotation 1: segmentations has 1 entries, the video 2 frames",
        "annotation 2: unknown category 41",
        "annotation 3: segmentations has a str",
        "annotation 4, entry 1 of segmentations: run-length code of size [12, 21]",
        "annotation 5, entry 1 of segmentations: run-length code of 103 pixels, its image has 240",
        "annotation 6, entry 1 of segmentations: run-length code",
        "annotation 7, entry 1 of segmentations: a polygon needs at least 3 points",
        "annotation 8, entry 1 of segmentations: a segmentation is a list of polygons, or has size and counts",
        "00005.jpg: image size 22x12, its annotation 20x12",
        "annotation 10, entry 1 of segmentations: a polygon needs",
        "annotation 11, entry 1 of segmentations: run-length code of size [None, 20]",
        "annotation 12, entry 1 of segmentations",
        "00005.jpg: image file is missing",
    ]
    for index, text in enumerate(expected):
        assert text in fault(lambda index=index: list(reader[index].frames), f"v{index + 1}")


def test_entries_of_videos_that_contradict_themselves(tmp_path: Path) -> None:
    content = ytvis_table({"a": 2, "b": 2, "c": 2, "d": 2}, [], SHAPE)
    videos = content["videos"]
    videos[0]["length"] = 3
    videos[1]["file_names"] = ["b/00000.jpg", "../../secret.jpg"]
    videos[2]["file_names"], videos[2]["length"] = [], 0
    videos[3]["file_names"] = ["d/00000.jpg", 5]
    path = tmp_path / "train/instances.json"
    path.parent.mkdir()
    path.write_text(json.dumps(content))
    reader = open_with(open_ytvis, tmp_path, "validation").reader
    assert reader.ids == ("a", "b", "3", "d")
    assert "length 3, but 2 file names" in fault(lambda: reader[0], "a")
    assert "'../../secret.jpg' is not a path in JPEGImages" in fault(lambda: reader[1], "b")
    assert "video without frames" in fault(lambda: reader[2], "3")
    assert "file name 5 is not a path" in fault(lambda: reader[3], "d")


def edit(content: dict[str, Any], *keys: Any, value: Any = None) -> dict[str, Any]:
    """The table with one entry changed, or removed where no value is given."""
    inner: Any = content
    for key in keys[:-1]:
        inner = inner[key]
    if value is None:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    return content


TABLES: dict[str, tuple[Any, str]] = {
    "no annotations": (lambda c: {**c, "annotations": None}, "as in the tables of valid and test"),
    "absent annotations": (lambda c: edit(c, "annotations"), "field 'annotations' is missing or not a list"),
    "no videos": (lambda c: {**c, "videos": []}, "0 videos, none of them for this split"),
    "no size": (lambda c: edit(c, "videos", 1, "height"), r"videos\[1\].height is missing"),
    "video id": (lambda c: edit(c, "annotations", 0, "video_id"), r"annotations\[0\].video_id is missing"),
    "names": (lambda c: edit(c, "categories", 2, "name", value=4), r"categories\[2\].name is missing or of a wrong"),
    "same ids": (lambda c: edit(c, "videos", 1, "id", value=1), "two videos have the id 1"),
    "same folders": (lambda c: edit(c, "videos", 1, "file_names", value=["a/1.jpg"]), "two videos have the folder 'a'"),
    "same categories": (lambda c: edit(c, "categories", 1, "id", value=1), "two categories have the id 1"),
    "a list": (lambda c: [c], "holds a list"),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_that_are_refused(tmp_path: Path, name: str) -> None:
    change, expected = TABLES[name]
    content = ytvis_table({"a": 1, "b": 1}, [track(1, 1, [square(0, 0, 4, 4)])], SHAPE)
    path = tmp_path / "train/instances.json"
    path.parent.mkdir()
    path.write_text(json.dumps(change(content)))
    with pytest.raises((UsageError, DataMissingError), match=expected) as caught:
        open_with(open_ytvis, tmp_path, "validation")
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_a_cut_table_and_no_table(tmp_path: Path) -> None:
    path = write_ytvis(tmp_path, {"a": 1})
    path.write_text(path.read_text()[:-40])
    with pytest.raises(UsageError, match="is not JSON, perhaps a cut download"):
        open_with(open_ytvis, tmp_path, "validation")
    path.unlink()
    with pytest.raises(DataMissingError, match=r"no train/instances.json or train.json.*get it: example.org"):
        open_with(open_ytvis, tmp_path, "validation")


def test_revision_follows_the_files(tmp_path: Path) -> None:
    write_ytvis(tmp_path, {"a": 2})
    first = open_with(open_ytvis, tmp_path, "validation").revision
    assert first.startswith("official-") and first == open_with(open_ytvis, tmp_path, "validation").revision
    (tmp_path / "train/JPEGImages/a/00005.jpg").unlink()
    assert open_with(open_ytvis, tmp_path, "validation").revision != first


@pytest.mark.parametrize("order", ["as published", "annotations first"])
def test_masks_of_other_videos_are_dropped(tmp_path: Path, order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    packed: list[Any] = []
    original = ytvis.run_length
    monkeypatch.setattr(ytvis, "run_length", lambda code, shape: (packed.append(code), original(code, shape))[1])
    names = [f"v{k}" for k in range(302)]
    masks = [uncompressed(filled(0, 0, 1 + k % 20, 9)) for k in range(302)]
    path = write_ytvis(tmp_path, dict.fromkeys(names, 1), [track(k, k + 1, [masks[k]]) for k in range(302)])
    if order == "annotations first":
        content = json.loads(path.read_text())
        path.write_text(json.dumps({"annotations": content.pop("annotations"), **content}))
    for split, first, count in (("train", 0, 2), ("validation", 2, 300)):
        packed.clear()
        data = open_with(open_ytvis, tmp_path, split)
        assert len(packed) == (count if order == "as published" else 302)
        assert data.ids == tuple(names[first : first + count]) and "left out" not in data.note
        for k in (first, first + count - 1):
            labels = data.reader[k - first].frames[0].truth.labels
            assert np.array_equal(labels, filled(0, 0, 1 + k % 20, 9))


def test_masks_are_kept_packed(tmp_path: Path) -> None:
    """40 masks of 8,000 runs: as Python numbers more than 64 bits each, packed about one byte each."""
    random = np.random.default_rng(0)
    mask = (random.random((200, 80)) < 0.5).astype(np.uint8)
    runs = uncompressed(mask)
    path = write_ytvis(tmp_path, {"a": 40}, [track(1, 1, [runs] * 40)], shape=(200, 80), pictures=False)
    save_jpeg(tmp_path / "train/JPEGImages/a/00000.jpg", frame(0, (200, 80)))
    total = 40 * len(runs["counts"])
    assert path.stat().st_size > 2.5 * total > 700_000
    tracemalloc.start()
    data = open_with(open_ytvis, tmp_path, "validation")
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 1.6 * total
    assert np.array_equal(data.reader[0].frames[0].truth.labels, mask)


def test_a_stand_in_holds_one_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_ytvis(tmp_path, {"a": 1, "b": 1}, table="train.json")
    asked: list[str] = []

    def layout(request: Request, name: str) -> LayoutTree:
        asked.append(name)
        return LayoutTree(tmp_path, "embedded-r1-0", 2, "data: embedded")

    monkeypatch.setattr(ytvis, "ensure_layout", layout)
    for split in ("train", "validation"):
        data = open_with(open_ytvis, None, split, subset="first210")
        assert (data.kind, data.revision, data.ids) == ("embedded", "embedded-r1-0", ("a", "b"))
    assert asked == ["ytvis", "ytvis"]


@pytest.mark.parametrize(
    ("year", "split", "table", "frames", "person"),
    [
        (2022, "val", "valid/gt.json", "valid/JPEGImages", 26),
        (2022, "test", "test/test_gt.json", "test/JPEGImages", 26),
        (2022, "train", "train/instances.json", "train/JPEGImages", 26),
        ("hq", "test", "ytvis_hq-test.json", "JPEGImages", 1),
        ("hq", "val", "annotations/ytvis_hq-val.json", "train/JPEGImages", 1),
    ],
)
def test_other_editions(tmp_path: Path, year: Any, split: str, table: str, frames: str, person: int) -> None:
    """Equal to 2021's layout with the same table, but for its split: all videos of the table."""
    entries = random_tracks(2, 3, 3)
    for root, place in ((tmp_path / "new", table), (tmp_path / "usual", "train/instances.json")):
        path = write_ytvis(root, {"b2": 3, "a1": 3}, entries, table=place)
        content = json.loads(path.read_text())
        if person != 26 and root.name == "new":
            for category in content["categories"]:
                category["name"] = {26: "class 26", person: "person"}.get(category["id"], category["name"])
            path.write_text(json.dumps(content))
    if frames != "train/JPEGImages":
        (tmp_path / "new" / frames).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "new/train/JPEGImages").rename(tmp_path / "new" / frames)
    data = open_with(open_ytvis, tmp_path / "new", split, year=year)
    usual = open_with(open_ytvis, tmp_path / "usual", "validation")
    assert data.ids == usual.ids and "2 videos" in data.note
    for first, second in zip(data.reader, usual.reader, strict=True):
        for one, other in zip(all_frames(first), all_frames(second), strict=True):
            assert np.array_equal(one.image, other.image)
            assert np.array_equal(one.truth.labels, other.truth.labels)
    # Names and tables of files are part of the revision.
    assert (data.revision == usual.revision) == ((year, split) == (2022, "train"))
    with pytest.raises(UsageError, match="has the splits train, val, test, not 'validation'"):
        open_with(open_ytvis, tmp_path / "new", "validation", year=year)


def test_ovis(tmp_path: Path) -> None:
    """Frames are called img_0000001.jpg; more than 25 objects are nothing special."""
    write_ytvis(tmp_path / "ovis", {"fb4a7958": 2}, [], pictures=False)
    table = tmp_path / "ovis/train/instances.json"
    content = json.loads(table.read_text())
    table.unlink()
    content["videos"][0]["file_names"] = [f"fb4a7958/img_{t:07d}.jpg" for t in (1, 2)]
    content["categories"] = [{"id": 1, "name": "Person"}, {"id": 26, "name": "Boat"}]
    content["annotations"] = [
        track(k, 1, [compressed(filled(k % 18, k // 18, k % 18 + 1, k // 18 + 1)), None], category_id=26)
        for k in range(30)
    ]
    for t, name in enumerate(content["videos"][0]["file_names"]):
        save_jpeg(tmp_path / "ovis/train" / name, frame(t, SHAPE))
    (tmp_path / "ovis/annotations_train.json").write_text(json.dumps(content))
    data = open_with(open_ovis, tmp_path, "train", folder="ovis")
    assert data.ids == ("fb4a7958",) and "OVIS (train), 1 video of" in data.note
    first, second = all_frames(data.reader[0])
    assert first.truth.labels.max() == 30 and second.truth.labels.max() == 0
    assert np.abs(first.image.astype(int) - frame(0, SHAPE)).max() <= 2
    content["categories"][1]["name"] = "person"
    (tmp_path / "ovis/annotations_train.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"category 26 is person, as in YouTube-VIS 2021.*asks for OVIS"):
        open_with(open_ovis, tmp_path, "train", folder="ovis")
    with pytest.raises(UsageError, match="OVIS has the splits train, not 'valid'"):
        open_with(open_ovis, tmp_path, "valid", folder="ovis")
