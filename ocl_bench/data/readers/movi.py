"""MOVi-A .. MOVi-F (Greff et al. 2022, arXiv:2203.03570) as TFDS stores them, read without TensorFlow.

    <data root>/movi_c/128x128/1.0.0/movi_c-{train,validation,test}.tfrecord-00000-of-00008
                                     dataset_info.json                 numbers of videos, checked if it is there
                                     features.json                     not read
                                     instances-category.labels.txt     names of the categories, if it is there

This is the layout of gs://kubric-public/tfds. `<data root>/<data.folder>`, the folder movi_c and the folder of the
files themselves are accepted as data root, and `movi_c-validation-00000-of-00008.tfrecord` as name of a file. Options:

dataset  movi_a .. movi_f
size     side of the stored frames in pixels, 128 or 256

All files of a split must be there, and none may be cut. Opening reads the lengths of the records (12 bytes each);
`reader[i]` reads one record, checks its CRC-32C and keeps the encoded frames of that video. Ids are
`<file number>-<record number>`, because the names inside the records are known only after reading all of them (about
5 MB each). In `segmentations` 0 is the background and i + 1 is instance i.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict

from ...core.errors import DataMissingError, SampleError, UsageError
from ...core.files import read_text
from ...core.numbers import counted
from ...core.types import Sample, Truth, Video
from ..base import OpenData, Request, SampleSequence
from ..images import check_pixels
from ..index import Manifest, take_manifest
from ..options import check_split, parse_options, read_json
from ..stand_ins.layouts import ensure_layout
from .frames import lazy_video
from .places import find_root
from .tfrecord import decode_example, index_records, read_record

_REMEDY = "download the file again"
_SPLITS = ("train", "validation", "test")
_STAND_INS = ("movi_a", "movi_b", "movi_c", "movi_d", "movi_e")
_FEATURES = ("video", "segmentations", "instances/category")
_INFO, _NAMES = "dataset_info.json", "instances-category.labels.txt"


class MoviOptions(BaseModel):
    """The options of the card, validated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: Literal["movi_a", "movi_b", "movi_c", "movi_d", "movi_e", "movi_f"] = "movi_c"
    size: Literal[128, 256] = 128


def open_movi(request: Request) -> OpenData:
    """Open one split.

    Raises:
        UsageError: an option or the split is unknown, or files of the split are missing or cut.
        DataMissingError: there is no file of the split.
    """
    options = parse_options(MoviOptions, request)
    check_split(request, "MOVi", _SPLITS)
    if request.root is None:
        if options.dataset not in _STAND_INS or options.size != 128:
            what = f"{options.dataset} at {options.size}x{options.size} has no stand-in"
            raise DataMissingError(f"task '{request.task.name}': {what}; give --data-root ({request.data.get})")
        tree = ensure_layout(request, options.dataset)
        reader = MoviReader.open(_find_root(tree.root, request, options), request.split, options, None)
        return OpenData(reader, "embedded", tree.revision, reader.root, reader.ids, tree.note, reader.categories)
    reader = MoviReader.open(find_official(request), request.split, options, request.limit)
    what = f"{options.dataset} {options.size}x{options.size} {request.split}"
    note = f"data: {what}, {counted(len(reader), 'video')} of {reader.root}"
    revision = f"official-{reader.manifest.content}"
    return OpenData(reader, "official", revision, reader.root, reader.ids, note, reader.categories)


