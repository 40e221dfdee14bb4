"""Videos as WebDataset shards, as the data scripts of VideoSAUR write them, which SlotContrast uses too.

    <data root>/movi_c/movi_c-validation-000000.tar, ...     members 0.video.npy, 0.segmentations.npy
    <data root>/ytvis2021/ytvis-validation-000000.tar, ...   members <video id>.video.npy, <video id>.segmentations.npy

`video.npy` is (T, H, W, 3) uint8. `segmentations.npy` of MOVi is (T, H, W, 1) uint8, 0 background and i + 1 instance i.
That of YouTube-VIS is (T, H, W, objects) uint8, one channel for each object, whose pixels hold its category. Shards of
training videos (`--only-video`) have no segmentations. `forward_flow.npy` is not read.

Ids are the keys of the shards: for YouTube-VIS the id of the video in its JSON file, for MOVi a running number. The
names of the original files are not in the shards. Instances of MOVi have no categories there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from ...core.errors import DataMissingError, SampleError, UsageError
from ...core.numbers import counted
from ...core.types import OVERLAP, Sample, Truth, Video
from ..base import OpenData, Request, SampleSequence
from ..index import Manifest, take_manifest
from ..labels import narrowed
from ..options import check_split, parse_options
from .frames import lazy_video
from .movi import MoviOptions
from .places import first_folder, usual_places
from .shards import Array, Part, index_shards, list_shards, open_array
from .ytvis import YtvisOptions, choose_videos

_REMEDY = "copy the shards again"
_PARTS = ("video.npy", "segmentations.npy")


def find_movi_shards(request: Request) -> Path | None:
    """The folder of shards of MOVi, None without them."""
    options = parse_options(MoviOptions, request)
    return _find(request, options.dataset, f"{options.dataset}-")


def open_movi_shards(request: Request, place: Path) -> OpenData:
    """Open the shards of one split of MOVi. Raises UsageError and DataMissingError as `open_movi` does."""
    options = parse_options(MoviOptions, request)
    check_split(request, "MOVi", ("train", "validation"))
    samples = _index(place, options.dataset, request)
    check = partial(_movi_frame, side=options.size)
    reader = ShardedVideos.open(place, list(samples.items())[: request.limit], check)
    what = f"{options.dataset} {options.size}x{options.size} {request.split}"
    return _opened(reader, what)


def find_ytvis_shards(request: Request) -> Path | None:
    """The folder of shards of YouTube-VIS, None without them."""
    return _find(request, "ytvis2021", "ytvis-")


def open_ytvis_shards(request: Request, place: Path) -> OpenData:
    """Open the shards of one split of YouTube-VIS. Raises UsageError and DataMissingError as `open_ytvis` does."""
    options = parse_options(YtvisOptions, request)
    check_split(request, "YouTube-VIS as shards", ("train", "validation"))
    if options.year != 2021:
        raise UsageError(f"{place}: shards are of YouTube-VIS 2021, data.options.year is {options.year}")
    samples = list(_index(place, "ytvis", request).items())
    # The shards of a split hold exactly its videos: validation is the last 300 of the JSON file.
    chosen = choose_videos(samples, options) if request.split == "validation" else samples
    reader = ShardedVideos.open(place, chosen[: request.limit], _ytvis_frame)
    what = f"{request.split}, {options.subset}" if request.split == "validation" else request.split
    return _opened(reader, f"YouTube-VIS {options.year} ({what})")


@dataclass(frozen=True)
class ShardedVideos(SampleSequence[Video]):
    """The videos of shards.

    Attributes:
        samples: parts of each video by name.
        truth: makes the truth of a frame from its segmentations and the arrays of its video.
    """

    root: Path
    ids: tuple[str, ...]
    samples: tuple[dict[str, Part], ...]
    truth: Callable[[np.ndarray, _Arrays], Truth]

    @classmethod
    def open(cls, root: Path, samples: list[tuple[str, dict[str, Part]]], truth: Callable[..., Truth]) -> ShardedVideos:
        """The reader of these samples. Raises DataMissingError when there is none, or one without segmentations."""
        for key, parts in samples:
            if lacking := [name for name in _PARTS if name not in parts]:
                shard = next(iter(parts.values())).shard
                text = f"sample '{key}' has no {lacking[0]}; were the shards written with only the videos?"
                raise DataMissingError(f"{shard}: {text}")
        if not samples:
            raise DataMissingError(f"{root}: the shards of this split hold no video; {_REMEDY}")
        return cls(root, tuple(key for key, _ in samples), tuple(parts for _, parts in samples), truth)

    @cached_property
    def manifest(self) -> Manifest:
        """The shards, which hold masks."""
        shards = dict.fromkeys(part.shard.name for parts in self.samples for part in parts.values())
        return take_manifest(self.root, [], shards)

    def __getitem__(self, index: int) -> Video:
        """Video `index`. Raises SampleError when its arrays do not fit together; frames are read one at a time."""
        position = range(len(self))[index]
        video_id, parts = self.ids[position], self.samples[position]
        video, masks = (open_array(parts[name], name, video_id) for name in _PARTS)
        where = f"{parts[_PARTS[0]].shard}, sample {video_id}"
        if len(video.shape) != 4 or video.shape[3] != 3 or video.dtype != np.uint8:
            raise SampleError(
                video_id, f"{where}: video.npy is {video.shape} {video.dtype}, expected (T, H, W, 3) uint8"
            )
        if len(masks.shape) != 4 or masks.shape[:3] != video.shape[:3] or masks.dtype != np.uint8:
            text = f"segmentations.npy is {masks.shape} {masks.dtype}, expected {video.shape[:3]} and objects, uint8"
            raise SampleError(video_id, f"{where}: {text}; {_REMEDY}")
        names = [f"{t:05d}" for t in range(video.shape[0])]
        return lazy_video(video_id, names, partial(self._frame, _Arrays(video_id, where, video, masks)), _REMEDY)

    def _frame(self, arrays: _Arrays, position: int) -> Sample:
        try:
            image, masks = arrays.video[position], arrays.masks[position]
            return Sample(arrays.video_id, image, self.truth(masks, arrays))
        except (OSError, ValueError) as error:
            raise SampleError(arrays.video_id, f"{arrays.where}: {error}; {_REMEDY}") from error


@dataclass(frozen=True)
class _Arrays:
    """The two arrays of a video. where: file and sample, for messages."""

    video_id: str
    where: str
    video: Array
    masks: Array

    @cached_property
    def categories(self) -> tuple[int, ...]:
        """The largest number in each channel over all frames; frames are read one at a time."""
        largest = np.zeros(self.masks.shape[3], np.uint8)
        for t in range(self.masks.shape[0]):
            np.maximum(largest, self.masks[t].max((0, 1)), out=largest)
        return tuple(int(value) for value in largest)


def _movi_frame(masks: np.ndarray, arrays: _Arrays, *, side: int) -> Truth:
    """Truth of a frame of MOVi. Raises ValueError for frames of another size or with several channels."""
    if masks.shape != (side, side, 1):
        text = f"segmentations are {masks.shape}, expected ({side}, {side}, 1)"
        raise ValueError(f"{text}; data.options.size says {side}")
    return Truth(masks[..., 0].astype(np.int16))


def _ytvis_frame(masks: np.ndarray, arrays: _Arrays) -> Truth:
    """Truth of a frame of YouTube-VIS: channels that are empty in the whole video get no label."""
    categories = arrays.categories
    shown = [channel for channel, category in enumerate(categories) if category]
    seen = masks[..., shown] > 0
    labels = (seen * np.arange(1, len(shown) + 1)).sum(-1)
    labels[seen.sum(-1) > 1] = OVERLAP
    return Truth(narrowed(labels, arrays.video_id, arrays.where), tuple(categories[channel] for channel in shown))


def _find(request: Request, folder: str, prefix: str) -> Path | None:
    """The first of the usual places, and `folder`, that holds shards whose names begin with `prefix`."""
    assert request.root is not None
    places = (request.root / folder, *usual_places(request))
    return first_folder(places, lambda place: place.is_dir() and next(place.glob(f"{prefix}*.tar"), None) is not None)


def _index(place: Path, name: str, request: Request) -> dict[str, dict[str, Part]]:
    """The samples of the shards of a split. Raises DataMissingError when there is no shard of it."""
    shards = list_shards(place, rf"{name}-{request.split}-([0-9]+)\.tar")
    if not shards:
        raise DataMissingError(f"{place}: no shard {name}-{request.split}-000000.tar in it; convert this split too")
    return index_shards(shards)


def _opened(reader: ShardedVideos, what: str) -> OpenData:
    note = f"data: {what}, {counted(len(reader), 'video')} of WebDataset shards in {reader.root}"
    return OpenData(reader, "official", f"official-{reader.manifest.content}", reader.root, reader.ids, note)
