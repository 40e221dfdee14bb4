"""What is written in the layouts of MOVi, YouTube-VIS and DAVIS comes back through their readers; official fields."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from ocl_bench.cards.task import TaskSpec
from ocl_bench.data import OpenData, open_data
from ocl_bench.data.readers.tfrecord import decode_example, index_records, read_record
from ocl_bench.data.scenes.videos import RenderedVideo
from ocl_bench.data.stand_ins.voc import voc_palette
from ocl_bench.data.stand_ins.writers import find_writer
from ocl_bench.data.stand_ins.ytvis import SHAPES

FIRST = 70
FRAMES = 5


def make_video(number: int) -> RenderedVideo:
    """Objects that stay, leave and come back, enter late, touch, or lie where a crop cuts them off; 0 has none."""
    random = np.random.default_rng(number)
    frames = np.repeat(random.integers(0, 256, (FRAMES, 16, 16, 3), dtype=np.uint8), 8, axis=1).repeat(8, axis=2)
    objects = np.zeros((FRAMES, 128, 128), np.uint8)
    categories: tuple[int, ...] = ()
    if number:
        objects[:, 0:9, 0:9] = 1  # cut off in every crop but the whole picture
        objects[:, 40:80, 30:60], objects[:, 50:60, 40:50] = 2, 0  # a ring
        objects[[0, 1, 4], 90:100, 20 + number :] = 3
        objects[2:, 30:50, 60:90] = 4
        objects[1, 64, 64] = 5
        categories = tuple(int(one) for one in random.integers(1, 5, 5))
    return RenderedVideo(frames, objects, categories)


VIDEOS = [make_video(number) for number in range(4)]


def read(root: Path, layout: str, split: str, videos: list[RenderedVideo], **options: Any) -> OpenData:
    """Write the videos as one split from number 70, and open it as official data."""
    find_writer(layout)(root, split, videos, FIRST)
    card = {
        "name": "probe",
        "version": 1,
        "family": "video",
        "data": {"reader": layout.partition("_")[0], "folder": "videos", "split": split, "options": options},
        "protocol": {"crop": "none", "input": 64, "score_at": 64},
        "metrics": ["fg_ari_video"],
        "main": "fg_ari_video",
    }
    return open_data(TaskSpec.model_validate(card), data_root=root)


@pytest.mark.parametrize("layout", ["movi_c", "movi_e"])
def test_movi_comes_back(tmp_path: Path, layout: str) -> None:
    data = read(tmp_path, layout, "validation", VIDEOS, dataset=layout)
    assert len(data.reader) == len(VIDEOS) and data.categories[0] == "Action Figures"
    for video, found in zip(VIDEOS, data.reader, strict=True):
        assert len(found) == FRAMES
        for position, sample in enumerate(found.frames):
            assert np.array_equal(sample.image, video.frames[position])
            assert np.array_equal(sample.truth.labels, video.objects[position])
            assert sample.truth.categories == tuple(one - 1 for one in video.categories)


def small_video(number: int) -> RenderedVideo:
    frames = np.full((2, 8, 8, 3), number, np.uint8)
    objects = np.zeros((2, 8, 8), np.uint8)
    objects[:, 2:5, 2:6], objects[1, 0, 0] = 1, 2
    return RenderedVideo(frames, objects, (3, 1))


def test_movi_files_are_those_of_tensorflow_datasets(tmp_path: Path) -> None:
    find_writer("movi_c")(tmp_path, "test", (small_video(number) for number in range(20)), FIRST)
    place = tmp_path / "movi_c/128x128/1.0.0"
    shards = ["movi_c-test.tfrecord-00000-of-00002", "movi_c-test.tfrecord-00001-of-00002"]
    others = ["dataset_info.json", "features.json", "instances-category.labels.txt"]
    assert sorted(one.name for one in place.iterdir()) == [*others, *shards]
    index = [list(index_records(place / name)) for name in shards]
    info = json.loads((place / "dataset_info.json").read_text())
    assert (info["name"], info["configName"], info["version"]) == ("movi_c", "128x128", "1.0.0")
    (split,) = info["splits"]
    assert split["shardLengths"] == ["16", "4"] == [str(len(part)) for part in index] and split["name"] == "test"
    assert split["numBytes"] == str(sum(length for part in index for _, length in part))
    values = {"DATASET": "movi_c", "SPLIT": "test", "FILEFORMAT": "tfrecord", "SHARD_X_OF_Y": "00001-of-00002"}
    assert split["filepathTemplate"].format(**values) == shards[1]
    record = decode_example(read_record(place / shards[1], index[1][3][0]))
    assert record["metadata/video_name"] == [str(FIRST + 19).encode()]
    numbers = {name.partition("/")[2]: list(values) for name, values in record.items() if not isinstance(values, list)}
    sizes = {"width": [8], "height": [8], "num_frames": [2], "num_instances": [2]}
    assert numbers == {**sizes, "category": [2, 0], "visibility": [12, 12, 0, 1]}
    for name, mode in (("video", "RGB"), ("segmentations", "L")):
        pictures = [Image.open(io.BytesIO(content)) for content in record[name]]
        assert [(one.format, one.mode, one.size) for one in pictures] == [("PNG", mode, (8, 8))] * 2
    features = json.loads((place / "features.json").read_text())
    assert set(_leaves(features, "")) == set(record), "every feature is described"


def _leaves(entry: dict[str, Any], name: str) -> list[str]:
    """Names of the features in the records, as TFDS flattens them: a sequence has no level of its own."""
    if "featuresDict" in entry:
        parts = entry["featuresDict"]["features"].items()
        return [leaf for key, part in parts for leaf in _leaves(part, f"{name}/{key}" if name else key)]
    return _leaves(entry["sequence"]["feature"], name) if "sequence" in entry else [name]


def expected_crop(video: RenderedVideo, number: int) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Frames, numbers and categories of a video in the layout of YouTube-VIS."""
    height, width = SHAPES[number % 3]
    top, left = (128 - height) // 2, (128 - width) // 2
    frames, objects = (part[:, top : 128 - top, left : 128 - left] for part in (video.frames, video.objects))
    present = [int(one) for one in np.unique(objects) if one]
    numbers = np.array([0, *(present.index(k) + 1 if k in present else 0 for k in range(1, len(video.categories) + 1))])
    return frames, numbers[objects], tuple(video.categories[one - 1] for one in present)