@dataclass(frozen=True)
class MoviReader(SampleSequence[Video]):
    """The videos of one split.

    size: side of a frame in pixels. records: file of each video, and the byte at which its record begins.
    """

    root: Path
    size: int
    ids: tuple[str, ...]
    records: tuple[tuple[str, int], ...]
    manifest: Manifest
    categories: dict[int, str]

    @classmethod
    def open(cls, root: Path, split: str, options: MoviOptions, limit: int | None) -> MoviReader:
        """Index the records of all files of the split, and keep the first `limit`."""
        shards = list_shards(root, options.dataset, split)
        expected = _expected_lengths(root, split, len(shards))
        ids, records = [], []
        for number, name in enumerate(shards):
            try:
                heads = list(index_records(root / name))
            except ValueError as error:
                raise UsageError(f"{error}; {_REMEDY}") from error
            except OSError as error:
                raise DataMissingError(f"{root / name}: cannot be read ({error.strerror}); {_REMEDY}") from error
            # A file that was cut between two records looks whole; only the stated number of videos tells.
            if expected is not None and expected[number] != len(heads):
                text = f"{len(heads)} videos, {_INFO} says {expected[number]}"
                raise UsageError(f"{root / name}: {text}; {_REMEDY}")
            ids += [f"{number:05d}-{position:04d}" for position in range(len(heads))]
            records += [(name, offset) for offset, _ in heads]
        if not ids:
            raise UsageError(f"{root}: the files of split '{split}' hold no video; download them again")
        manifest = take_manifest(root, [], [*shards, _INFO, _NAMES])  # a shard holds masks
        return cls(root, options.size, tuple(ids[:limit]), tuple(records[:limit]), manifest, _read_names(root))

    def __getitem__(self, index: int) -> Video:
        """Video `index`. Raises SampleError when its record is damaged or lacks a feature."""
        position = range(len(self))[index]
        video_id, (name, offset) = self.ids[position], self.records[position]
        where = f"{self.root / name}, record at byte {offset}"
        features = self._features(video_id, name, offset)
        frames, masks = (_encoded(features, key, video_id, where) for key in _FEATURES[:2])
        if len(frames) != len(masks):
            raise SampleError(video_id, f"{where}: {len(frames)} frames, {len(masks)} segmentations; {_REMEDY}")
        categories = np.asarray(features.get(_FEATURES[2], []))
        if categories.size and categories.dtype.kind != "i":
            raise SampleError(video_id, f"{where}: feature '{_FEATURES[2]}' is not a list of integers; {_REMEDY}")
        encoded = _Encoded(video_id, where, self.size, tuple(frames), tuple(masks), tuple(categories.tolist()))
        names = [f"{number:05d}" for number in range(len(frames))]
        return lazy_video(video_id, names, partial(_read_frame, encoded), _REMEDY)

    def _features(self, video_id: str, name: str, offset: int) -> dict[str, Any]:
        """The features of a record that are used. Raises SampleError when the record is damaged."""
        path = self.root / name
        try:
            data = read_record(path, offset)
        except OSError as error:
            raise SampleError(video_id, f"{path}: cannot be read ({error.strerror}); {_REMEDY}") from error
        except ValueError as error:
            raise SampleError(video_id, f"{error}; {_REMEDY}") from error
        try:
            return dict(decode_example(data, _FEATURES))
        except ValueError as error:
            raise SampleError(video_id, f"{path}, record at byte {offset}: {error}; {_REMEDY}") from error


@dataclass(frozen=True)
class _Encoded:
    """The parts of a record that are kept: frames and masks as PNG or JPEG files, categories of the instances.

    where: file and byte, for messages. size: side in pixels that a frame must have.
    """

    video_id: str
    where: str
    size: int
    frames: tuple[bytes, ...]
    masks: tuple[bytes, ...]
    categories: tuple[int, ...]


def _read_frame(encoded: _Encoded, position: int) -> Sample:
    """Decode one frame and its truth. Raises SampleError when an image or a number in it is wrong."""
    image = _decode(encoded, "video", encoded.frames[position], position).convert("RGB")
    mask = _decode(encoded, "segmentations", encoded.masks[position], position)
    if mask.mode != "L":
        text = f"segmentations[{position}] has mode '{mask.mode}', expected one channel of 8 bits"
        raise SampleError(encoded.video_id, f"{encoded.where}: {text}; {_REMEDY}")
    labels = np.asarray(mask).astype(np.int16)
    # Label i + 1 is instance i, so the largest label is the number of instances.
    if encoded.categories and labels.max() > len(encoded.categories):
        text = f"segmentations[{position}] shows instance {labels.max() - 1} of {len(encoded.categories)}"
        raise SampleError(encoded.video_id, f"{encoded.where}: {text}; {_REMEDY}")
    return Sample(encoded.video_id, np.asarray(image), Truth(labels, encoded.categories))


