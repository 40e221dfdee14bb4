"""YouTube-VIS (Yang et al. 2019, arXiv:1905.04804) and OVIS, below <data root>/<data.folder> or <data root> itself.

    train/JPEGImages/<video>/00000.jpg, 00005.jpg, ...
    train/instances.json                                   2021
    train.json                                             2019; either place is read for either year
    valid/JPEGImages, valid/gt.json                        2022; test/JPEGImages, test/test_gt.json
    JPEGImages, ytvis_hq-{train,val,test}.json             HQ-YTVIS (Ke et al. 2022, arXiv:2207.14012)
    train/<video>/img_0000001.jpg, annotations_train.json  OVIS, the reader `ovis`

In 2019 and 2021 only the training set has public annotations. SlotContrast (Manasyan et al. 2025, arXiv:2412.14295)
therefore validates on its last 300 videos, in the order of the JSON file, and so do we. Splits: `validation`, these 300
(all videos, if there are fewer); `train`, the videos before them. Splits of the others are their tables: train, val and
test for 2022 and HQ, train for OVIS. Options of a card (OVIS has none):

year    2021, 2019, 2022 or hq; a file that shows the categories of another edition is refused
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
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict

from ...core.errors import DataMissingError, SampleError, UsageError
from ...core.numbers import counted
from ...core.types import Instance, Sample, Truth, Video
from ..base import OpenData, Request, SampleSequence
from ..images import read_image
from ..index import Manifest, take_manifest
from ..labels import label_map, narrowed, run_length
from ..options import check_entries, first_repeated, parse_options, read_json
from ..stand_ins.layouts import ensure_layout
from .frames import lazy_video
from .places import find_root, usual_places
from .ytvis_editions import EDITIONS, OVIS, Edition

Item = TypeVar("Item")
Choose = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]

_REMEDY = "download the file again"
_VALIDATION, _FIRST = 300, 210

_FIELDS: dict[str, dict[str, Any]] = {
    "videos": {"id": (int, str), "file_names": list, "height": int, "width": int},
    "annotations": {"video_id": (int, str)},
    "categories": {"id": int, "name": str},
}
"""Fields without which an entry belongs to no video; a fault in any other field fails only its own video."""


class YtvisOptions(BaseModel):
    """The options of the card, validated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    year: Literal[2019, 2021, 2022, "hq"] = 2021
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
    edition = EDITIONS[options.year]
    _check_split(request, edition)
    if request.root is None:
        training = request.split == "train"
        return _open_stand_in(request, "train" if training else "validation")
    if "validation" not in edition.splits:
        return _open_table(request, edition, request.split, lambda videos: videos)
    what = f"{request.split}, {options.subset}" if request.split == "validation" else request.split
    return _open_table(request, edition, what, lambda videos: _choose(videos, request.split, options))


def open_ovis(request: Request) -> OpenData:
    """Open the training set of OVIS, the only one with public annotations. Raises as `open_ytvis` does."""
    if request.data.options:
        raise UsageError(f"task '{request.task.name}': data.options: the ovis reader has none; remove them")
    _check_split(request, OVIS)
    if request.root is None:
        return _open_stand_in(request, "validation")  # scenes for testing: nobody trains on this split
    return _open_table(request, OVIS, request.split, lambda videos: videos)


def _open_stand_in(request: Request, split: str) -> OpenData:
    """The stand-in, which has the layout of 2021 for all editions. split: of that layout."""
    tree = ensure_layout(replace(request, split=split), "ytvis")
    place = EDITIONS[2021].find(tree.root, split)
    assert place is not None
    # A tree of the stand-in holds the videos of one split only.
    reader = YtvisReader.open(tree.root, place, None, lambda videos: videos)
    return OpenData(reader, "embedded", tree.revision, tree.root, reader.ids, tree.note, reader.categories)


def _open_table(request: Request, edition: Edition, what: str, choose: Choose) -> OpenData:
    """Open official data. choose: from all videos of the table, gives those of the split."""
    root = _find(request, edition)
    reader = YtvisReader.open(root, _place(root, edition, request), request.limit, choose, edition)
    note = f"data: {edition.name} ({what}), {counted(len(reader), 'video')} of {root}{reader.remark}"
    return OpenData(
        reader, "official", f"official-{reader.manifest.content}", root, reader.ids, note, reader.categories
    )


@dataclass(frozen=True)
class YtvisReader(SampleSequence[Video]):
    """The videos of one split.

    Attributes:
        table: the JSON file.
        frames: folder to which the names of frames in it are relative.
        videos: its entries of the videos.
        annotations: video id -> its entries of the objects, with packed masks.
        categories: id -> name.
        remark: what was left out, for the note.
    """

    root: Path
    table: Path
    frames: Path
    ids: tuple[str, ...]
    videos: tuple[dict[str, Any], ...]
    annotations: dict[Any, list[dict[str, Any]]]
    categories: dict[int, str]
    remark: str

    @classmethod
    def open(
        cls, root: Path, place: tuple[Path, Path], limit: int | None, choose: Choose, edition: Edition | None = None
    ) -> YtvisReader:
        """Parse a table and keep the first `limit` videos.

        Args:
            root: of the data.
            place: the table, and the folder of its frames.
            limit: number of videos, None for all.
            choose: from all videos of the table, gives those of the split.
            edition: whose categories official data must have.
        """
        table, frames = place
        content = read_json(table, _Packer(lambda videos: choose(videos)[:limit]))
        _check_table(content, table)
        categories = {entry["id"]: entry["name"] for entry in content["categories"]}
        if edition is not None:
            _check_edition(categories, edition, table)
        videos = tuple(choose(content["videos"])[:limit])
        if not videos:
            raise DataMissingError(f"{table}: {len(content['videos'])} videos, none of them for this split; {_REMEDY}")
        ids = _name_videos(videos, table)
        annotations, remark = _group(content, videos)
        return cls(root, table, frames, ids, videos, annotations, categories, remark)

    @cached_property
    def manifest(self) -> Manifest:
        """The table and all frames."""
        folder = self.frames.relative_to(self.root)
        names = [(folder / str(name)).as_posix() for video in self.videos for name in video["file_names"]]
        return take_manifest(self.root, names, [self.table.relative_to(self.root).as_posix()])

    def __getitem__(self, index: int) -> Video:
        """Video `index`. Raises SampleError when its entries contradict each other; no frame is read."""
        position = range(len(self))[index]
        video_id, entry = self.ids[position], self.videos[position]
        files = entry["file_names"]
        annotations = self.annotations.get(entry["id"], [])
        wrong = next((name for name in files if not _stays(name)), None)
        if wrong is not None:
            raise SampleError(video_id, f"file name {wrong!r} is not a path in {self.frames.name}; {_REMEDY}")
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
        path = self.frames / entry["file_names"][position]
        image = read_image(path, video_id, shape=shape, remedy=_REMEDY)
        labels, _ = label_map(tuple(self._object(video_id, entry, position, shape) for entry in annotations), shape)
        truth = Truth(narrowed(labels, video_id, path), tuple(entry["category_id"] for entry in annotations))
        return Sample(video_id, image, truth)

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

    def __init__(self, choose: Choose) -> None:
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
    return videos[:first] if split == "train" else choose_videos(videos[first:], options)


def choose_videos(videos: list[Item], options: YtvisOptions) -> list[Item]:
    """Those of the 300 videos of validation that the option `subset` names."""
    return videos[: _FIRST if options.subset == "first210" else None]


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


def _check_edition(categories: dict[int, str], edition: Edition, table: Path) -> None:
    """Raise UsageError when the categories are those of another edition."""
    for other in EDITIONS.values():
        if other.person != edition.person and str(categories.get(other.person)).lower() == "person":
            text = f"category {other.person} is person, as in {other.categories}"
            raise UsageError(f"{table}: {text}, but the card asks for {edition.name}; give the data of that edition")


def _check_split(request: Request, edition: Edition) -> None:
    """Raise UsageError for a split that the edition does not have, or not with public annotations."""
    if request.split not in edition.splits:
        known = " and ".join(edition.splits) + " (the last 300 videos of its training set)"
        if "validation" not in edition.splits:
            known = ", ".join(edition.splits)
        raise UsageError(f"task '{request.task.name}': {edition.name} has the splits {known}, not '{request.split}'")


def find_official(request: Request) -> Path:
    """The folder of the official files of YouTube-VIS. Raises DataMissingError."""
    return _find(request, EDITIONS[parse_options(YtvisOptions, request).year])


def _find(request: Request, edition: Edition) -> Path:
    """The first of the usual places that has the table of some split."""
    tables = dict.fromkeys(table for places in edition.splits.values() for table, _ in places)
    return find_root(
        request,
        usual_places(request),
        lambda place: any((place / table).is_file() for table in tables),
        f"{' or '.join(tables)} ({edition.name})",
        between=" and ",
    )


def _place(root: Path, edition: Edition, request: Request) -> tuple[Path, Path]:
    """The annotation file and the folder of the frames of a split. Raises DataMissingError."""
    place = edition.find(root, request.split)
    if place is None:
        table = edition.splits[request.split][0][0]
        raise DataMissingError(f"task '{request.task.name}': {root / table} is not there; {_REMEDY}")
    return place


def _stays(name: Any) -> bool:
    """Whether a file name of the table is text and does not lead out of its folder."""
    return isinstance(name, str) and "\0" not in name and not Path(name).is_absolute() and ".." not in Path(name).parts
