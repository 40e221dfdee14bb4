"""MOVi and YouTube-VIS as LMDB files of Genera1Z (RandSF.Q, SmoothSA and sisters; the converters of v3).

    movi_c/train.lmdb, val.lmdb             256 x 256 pixels; {video, segment, s, bbox, flow, depth}
    ytvis_2022/{train,val,test}.lmdb        {video, segment, s, clazz}
    ytvis_hq/{train,val,test}.lmdb          the same of HQ-YTVIS

`video` and `segment` are lists with an image file for each frame. Frames of YouTube-VIS are the original JPEG files;
frames of MOVi are PNG files in which red and blue changed places, as OpenCV wrote RGB arrays as if they were BGR.
`segment` is a PNG: 0 background, then the objects. Where two objects of YouTube-VIS overlap, the later one is stored.

The files have no names, so that ids are the keys. YouTube-VIS has only videos with an object, in the order in which its
annotations name them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from ...core.errors import SampleError
from ...core.numbers import counted
from ...core.types import Sample, Truth, Video
from ..base import OpenData, Request, SampleSequence
from ..images import decode_image, decode_mask
from ..index import Manifest, take_manifest
from ..labels import narrowed
from ..options import check_split, parse_options
from .frames import lazy_video
from .lmdb_file import LmdbFile, encoded
from .movi import MoviOptions
from .places import first_folder, usual_places
from .ytvis import YtvisOptions

_REMEDY = "download the file again"
_YTVIS = {2022: "ytvis_2022", "hq": "ytvis_hq"}
_SPLITS = {"validation": ("val", "validation"), "val": ("val",), "valid": ("val",)}
"""Split of a card -> names of its file; a split that is not listed has a file of its name."""


def find_movi_lmdb(request: Request) -> Path | None:
    """The file of a split of MOVi, None without it."""
    return _find(request, parse_options(MoviOptions, request).dataset)


def open_movi_lmdb(request: Request, path: Path) -> OpenData:
    """Open one split. Raises UsageError and DataMissingError as `open_movi` does."""
    options = parse_options(MoviOptions, request)
    check_split(request, "MOVi as LMDB", ("train", "validation"))
    shape = (options.size, options.size)
    return _open(request, path, f"{options.dataset} {request.split}", shape)


def find_ytvis_lmdb(request: Request) -> Path | None:
    """The file of a split of YouTube-VIS 2022 or HQ, None without it and for other years."""
    folder = _YTVIS.get(parse_options(YtvisOptions, request).year)
    return None if folder is None else _find(request, folder)


def open_ytvis_lmdb(request: Request, path: Path) -> OpenData:
    """Open one split. Raises UsageError and DataMissingError as `open_ytvis` does."""
    year = parse_options(YtvisOptions, request).year
    return _open(request, path, f"YouTube-VIS {year} {request.split}", None)


@dataclass(frozen=True)
class LmdbVideos(SampleSequence[Video]):
    """Videos of an LMDB file. shape: (H, W) of all frames of MOVi; None for YouTube-VIS."""

    file: LmdbFile
    ids: tuple[str, ...]
    shape: tuple[int, int] | None

    @cached_property
    def manifest(self) -> Manifest:
        """The file, which holds masks."""
        return take_manifest(self.file.path.parent, [], [self.file.path.name])

    def __getitem__(self, index: int) -> Video:
        """Video `index`. Raises SampleError when its value is damaged; frames are decoded one at a time."""
        key = self.ids[range(len(self))[index]]
        kinds = {} if self.shape is not None else {"clazz": np.ndarray}
        sample = self.file.sample(key, key, {"video": list, "segment": list, "s": int, **kinds})
        where = Path(f"{self.file.path}, key {key}")
        frames, masks = sample["video"], sample["segment"]
        images = all(isinstance(one, bytes | np.ndarray) for one in (*frames, *masks))
        if len(frames) != len(masks) or not images:
            raise SampleError(key, f"{where}: {len(frames)} frames, {len(masks)} segmentations; {_REMEDY}")
        categories: tuple[int, ...] = ()
        if kinds:
            table = sample["clazz"]
            if table.shape != (len(frames), sample["s"]) or (table != table[:1]).any():
                raise SampleError(
                    key, f"{where}: clazz is {table.shape}, expected one class for each object; {_REMEDY}"
                )
            categories = tuple(int(kind) for kind in table[0])
        video = _Encoded(key, where, frames, masks, int(sample["s"]), categories, self.shape)
        return lazy_video(key, [f"{t:05d}" for t in range(len(frames))], partial(_read_frame, video), _REMEDY)


@dataclass(frozen=True)
class _Encoded:
    """The parts of a sample that are kept. objects: their number."""

    video_id: str
    where: Path
    frames: list[bytes | np.ndarray]
    masks: list[bytes | np.ndarray]
    objects: int
    categories: tuple[int, ...]
    shape: tuple[int, int] | None


def _read_frame(video: _Encoded, position: int) -> Sample:
    """Decode one frame and its truth. Raises SampleError when an image or a number in it is wrong."""
    video_id, where = video.video_id, video.where
    image = decode_image(encoded(video.frames[position]), where, video_id, remedy=_REMEDY)
    if video.shape is not None:
        if image.shape[:2] != video.shape:
            text = f"frames have {image.shape[1]}x{image.shape[0]} pixels, data.options.size says {video.shape[1]}"
            raise SampleError(video_id, f"{where}: {text}; write a card with that size, or take the original files")
        image = np.ascontiguousarray(image[..., ::-1])  # see the text at the top
    numbers, coloured = decode_mask(encoded(video.masks[position]), where, video_id, shape=image.shape, remedy=_REMEDY)
    if coloured or numbers.max(initial=0) > video.objects:
        text = "is in colour" if coloured else f"shows object {numbers.max()} of {video.objects}"
        raise SampleError(video_id, f"{where}: segmentation {position} {text}; {_REMEDY}")
    labels = narrowed(numbers, video_id, f"{where}: segmentation {position}")
    return Sample(video_id, image, Truth(labels, video.categories))


def _open(request: Request, path: Path, what: str, shape: tuple[int, int] | None) -> OpenData:
    file = LmdbFile.open(path)
    reader = LmdbVideos(file, file.keys[: request.limit], shape)
    note = f"data: {what}, {counted(len(reader), 'video')} of the LMDB file {path}"
    return OpenData(reader, "official", f"official-{reader.manifest.content}", path.parent, reader.ids, note)


def _find(request: Request, folder: str) -> Path | None:
    """The file of the split below one of the usual places."""
    assert request.root is not None
    places = (request.root / folder, *usual_places(request))
    for name in _SPLITS.get(request.split, (request.split,)):
        place = first_folder(places, lambda candidate, file=f"{name}.lmdb": (candidate / file).is_file())  # type: ignore[misc]
        if place is not None:
            return place / f"{name}.lmdb"
    return None