def _decode(encoded: _Encoded, key: str, content: bytes, position: int) -> Image.Image:
    """An image of the feature `key`. Raises SampleError when it cannot be decoded or has another size."""
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as picture:
            check_pixels(picture)
            picture.load()
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        text = f"{key}[{position}] is not an image ({' '.join(str(error).split())})"
        raise SampleError(encoded.video_id, f"{encoded.where}: {text}; {_REMEDY}") from error
    if picture.size != (encoded.size, encoded.size):
        text = f"{key}[{position}] has {picture.width}x{picture.height} pixels, data.options.size says {encoded.size}"
        raise SampleError(encoded.video_id, f"{encoded.where}: {text}; take the files of that size")
    return picture


def _encoded(features: dict[str, Any], key: str, video_id: str, where: str) -> list[bytes]:
    """The encoded images of a feature. Raises SampleError when it has none."""
    values = features.get(key, [])
    if not isinstance(values, list) or not values:  # numbers come as arrays
        raise SampleError(video_id, f"{where}: feature '{key}' is missing or not a list of images; {_REMEDY}")
    return list(values)


def list_shards(root: Path, dataset: str, split: str) -> list[str]:
    """Names of the files of a split, in order.

    Raises:
        DataMissingError: there is no such file, or one of them is missing.
        UsageError: a file is there under two names, or files of two versions are mixed.
    """
    # TFDS puts `.tfrecord` before the number; some tools put it at the end.
    pattern = re.compile(rf"{dataset}-{split}(?:\.tfrecord)?-(\d{{5}})-of-(\d{{5}})(?:\.tfrecord)?")
    matches = [match for path in sorted(root.iterdir()) if (match := pattern.fullmatch(path.name))]
    if not matches:
        raise DataMissingError(f"{root}: no file {dataset}-{split}.tfrecord-NNNNN-of-NNNNN in it; download this split")
    totals = sorted({int(match[2]) for match in matches})
    if len(totals) > 1:
        raise UsageError(f"{root}: files of {totals[0]} and of {totals[1]} in split '{split}'; remove one set")
    names: dict[int, str] = {}
    for match in matches:
        if (other := names.setdefault(int(match[1]), match.string)) != match.string:
            raise UsageError(f"{root}: '{other}' and '{match.string}' are one file; remove one")
    missing = [number for number in range(totals[0]) if number not in names]
    if missing or len(names) > totals[0]:
        text = f"{len(missing)} of {totals[0]} files of split '{split}' are missing, first number {missing[:1]}"
        raise DataMissingError(f"{root}: {text}; download them")
    return [names[number] for number in sorted(names)]


def _expected_lengths(root: Path, split: str, files: int) -> list[int] | None:
    """Number of videos of each file, from dataset_info.json; None when the file is missing or does not say."""
    path = root / _INFO
    if not path.is_file():
        return None
    entries = read_json(path).get("splits", [])
    try:
        lengths = [entry.get("shardLengths") for entry in entries if entry["name"] == split]
        # Proto-JSON writes 64-bit integers as text.
        numbers = [int(value) for value in lengths[0]] if lengths and lengths[0] else None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path}: field 'splits' is not a list of splits with shardLengths; {_REMEDY}") from error
    if numbers is not None and len(numbers) != files:
        raise UsageError(f"{path}: {len(numbers)} files in split '{split}', {files} are there; download them again")
    return numbers


def _read_names(root: Path) -> dict[int, str]:
    """Category -> name, from the file that TFDS writes for a class label; empty without that file."""
    path = root / _NAMES
    if not path.is_file():
        return {}
    try:
        return dict(enumerate(read_text(path).splitlines()))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error}); {_REMEDY}") from error


def find_official(request: Request) -> Path:
    """The folder of the official files. Raises DataMissingError."""
    assert request.root is not None
    return _find_root(request.root, request, parse_options(MoviOptions, request))


def _find_root(root: Path, request: Request, options: MoviOptions) -> Path:
    """The folder with the files of the data set. Raises DataMissingError."""
    side = f"{options.size}x{options.size}"
    bases = list(dict.fromkeys((root / request.data.folder, root)))
    return find_root(
        request,
        [base / part for base in bases for part in (f"{options.dataset}/{side}/1.0.0", f"{side}/1.0.0", "")],
        lambda place: next(place.glob(f"{options.dataset}-*-of-*"), None) is not None,
        f"file {options.dataset}-{request.split}.tfrecord-*",
        looked=[base / options.dataset / side / "1.0.0" for base in bases],
    )
