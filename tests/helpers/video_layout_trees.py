"""Small trees of videos in the official layouts of MOVi, YouTube-VIS and DAVIS, and what readers should make of them.

TFRecords are encoded here by hand, so that no code of the package takes part in writing what it reads.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_trees import card, save_palette, save_picture, write_json
from PIL import Image

from ocl_bench.core.types import Sample, Video
from ocl_bench.data.base import OpenData, Request


def open_with(
    opener: Callable[[Request], OpenData],
    root: Path | None,
    split: str,
    *,
    folder: str = "",
    limit: int | None = None,
    stand_in_seed: int | None = None,
    **options: Any,
) -> OpenData:
    """Open data through a reader's function, as `open_data` does."""
    task = card(reader="probe", folder=folder, split=split, options=options, get="example.org")
    return opener(Request(task, root, limit, split, stand_in_seed, False))


def record_opens(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What Pillow is asked to open from now on: paths, or streams; a file that is opened twice in a row is one."""
    opened: list[Any] = []
    original = Image.open

    def spy(file: Any, *arguments: Any, **keywords: Any) -> Any:
        if not opened or opened[-1] != file:
            opened.append(file)
        return original(file, *arguments, **keywords)

    monkeypatch.setattr(Image, "open", spy)
    return opened


def all_frames(video: Video) -> list[Sample]:
    assert len(video) == len(video.frames) == len(video.names)
    samples = list(video.frames)
    assert all(sample.id == video.id and sample.truth.labels.dtype == np.int16 for sample in samples)
    assert all(sample.truth.labels.shape == sample.image.shape[:2] for sample in samples)
    return samples


def frame(number: int, shape: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8, flat so that JPEG keeps it within 2 grey values, another one for each number."""
    return np.full((*shape, 3), (37 * number + 20) % 256, np.uint8)


def moving_labels(number: int, shape: tuple[int, int], codes: Sequence[int] = (1, 2)) -> np.ndarray:
    """(H, W) uint8: a square of each code; the first moves to the right, the second is seen in even frames only."""
    labels = np.zeros(shape, np.uint8)
    labels[1:5, number : number + 4] = codes[0]
    if number % 2 == 0:
        labels[6:9, 2:8] = codes[1]
    return labels


def save_jpeg(path: Path, image: np.ndarray) -> Path:
    return save_picture(path, image, quality=95)


def write_davis(
    root: Path,
    sequences: Mapping[str, int],
    shape: tuple[int, int] = (12, 20),
    annotations: str = "Annotations_unsupervised",
    lists: bool = True,
) -> Path:
    """`root/DAVIS` with these numbers of frames; all sequences are listed in val.txt, none in train.txt."""
    base = root / "DAVIS"
    for name, count in sequences.items():
        for t in range(count):
            save_jpeg(base / "JPEGImages/480p" / name / f"{t:05d}.jpg", frame(t, shape))
            save_palette(base / annotations / "480p" / name / f"{t:05d}.png", moving_labels(t, shape))
    if lists:
        folder = base / "ImageSets/2017"
        folder.mkdir(parents=True)
        (folder / "val.txt").write_text("".join(f"{name}\n" for name in sequences))
        (folder / "train.txt").write_text("")
    return base


def ytvis_table(
    videos: Mapping[str, int], annotations: Sequence[Mapping[str, Any]], shape: tuple[int, int]
) -> dict[str, Any]:
    """The content of instances.json: videos 1, 2, .. with every fifth frame, 40 categories of which 26 is person."""
    listed = [
        {
            "id": number,
            "width": shape[1],
            "height": shape[0],
            "length": count,
            "file_names": [f"{name}/{5 * t:05d}.jpg" for t in range(count)],
        }
        for number, (name, count) in enumerate(videos.items(), start=1)
    ]
    categories = [{"id": k, "name": "person" if k == 26 else f"class {k}"} for k in range(1, 41)]
    return {"info": {}, "videos": listed, "annotations": list(annotations), "categories": categories}


def track(number: int, video: int, segmentations: Any, **fields: Any) -> dict[str, Any]:
    """One annotation; boxes and areas that no test reads."""
    count = len(segmentations) if isinstance(segmentations, list) else 1
    boxes = {"bboxes": [[1, 2, 3, 4]] * count, "areas": [12] * count}
    entry = {"id": number, "video_id": video, "category_id": 3, "iscrowd": 0, "width": 9, "height": 9, **boxes}
    return {**entry, "segmentations": segmentations, **fields}


def write_ytvis(
    root: Path,
    videos: Mapping[str, int],
    annotations: Sequence[Mapping[str, Any]] = (),
    shape: tuple[int, int] = (12, 20),
    table: str = "train/instances.json",
    pictures: bool = True,
) -> Path:
    """Frames and table of these numbers of frames; the path of the table is returned."""
    content = ytvis_table(videos, annotations, shape)
    for video in content["videos"] if pictures else ():
        for t, name in enumerate(video["file_names"]):
            save_jpeg(root / "train/JPEGImages" / name, frame(t, shape))
    return write_json(root / table, content)


def plain_crc32c(data: bytes) -> int:
    """CRC-32C one bit at a time, straight from the definition."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """CRC-32C, masked as TFRecord stores it."""
    crc = plain_crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value % 128 + 128]), value // 128
    return out + bytes([value])


def field(number: int, content: bytes) -> bytes:
    return varint(8 * number + 2) + varint(len(content)) + content


def example(features: Mapping[str, Sequence[Any]]) -> bytes:
    """`tf.train.Example` of lists of bytes or of integers, in the order given."""
    entries = b""
    for name, values in features.items():
        if values and isinstance(values[0], bytes):
            feature = field(1, b"".join(field(1, value) for value in values))
        else:
            feature = field(3, field(1, b"".join(varint(value) for value in values)))
        entries += field(1, field(1, name.encode()) + field(2, feature))
    return field(1, entries)


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "png")
    return file.getvalue()


def movi_features(frames: int, salt: int = 0, side: int = 128) -> dict[str, Sequence[Any]]:
    """A record as Kubric's, with a few of its other features; instance 1 is category 16, instance 2 is category 0."""
    shape = (side, side)
    return {
        "background": [b"forest"],
        "instances/category": [16, 0],
        "metadata/num_frames": [frames],
        "metadata/video_name": [f"{7000 + salt}".encode()],
        "segmentations": [png(moving_labels(t, shape)) for t in range(frames)],
        "video": [png(frame(t + salt, shape)) for t in range(frames)],
    }


def write_tfrecord(path: Path, records: Sequence[bytes]) -> list[int]:
    """The offsets of the records are returned."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content, offsets = b"", []
    for data in records:
        head = struct.pack("<Q", len(data))
        offsets.append(len(content))
        content += head + struct.pack("<I", crc32c(head)) + data + struct.pack("<I", crc32c(data))
    path.write_bytes(content)
    return offsets


def write_movi(
    root: Path,
    shards: Sequence[int],
    frames: int = 3,
    split: str = "validation",
    dataset: str = "movi_c",
    name: str = "{dataset}-{split}.tfrecord-{number:05d}-of-{total:05d}",
    change: Callable[[dict[str, Any]], Any] | None = None,
) -> Path:
    """`root/<dataset>/128x128/1.0.0` with these numbers of videos in its files; `change` edits each record."""
    folder, salt = root / dataset / "128x128/1.0.0", 0
    for number, count in enumerate(shards):
        records = []
        for _ in range(count):
            features = dict(movi_features(frames, salt))
            if change is not None:
                change(features)
            records.append(example(features))
            salt += 1
        place = name.format(dataset=dataset, split=split, number=number, total=len(shards))
        write_tfrecord(folder / place, records)
    (folder / "features.json").write_text("{}")
    info = {"name": dataset, "splits": [{"name": "train", "shardLengths": ["9"]}]}
    info["splits"].append({"name": split, "shardLengths": [str(count) for count in shards]})  # type: ignore[attr-defined]
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder
