"""YouTube-VIS 2021 and 2019 (Yang et al. 2019, arXiv:1905.04804), below <data root>/ytvis or <data root> itself.

    train/JPEGImages/<video>/00000.jpg, 00005.jpg, ...
    train/instances.json                                   2021
    train.json                                             2019; either place is read for either year

valid/ and test/ have no public annotations. SlotContrast (Manasyan et al. 2025, arXiv:2412.14295) therefore validates
on the last 300 videos of the training set, in the order of the JSON file, and so do we. Splits: `validation`, these 300
(all videos, if there are fewer); `train`, the videos before them. Options of a card:

year    2021 or 2019; a file that shows the categories of the other year is refused
subset  of `validation`: `all`, or `first210`, the first 210 of the 300, on which the released configuration evaluates

An annotation is one object in all frames: polygons, either kind of run-length code, or null where it is not seen. The
number of an object is its place among the annotations of the video that are not crowds and have a mask in some frame;
other annotations are left out and counted. A pixel of two objects is an overlap, a pixel of none is 0. Ids are the
folders of the videos.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from ...core.errors import DataMissingError, SampleError, UsageError
from ...core.types import Instance, Sample, Truth, Video
from ..base import OpenData, Request, SampleSequence
from ..images import read_image
from ..index import Manifest, take_manifest
from ..labels import label_map, run_length
from ..options import check_entries, first_repeated, parse_options, read_json
from ..stand_ins.layouts import ensure_layout
from .frames import lazy_video
from .places import find_root, usual_places

_REMEDY = "download the file again"
_IMAGES = Path("train/JPEGImages")
_TABLES = {2021: Path("train/instances.json"), 2019: Path("train.json")}
_VALIDATION, _FIRST = 300, 210
_PERSON = {2021: 26, 2019: 1}
"""Year -> id of the category `person`, which tells the two years apart."""

_FIELDS: dict[str, dict[str, Any]] = {
    "videos": {"id": (int, str), "file_names": list, "height": int, "width": int},
    "annotations": {"video_id": (int, str)},
    "categories": {"id": int, "name": str},
}
"""Fields without which an entry belongs to no video; a fault in any other field fails only its own video."""


class YtvisOptions(BaseModel):
    """The options of the card, validated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    year: Literal[2019, 2021] = 2021
    subset: Literal["first210", "all"] = "all"


class _Runs(NamedTuple):
    """A run-length code of the JSON file, packed: a list of its numbers takes 10 times the memory."""

    size: tuple[int, ...]
    counts: bytes


def open_ytvis(request: Request) -> OpenData:
    """Open one split.

    Raises:
        UsageError: an option or the split is unknown, or the table of annotations is broken.
        DataMissingError: the table is not there.
    """
    options = parse_options(YtvisOptions, request)
    if request.split not in ("train", "validation"):
        known = "has the splits train and validation (the last 300 videos of its training set)"
        raise UsageError(f"task '{request.task.name}': YouTube-VIS {known}, not '{request.split}'")
    if request.root is None:
        tree = ensure_layout(request, "ytvis")
        # A tree of the stand-in holds the videos of one split only.
        reader = YtvisReader.open(tree.root, _table(tree.root, options, request), None)
        return OpenData(reader, "embedded", tree.revision, tree.root, reader.ids, tree.note, reader.categories)
    root = _find_root(request, options)
    reader = YtvisReader.open(root, _table(root, options, request), request.limit, (request.split, options))
    what = f"{request.split}, {options.subset}" if request.split == "validation" else request.split
    note = f"data: YouTube-VIS {options.year} ({what}), {len(reader)} videos of {root}{reader.remark}"
    return OpenData(
        reader, "official", f"official-{reader.manifest.content}", root, reader.ids, note, reader.categories
    )


