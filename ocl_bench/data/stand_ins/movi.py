"""Write videos as a MOVi tree, as TensorFlow Datasets 4 stores it (Greff et al. 2022, arXiv:2203.03570).

<dataset>/128x128/1.0.0/<dataset>-<split>.tfrecord-00000-of-00004     16 videos each; a record is a tf.train.Example
<dataset>/128x128/1.0.0/{dataset_info.json,features.json}
<dataset>/128x128/1.0.0/instances-category.labels.txt

These official features are written: video and segmentations as PNG files (0 is the background, i + 1 instance i),
metadata, category and visibility of the instances. Depth, flow, camera and the features of the physics are not.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..readers.tfrecord import encode_example, write_records
from ..scenes.videos import RenderedVideo

CATEGORIES = (
    "Action Figures", "Bag", "Board Games", "Bottles and Cans and Cups", "Camera", "Car Seat", "Consumer Goods", "Hat",
    "Headphones", "Keyboard", "Legos", "Media Cases", "Mouse", "None", "Shoe", "Stuffed Toys", "Toys",
)  # fmt: skip
"""Categories of MOVi-C .. MOVi-F; rendered shapes have the first ones."""

_VIDEOS_PER_FILE = 16
_FEATURES = "tensorflow_datasets.core.features."


def write(folder: Path, split: str, videos: Iterable[RenderedVideo], first: int, *, dataset: str) -> None:
    """Write one split (train, validation or test); video k gets the name first + k. All have the same size."""
    place = folder / dataset / "128x128" / "1.0.0"
    place.mkdir(parents=True, exist_ok=True)
    numbered = enumerate(videos, start=first)
    lengths: list[list[int]] = []
    shape: tuple[int, ...] = ()

    def records(part: Iterable[tuple[int, RenderedVideo]]) -> Iterator[bytes]:
        nonlocal shape
        for number, video in part:
            shape = video.frames.shape
            yield encode_video(video, str(number))

    # The names of the files state their total number, which is known only at the end.
    for head in numbered:
        part = chain([head], islice(numbered, _VIDEOS_PER_FILE - 1))
        lengths.append(write_records(place / f"{len(lengths)}.part", records(part)))
    for number in range(len(lengths)):
        name = f"{dataset}-{split}.tfrecord-{number:05d}-of-{len(lengths):05d}"
        (place / f"{number}.part").rename(place / name)
    _dump(place / "dataset_info.json", _info(dataset, split, lengths))
    _dump(place / "features.json", _describe(shape))
    names = "".join(f"{name}\n" for name in CATEGORIES)
    (place / "instances-category.labels.txt").write_text(names, encoding="utf-8")


def encode_video(video: RenderedVideo, name: str) -> bytes:
    """A video as serialised tf.train.Example."""
    frames, height, width = video.objects.shape
    count = len(video.categories)
    # A feature of all instances is one flat list: all frames of the first instance, then those of the second, ...
    seen = [(video.objects == number).sum(axis=(1, 2)) for number in range(1, count + 1)]
    return encode_example(
        {
            "video": [_png(frame) for frame in video.frames],
            "segmentations": [_png(objects) for objects in video.objects],
            "metadata/video_name": [name.encode()],
            "metadata/width": [width],
            "metadata/height": [height],
            "metadata/num_frames": [frames],
            "metadata/num_instances": [count],
            "instances/category": [category - 1 for category in video.categories],
            "instances/visibility": [int(area) for areas in seen for area in areas],
        }
    )


def _png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG", compress_level=3)
    return content.getvalue()


def _info(dataset: str, split: str, lengths: list[list[int]]) -> dict[str, Any]:
    """Content of dataset_info.json. lengths: bytes of each record of each file."""
    return {
        "configDescription": "Downscaled to 128x128",
        "configName": "128x128",
        "description": f"Rendered videos in the layout of {dataset}.",
        "fileFormat": "tfrecord",
        "name": dataset,
        "releaseNotes": {"1.0.0": "initial release"},
        "splits": [
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": split,
                "numBytes": str(sum(map(sum, lengths))),
                "shardLengths": [str(len(part)) for part in lengths],
            }
        ],
        "version": "1.0.0",
    }


def _describe(shape: tuple[int, ...]) -> dict[str, Any]:
    """Content of features.json for videos of shape (T, H, W, 3)."""
    frames, height, width, _ = shape
    instance = {
        "category": {
            "classLabel": {"numClasses": str(len(CATEGORIES))},
            "pythonClassName": f"{_FEATURES}class_label_feature.ClassLabel",
        },
        "visibility": _tensor("uint16", frames),
    }
    metadata = {name: _tensor("int32") for name in ("width", "height", "num_frames")}
    metadata["num_instances"] = _tensor("uint16")
    metadata["video_name"] = {"pythonClassName": f"{_FEATURES}text_feature.Text", "text": {}}
    return _group(
        {
            "video": {
                "pythonClassName": f"{_FEATURES}video_feature.Video",
                "video": _pixels(frames, height, width, 3),
            },
            "segmentations": _sequence(
                {"pythonClassName": f"{_FEATURES}image_feature.Image", "image": _pixels(height, width, 1)}, frames
            ),
            "metadata": _group(metadata),
            "instances": _sequence(_group(instance), -1),
        }
    )


def _tensor(kind: str, *shape: int) -> dict[str, Any]:
    content = {"dtype": kind, "encoding": "none", "shape": _shape(shape)}
    return {"pythonClassName": f"{_FEATURES}tensor_feature.Tensor", "tensor": content}


def _pixels(*shape: int) -> dict[str, Any]:
    return {"dtype": "uint8", "encodingFormat": "png", "shape": _shape(shape)}


def _shape(shape: tuple[int, ...]) -> dict[str, Any]:
    return {"dimensions": [str(length) for length in shape]} if shape else {}


def _sequence(feature: dict[str, Any], length: int) -> dict[str, Any]:
    content = {"feature": feature, "length": str(length)}
    return {"pythonClassName": f"{_FEATURES}sequence_feature.Sequence", "sequence": content}


def _group(features: dict[str, Any]) -> dict[str, Any]:
    name = f"{_FEATURES}features_dict.FeaturesDict"
    return {"featuresDict": {"features": features}, "pythonClassName": name}


def _dump(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=4, sort_keys=True), encoding="utf-8")


write_movi_a, write_movi_b, write_movi_c, write_movi_d, write_movi_e = (
    partial(write, dataset=f"movi_{letter}") for letter in "abcde"
)
