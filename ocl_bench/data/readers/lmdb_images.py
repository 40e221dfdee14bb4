"""CLEVRTEX, COCO and PASCAL VOC as LMDB files of Genera1Z (DIAS and its sisters; the converters of v3).

    clevrtex/train.lmdb, val.lmdb    variant full, variant outd; {image, segment, depth}
    coco/train.lmdb, val.lmdb        panoptic annotations; {image, segment, clazz, isthing}
    voc/train.lmdb, val.lmdb         all masks of VOC2012, all masks of VOC2007; {image, segment}

`image` is the original file. `segment` is a map of numbers as lossless WebP or PNG:

clevrtex  0 background, then the objects in the order of their colours' codes R + 256 G + 65536 B
coco      0 without annotation, then the segments in the order of their ids; `clazz` and `isthing` are of these
voc       0 the lines around objects, 1 background, then the objects in the order of their colours' codes

So an object may have another number here than in the original mask; which pixels are one object is the same. The file
has no names: ids of CLEVRTEX follow from the order (its shards sorted as text, 1000 scenes each), those of COCO and VOC
are the keys. Files of before October 2025 (v3) merge void and background: they are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...core.errors import DataMissingError, SampleError, UsageError
from ...core.numbers import counted
from ...core.types import VOID, Sample, Truth
from ..base import OpenData, Request, SampleSequence
from ..images import decode_image, decode_numbers
from ..index import Manifest, take_manifest
from ..labels import narrowed
from ..options import parse_options
from .clevrtex import SCENES, partial_note, split_numbers
from .coco import CocoOptions, panoptic_truth
from .lmdb_file import LmdbFile, encoded
from .places import first_folder, usual_places
from .voc import VocOptions

_REMEDY = "download the file again"
_IMAGE = (bytes, np.ndarray)
_CLEVRTEX = {"full": "train", "outd": "val"}
_VOC = {2012: "train", 2007: "val"}
_SCENES_IN_SHARD = 1000
_PROBED, _MOST_LINES = 4, 0.4
"""Samples of VOC that are looked at, and the largest mean share of 0: lines are 5 %, background is 70 %."""

Labels = Callable[[np.ndarray, dict[str, Any]], Truth]
"""Makes the truth of a sample from its numbers (H, W) int16 and its other fields. Raises ValueError."""


def find_clevrtex_lmdb(request: Request) -> Path | None:
    """The file of a variant of CLEVRTEX, None without it."""
    name = _CLEVRTEX.get(request.data.variant or "full")
    return None if name is None else _find(request, "clevrtex", name)


def open_clevrtex_lmdb(request: Request, path: Path) -> OpenData:
    """Open one split of a variant. Raises UsageError and DataMissingError as `open_clevrtex` does."""
    variant = request.data.variant or "full"
    file = LmdbFile.open(path)
    if len(file.keys) > SCENES[variant]:
        raise UsageError(f"{path}: {len(file.keys)} scenes, CLEVRTEX {variant} has {SCENES[variant]}; is it this one?")
    shards = sorted(range(SCENES[variant] // _SCENES_IN_SHARD), key=str)
    numbers = [_SCENES_IN_SHARD * shards[k // _SCENES_IN_SHARD] + k % _SCENES_IN_SHARD for k in range(len(file.keys))]
    wanted = split_numbers(variant, request.split)
    chosen = sorted(
        (number, key) for number, key in zip(numbers, file.keys, strict=True) if wanted is None or number in wanted
    )
    ids = [f"CLEVRTEX_{variant}_{number:06d}" for number, _ in chosen]
    keys = [key for _, key in chosen]
    data = _open(request, file, f"CLEVRTEX {variant}/{request.split}", ids, keys, _plain_labels)
    return replace(data, note=data.note + partial_note(set(numbers), wanted))


def find_coco_lmdb(request: Request) -> Path | None:
    """The file of a split of COCO, None without it or for other than panoptic annotations."""
    options = parse_options(CocoOptions, request)
    return _find(request, "coco", request.split) if options.annotations == "panoptic" else None


def open_coco_lmdb(request: Request, path: Path) -> OpenData:
    """Open one split. Raises UsageError and DataMissingError as `open_coco` does."""
    options = parse_options(CocoOptions, request)
    if options.ids is not None:
        raise UsageError(f"{path}: has no names of images, so that data.options.ids cannot be used; leave it out")
    file, labels = LmdbFile.open(path), partial(_coco_labels, stuff=options.stuff)
    return _open(request, file, f"COCO {request.split}2017 (panoptic)", file.keys, file.keys, labels, _COCO_FIELDS)


_COCO_FIELDS = {"clazz": np.ndarray, "isthing": np.ndarray}


def find_voc_lmdb(request: Request) -> Path | None:
    """The file of VOC2012 or VOC2007, None without it or for a split other than `all-masks`."""
    options = parse_options(VocOptions, request)
    fits = request.split == "all-masks" and options.truth == "instances" and options.boxes == "masks"
    return _find(request, "voc", _VOC[options.year]) if fits else None


def open_voc_lmdb(request: Request, path: Path) -> OpenData:
    """Open all masks of a year. Raises UsageError and DataMissingError as `open_voc` does."""
    year = parse_options(VocOptions, request).year
    file = LmdbFile.open(path)
    data = _open(request, file, f"PASCAL VOC {year} all-masks", file.keys, file.keys, _voc_labels)
    share = _share_of_lines(data)
    if share > _MOST_LINES:
        text = f"{share:.0%} of the pixels have number 0: that is background in files of before v3"
        raise UsageError(f"{path}: {text}, and lines around objects cannot be told from it; download the file of v3")
    return data


def _share_of_lines(data: OpenData) -> float:
    """Mean share of void pixels in the first samples; those that cannot be read fail alone, when they are evaluated."""
    shares = []
    for index in range(min(_PROBED, len(data))):
        with suppress(SampleError):
            shares.append(float((data.reader[index].truth.labels == VOID).mean()))
    return float(np.mean(shares)) if shares else 0.0


@dataclass(frozen=True)
class LmdbImages(SampleSequence[Sample]):
    """Images of an LMDB file. keys: of the samples in the file. fields: that `labels` needs beside `segment`."""

    file: LmdbFile
    ids: tuple[str, ...]
    keys: tuple[str, ...]
    labels: Labels
    fields: dict[str, Any]

    @cached_property
    def manifest(self) -> Manifest:
        """The file, which holds masks."""
        return take_manifest(self.file.path.parent, [], [self.file.path.name])

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`. Raises SampleError when its value is damaged or contradicts itself."""
        position = range(len(self))[index]
        sample_id, key = self.ids[position], self.keys[position]
        sample = self.file.sample(key, sample_id, {"image": _IMAGE, "segment": _IMAGE, **self.fields})
        where = Path(f"{self.file.path}, key {key}")
        image = decode_image(encoded(sample["image"]), where, sample_id, remedy=_REMEDY)
        numbers = decode_numbers(encoded(sample["segment"]), where, sample_id, shape=image.shape, remedy=_REMEDY)
        try:
            return Sample(sample_id, image, self.labels(narrowed(numbers, sample_id, where), sample))
        except ValueError as error:
            raise SampleError(sample_id, f"{where}: {error}; {_REMEDY}") from error