@dataclass(frozen=True)
class YtvisReader(SampleSequence[Video]):
    """The videos of one split.

    Attributes:
        table: the JSON file.
        videos: its entries of the videos.
        annotations: video id -> its entries of the objects, with packed masks.
        categories: id -> name.
        remark: what was left out, for the note.
    """

    root: Path
    table: Path
    ids: tuple[str, ...]
    videos: tuple[dict[str, Any], ...]
    annotations: dict[Any, list[dict[str, Any]]]
    categories: dict[int, str]
    remark: str

    @classmethod
    def open(
        cls, root: Path, table: Path, limit: int | None, part: tuple[str, YtvisOptions] | None = None
    ) -> YtvisReader:
        """Parse the table and keep the first `limit` videos.

        part: split and options of official data; None takes all videos, as in the tree of a stand-in.
        """

        def choose(videos: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return (videos if part is None else _choose(videos, *part))[:limit]

        content = read_json(table, _Packer(choose))
        _check_table(content, table)
        categories = {entry["id"]: entry["name"] for entry in content["categories"]}
        if part is not None:
            _check_year(categories, part[1].year, table)
        videos = tuple(choose(content["videos"]))
        if not videos:
            raise DataMissingError(f"{table}: {len(content['videos'])} videos, none of them for this split; {_REMEDY}")
        ids = _name_videos(videos, table)
        annotations, remark = _group(content, videos)
        return cls(root, table, ids, videos, annotations, categories, remark)

    @cached_property
    def manifest(self) -> Manifest:
        """The table and all frames."""
        names = [(_IMAGES / str(name)).as_posix() for video in self.videos for name in video["file_names"]]
        return take_manifest(self.root, names, [self.table.relative_to(self.root).as_posix()])

    def __getitem__(self, index: int) -> Video:
        """Video `index`. Raises SampleError when its entries contradict each other; no frame is read."""
        position = range(len(self))[index]
        video_id, entry = self.ids[position], self.videos[position]
        files = entry["file_names"]
        annotations = self.annotations.get(entry["id"], [])
        wrong = next((name for name in files if not _stays(name)), None)
        if wrong is not None:
            raise SampleError(video_id, f"file name {wrong!r} is not a path in JPEGImages; {_REMEDY}")
        if entry.get("length", len(files)) != len(files):
            raise SampleError(video_id, f"length {entry['length']}, but {len(files)} file names; {_REMEDY}")
        for annotation in annotations:
            self._check_annotation(video_id, annotation, len(files))
        names = [Path(name).stem for name in files]
        return lazy_video(video_id, names, partial(self._frame, video_id, entry, annotations), _REMEDY)

    def _check_annotation(self, video_id: str, entry: dict[str, Any], count: int) -> None:
        """Raise SampleError unless an annotation has a known category and one mask, or null, for each frame."""
        name, category, masks = f"annotation {entry.get('id')}", entry.get("category_id"), entry["segmentations"]
        if not isinstance(category, int) or category not in self.categories:
            raise SampleError(video_id, f"{name}: unknown category {category!r}; {_REMEDY}")
        if not isinstance(masks, list) or len(masks) != count:
            length = f"{len(masks)} entries" if isinstance(masks, list) else f"a {type(masks).__name__}"
            raise SampleError(video_id, f"{name}: segmentations has {length}, the video {count} frames; {_REMEDY}")

    def _frame(self, video_id: str, entry: dict[str, Any], annotations: list[dict[str, Any]], position: int) -> Sample:
        shape = entry["height"], entry["width"]
        path = self.root / _IMAGES / entry["file_names"][position]
        image = read_image(path, video_id, shape=shape, remedy=_REMEDY)
        labels, _ = label_map(tuple(self._object(video_id, entry, position, shape) for entry in annotations), shape)
        return Sample(video_id, image, Truth(labels, tuple(entry["category_id"] for entry in annotations)))

    def _object(self, video_id: str, entry: dict[str, Any], position: int, shape: tuple[int, int]) -> Instance:
        """An annotation in one frame, with an empty mask where the object is not seen."""
        # label_map numbers only instances with a mask: with None, the later objects of this frame would move up.
        segmentation = entry["segmentations"][position]
        if isinstance(segmentation, _Runs):
            segmentation = {"size": segmentation.size, "counts": segmentation.counts}
        try:
            mask = run_length(segmentation or {"size": shape, "counts": [shape[0] * shape[1]]}, shape)
        except (ValueError, TypeError, OverflowError) as error:
            text = f"annotation {entry.get('id')}, entry {position} of segmentations: {error}"
            raise SampleError(video_id, f"{text}; {_REMEDY}") from error
        return Instance(entry["category_id"], (0.0, 0.0, 0.0, 0.0), mask, 0.0)


class _Packer:
    """Packs each object of the JSON file as soon as it is parsed: few masks exist as Python numbers at one time.

    Annotations keep only the fields that are read later. Those of videos that are not wanted lose their masks, if the
    videos come first in the file, as they do in the official ones: packing 300 of 2,985 takes a tenth of the time.

    choose: from all videos, gives those that are wanted.
    """

    def __init__(self, choose: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
        self._choose = choose
        self._videos: list[dict[str, Any]] = []
        self._wanted: set[Any] | None = None

    def __call__(self, entry: dict[str, Any]) -> dict[str, Any]:
        if "file_names" in entry:
            self._videos.append(entry)
        if "video_id" not in entry:
            return entry
        if self._wanted is None and self._videos:
            self._wanted = {video.get("id") for video in self._choose(self._videos) if _is_id(video.get("id"))}
        if self._wanted is not None and _is_id(entry["video_id"]) and entry["video_id"] not in self._wanted:
            return {"video_id": entry["video_id"]}
        masks = entry.get("segmentations")
        masks = [_pack(mask) for mask in masks] if isinstance(masks, list) else masks
        return {**{key: entry[key] for key in entry.keys() - {"bboxes", "areas"}}, "segmentations": masks}


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str)


def _pack(segmentation: Any) -> Any:
    """A mask in less memory. A broken one stays as it is: reading its video then says what is wrong with it."""
    with suppress(AttributeError, KeyError, ValueError, TypeError, OverflowError):
        if isinstance(segmentation, list):
            return [array("d", polygon) for polygon in segmentation]
        if segmentation is not None:
            size, counts = tuple(segmentation["size"]), segmentation["counts"]
            code = run_length(segmentation, size) if isinstance(counts, list) else None
            return _Runs(size, code["counts"] if code else counts.encode())
    return segmentation


def _group(content: dict[str, Any], videos: Iterable[dict[str, Any]]) -> tuple[dict[Any, list[dict[str, Any]]], str]:
    """Objects of each video in the order of the table, and what was left out, for the note."""
    known, wanted = {video["id"] for video in content["videos"]}, {video["id"] for video in videos}
    grouped: dict[Any, list[dict[str, Any]]] = {}
    crowds = empty = strangers = 0
    for entry in content["annotations"]:
        strangers += entry["video_id"] not in known
        if entry["video_id"] not in wanted:
            continue
        masks = entry["segmentations"]
        if entry.get("iscrowd"):
            crowds += 1
        elif masks is None or (isinstance(masks, list) and not any(masks)):
            empty += 1
        else:
            grouped.setdefault(entry["video_id"], []).append(entry)
    counts = (
        (crowds, "are crowds"),
        (empty, "have no mask in any frame"),
        (strangers, "point to videos that are not listed"),
    )
    return grouped, "".join(f"; {count} annotations {why} and are left out" for count, why in counts if count)


def _choose(videos: list[dict[str, Any]], split: str, options: YtvisOptions) -> list[dict[str, Any]]:
    """The videos of a split, in the order of the table: validation is its end, see the text at the top."""
    first = max(len(videos) - _VALIDATION, 0)
    if split == "train":
        return videos[:first]
    return videos[first:][: _FIRST if options.subset == "first210" else None]


def _name_videos(videos: Iterable[dict[str, Any]], table: Path) -> tuple[str, ...]:
    """The folder of each video, or its id where its files have none."""
    ids = []
    for video in videos:
        folder = Path(str(video["file_names"][0])).parent.name if video["file_names"] else ""
        ids.append(folder if folder not in ("", "..") else Path(str(video["id"])).name)
    if (twice := first_repeated(ids)) is not None:
        raise UsageError(f"{table}: two videos have the folder '{twice}'; {_REMEDY}")
    return tuple(ids)


def _check_table(content: dict[str, Any], table: Path) -> None:
    """Raise UsageError unless videos, annotations and categories have what `_FIELDS` asks for, and ids of their own."""
    if content.get("annotations", ()) is None:
        raise UsageError(f"{table}: annotations is null, as in the tables of valid and test; use that of train")
    check_entries(content, table, _FIELDS)
    for field in ("videos", "categories"):
        if (twice := first_repeated(entry["id"] for entry in content[field])) is not None:
            raise UsageError(f"{table}: two {field} have the id {twice!r}; {_REMEDY}")


def _check_year(categories: dict[int, str], year: int, table: Path) -> None:
    """Raise UsageError when the categories are those of the other year."""
    for other, number in _PERSON.items():
        if other != year and categories.get(number) == "person":
            text = f"category {number} is person, as in YouTube-VIS {other}"
            raise UsageError(f"{table}: {text}, but data.options.year is {year}; give the data of that year")


def _find_root(request: Request, options: YtvisOptions) -> Path:
    return find_root(
        request,
        usual_places(request),
        lambda place: any((place / table).is_file() for table in _TABLES.values()),
        f"{' or '.join(map(str, _TABLES.values()))} (YouTube-VIS {options.year})",
        between=" and ",
    )


def _table(root: Path, options: YtvisOptions, request: Request) -> Path:
    """The annotation file. The place of the year is tried first: both years may lie in one folder."""
    others = [table for year, table in _TABLES.items() if year != options.year]
    for table in (_TABLES[options.year], *others):
        if (root / table).is_file():
            return root / table
    raise DataMissingError(f"task '{request.task.name}': {root / _TABLES[options.year]} is not there; {_REMEDY}")


def _stays(name: Any) -> bool:
    """Whether a file name of the table is text and does not lead out of its folder."""
    return isinstance(name, str) and "\0" not in name and not Path(name).is_absolute() and ".." not in Path(name).parts