def test_ytvis_comes_back(tmp_path: Path) -> None:
    data = read(tmp_path, "ytvis", "validation", VIDEOS)
    assert data.ids == tuple(f"{FIRST + k:010x}" for k in range(len(VIDEOS))) and data.categories[26] == "person"
    shapes = set()
    for number, (video, found) in enumerate(zip(VIDEOS, data.reader, strict=True), start=FIRST):
        frames, objects, categories = expected_crop(video, number)
        shapes.add(frames.shape[1:3])
        assert found.names == tuple(f"{5 * t:05d}" for t in range(FRAMES))
        for position, sample in enumerate(found.frames):
            assert np.array_equal(sample.truth.labels, objects[position])
            assert sample.truth.categories == categories
            assert np.abs(sample.image.astype(int) - frames[position]).mean() < 4
    assert shapes == set(SHAPES)


def test_ytvis_has_annotations_of_its_training_set_only(tmp_path: Path) -> None:
    """The usual validation split is the end of the training set, so that both splits are written there."""
    for split in ("validation", "train"):
        find_writer("ytvis")(tmp_path / split, split, VIDEOS[:1], FIRST)
        assert [one.name for one in (tmp_path / split).iterdir()] == ["train"]


def test_ytvis_fields_are_those_of_the_official_file(tmp_path: Path) -> None:
    find_writer("ytvis")(tmp_path, "validation", VIDEOS, FIRST)
    content = json.loads((tmp_path / "train/instances.json").read_text())
    assert set(content) == {"info", "licenses", "videos", "categories", "annotations"}
    video = {"license", "coco_url", "flickr_url", "date_captured", "height", "width", "length", "file_names", "id"}
    tube = {"id", "video_id", "category_id", "iscrowd", "height", "width", "length", "segmentations", "bboxes", "areas"}
    assert all(set(one) == video and len(one["file_names"]) == one["length"] for one in content["videos"])
    assert [one["id"] for one in content["categories"]] == list(range(1, 41))
    kinds = set()
    for one in content["annotations"]:
        assert set(one) == tube
        for code, box, area in zip(one["segmentations"], one["bboxes"], one["areas"], strict=True):
            assert (code is None) == (box is None) == (area is None)
            if code is None:
                kinds.add("null")
                continue
            kinds.add(type(code["counts"]).__name__)
            packed = rle.frPyObjects(code, *code["size"]) if isinstance(code["counts"], list) else code
            rows, columns = np.nonzero(rle.decode(packed))
            assert area == len(rows)
            assert box == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
    assert kinds == {"null", "list", "str"}, "unseen frames, and both kinds of run-length code"


@pytest.mark.parametrize("split", ["val", "train"])
def test_davis_comes_back_with_the_objects_of_the_first_frame(tmp_path: Path, split: str) -> None:
    data = read(tmp_path, "davis", split, VIDEOS)
    assert data.ids == tuple(f"rendered-{FIRST + k:06d}" for k in range(len(VIDEOS)))
    for video, found in zip(VIDEOS, data.reader, strict=True):
        assert found.names == tuple(f"{t:05d}" for t in range(FRAMES))
        for position, sample in enumerate(found.frames):
            expected = np.where(video.objects[position] <= 3, video.objects[position], 0)
            assert np.array_equal(sample.truth.labels, expected), "4 and 5 enter later"
            assert np.abs(sample.image.astype(int) - video.frames[position]).mean() < 4
    with Image.open(tmp_path / "DAVIS/Annotations_unsupervised/480p" / data.ids[1] / "00000.png") as mask:
        assert mask.mode == "P" and mask.getpalette() == voc_palette()
    assert (tmp_path / f"DAVIS/ImageSets/2017/{split}.txt").read_text().split() == list(data.ids)


@pytest.mark.parametrize(("layout", "split"), [("movi_c", "train"), ("ytvis", "train"), ("davis", "train")])
def test_bytes_are_the_same_every_time(tmp_path: Path, layout: str, split: str) -> None:
    for name in ("once", "again"):
        find_writer(layout)(tmp_path / name, split, VIDEOS[:2], FIRST)
    files = sorted(one.relative_to(tmp_path / "once") for one in (tmp_path / "once").rglob("*") if one.is_file())
    assert files
    for file in files:
        assert (tmp_path / "once" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def test_kept_objects_are_numbered_anew() -> None:
    video = VIDEOS[1].keep(np.array([5, 2]))
    assert video.categories == (VIDEOS[1].categories[1], VIDEOS[1].categories[4])
    assert np.array_equal(video.objects == 1, VIDEOS[1].objects == 2)
    assert np.array_equal(video.objects == 2, VIDEOS[1].objects == 5)