def _plain_labels(numbers: np.ndarray, sample: dict[str, Any]) -> Truth:
    """CLEVRTEX: the numbers are the labels."""
    return Truth(numbers)


def _coco_labels(numbers: np.ndarray, sample: dict[str, Any], *, stuff: Literal["merged", "segments"]) -> Truth:
    """COCO: number k is the k-th segment. Raises ValueError for a number without a class."""
    kinds, things = sample["clazz"], sample["isthing"]
    if kinds.shape != things.shape or numbers.max(initial=0) > len(kinds):
        raise ValueError(f"segment {numbers.max(initial=0)} of {len(kinds)} with a class")
    segments = {code: int(kind) for code, kind in enumerate(kinds, start=1)}
    objects = frozenset(code for code, thing in enumerate(things, start=1) if thing)
    return panoptic_truth(numbers, segments, objects, stuff)


def _voc_labels(numbers: np.ndarray, sample: dict[str, Any]) -> Truth:
    """VOC: 0 is void, 1 background, and objects follow."""
    return Truth(numbers - np.int16(1))


def _open(
    request: Request,
    file: LmdbFile,
    what: str,
    ids: list[str] | tuple[str, ...],
    keys: list[str] | tuple[str, ...],
    labels: Labels,
    fields: dict[str, Any] | None = None,
) -> OpenData:
    """The first samples of a file. Raises DataMissingError when there is none for the split."""
    if not ids:
        raise DataMissingError(f"{file.path}: no sample of the split '{request.split}' in it; see docs/data.md")
    limit = request.limit
    reader = LmdbImages(file, tuple(ids[:limit]), tuple(keys[:limit]), labels, fields or {})
    note = f"data: {what}, {counted(len(reader), 'image')} of the LMDB file {file.path}"
    return OpenData(reader, "official", f"official-{reader.manifest.content}", file.path.parent, reader.ids, note)


def _find(request: Request, folder: str, name: str) -> Path | None:
    assert request.root is not None
    places = (request.root / folder, *usual_places(request))
    place = first_folder(places, lambda candidate: (candidate / f"{name}.lmdb").is_file())
    return None if place is None else place / f"{name}.lmdb"
