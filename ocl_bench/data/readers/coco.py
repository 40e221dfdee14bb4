"""COCO 2017 as people download it (Lin et al. 2014, arXiv:1405.0312), below <data root>/coco or <data root> itself.

    train2017/*.jpg, val2017/*.jpg                         or images/train2017, images/val2017
    annotations/instances_{train,val}2017.json             `annotations: instances`
    annotations/panoptic_{train,val}2017.json              `annotations: panoptic`
    annotations/panoptic_{train,val}2017/*.png
    annotations/{train,val}2017/*.png                      `annotations: stuffthings` (stuffthingmaps_trainval2017.zip),
                                                           or below stuffthingmaps/ or annotations/stuffthingmaps/

Options of a card (`data.options`):

year         2017, or 2014: val2014/COCO_val2014_*.jpg and annotations/instances_val2014.json
annotations  `instances`, `panoptic` or `stuffthings`: what is truth
crowd        label maps of `instances`: `drop` (a crowd is not an object, its pixels are background), `instance` (it is
             an object, as in SPOT) or `ignore` (its pixels are void). Detection always gets crowds, marked as such.
stuff        label maps of `panoptic`: `merged` (background, as in DIAS) or `segments` (each one is an object)
ids          text file below the root with one image name per line, with or without suffix and folders, such as
             PiCIE's curated lists; `{split}` in its name becomes the split

Polygons are filled by pycocotools, which cuts them at the image; a pixel that two objects claim is an overlap. Pixels
without a panoptic segment, and 255 in stuff-thing maps, are void. Stuff-thing maps hold id - 1 and are reduced to the
27 classes of COCO-Stuff-27. Images without annotations are also samples.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from ...core.boxes import odd_boxes
from ...core.errors import DataMissingError, SampleError
from ...core.files import find_files
from ...core.log import warn_once
from ...core.numbers import counted, finite_numbers
from ...core.types import VOID, Instance, Sample, Truth
from ..base import OpenData, Request, SampleSequence
from ..images import read_image, read_mask
from ..index import Manifest, take_manifest
from ..labels import LARGEST_LABEL, class_regions, label_map, narrowed, run_length
from ..options import check_entries, check_split, first_repeated, parse_options, read_json
from ..stand_ins.layouts import ensure_layout
from .coco_names import check_ids, choose, image_ids, sample_ids
from .places import find_root, usual_places, within

_NOT_ANNOTATED = "listed images are not annotated, first {}; correct the list"
_NO_MAP = "listed maps are missing, first {}; unpack them again"
_REMEDY = "download the file again, or list the other images in data.options.ids"
_FIELDS: dict[str, dict[str, Any]] = {
    "images": {"id": (int, str), "file_name": str, "height": int, "width": int},
    "annotations": {"image_id": (int, str)},
    "categories": {"id": int, "name": str},
}
"""Fields without which an entry belongs to no image; a fault in any other field fails only its own sample."""

_PANOPTIC_FIELDS: dict[str, dict[str, Any]] = {
    "images": _FIELDS["images"],
    "annotations": {**_FIELDS["annotations"], "file_name": str, "segments_info": list},
    "categories": {**_FIELDS["categories"], "isthing": int},
}
"""`isthing` is needed as well: without it all stuff would count as objects."""

COARSE = (
    ((71, 76),), ((77, 82),), ((51, 60),), ((61, 70),), ((83, 90),), ((43, 50),), ((25, 32),), ((15, 24),), ((9, 14),),
    ((0, 0),), ((33, 42),), ((1, 8),),
    ((101, 102),), ((100, 100), (113, 117)), ((120, 121), (152, 152), (169, 169)),
    ((97, 97), (106, 107), (109, 109), (111, 111), (122, 122), (129, 129), (132, 132), (155, 155), (160, 160),
     (164, 164)),
    ((99, 99), (131, 131), (138, 138), (142, 142)),
    ((91, 92), (103, 104), (108, 108), (130, 130), (136, 136), (140, 140), (151, 151), (166, 167)), ((170, 176),),
    ((179, 180),), ((94, 95), (127, 127), (150, 150), (157, 157), (165, 165)),
    ((110, 110), (124, 125), (135, 135), (139, 139), (143, 144), (146, 146), (148, 148), (153, 153), (158, 158)),
    ((93, 93), (96, 96), (118, 118), (123, 123), (128, 128), (133, 133), (141, 141), (162, 162), (168, 168)),
    ((105, 105), (156, 156)),
    ((126, 126), (134, 134), (149, 149), (159, 159), (161, 161), (181, 181)),
    ((98, 98), (112, 112), (137, 137), (145, 145), (163, 163)), ((119, 119), (147, 147), (154, 154), (177, 178)),
)  # fmt: skip
"""Ranges (first, last) of stuff-thing values of the 27 coarse classes of COCO-Stuff, things first (PiCIE, STEGO)."""


class CocoOptions(BaseModel):
    """The options of the card, validated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    annotations: Literal["instances", "panoptic", "stuffthings"] = "instances"
    crowd: Literal["drop", "instance", "ignore"] = "drop"
    stuff: Literal["merged", "segments"] = "merged"
    ids: str | None = None
    year: Literal[2014, 2017] = 2017

    def part(self, split: str) -> str:
        """The name that the official files give to a split."""
        return f"{split}{self.year}"

    def table(self, root: Path, split: str) -> Path:
        """The annotation file of a split below the root; it need not be there."""
        name = f"annotations/{self.annotations}_{self.part(split)}.json"
        return within(root, name, Path.is_file) or root / name


def open_coco(request: Request) -> OpenData:
    """Open one split. Raises UsageError for an option or a split, DataMissingError when data cannot be read."""
    options = parse_options(CocoOptions, request)
    split = request.split
    check_split(request, "COCO", ("train", "val"))
    if request.root is None:
        tree = ensure_layout(request, "coco")
        reader = CocoReader.open(tree.root, split, options, None)
        return OpenData(reader, "embedded", tree.revision, tree.root, reader.ids, tree.note, reader.categories)
    root = find_official(request)
    reader = CocoReader.open(root, split, options, request.limit)
    what = f"COCO {options.part(split)} ({options.annotations})"
    note = f"data: {what}, {counted(len(reader), 'image')} of {root}{reader.remark}"
    # Results that were made when such images were known by their file names must not be found again.
    revision = f"official-{reader.manifest.content}{'-by-id' if reader.image_ids else ''}"
    return OpenData(reader, "official", revision, root, reader.ids, note, reader.categories, reader.image_ids)


@dataclass(frozen=True)
class CocoReader(SampleSequence[Sample]):
    """The images of one split; annotations are kept as parsed, pixels are read by `reader[i]`.

    Attributes:
        images: entries of the JSON file; of stuff-thing maps, entries of the same form with the path of the `map`.
        ids: their sample ids.
        image_ids: sample id -> image id, where the sample ids do not say it (see `coco_names`).
        annotations: image id -> its entries in the JSON file.
        categories: id -> name.
        things: ids of the categories that are objects.
        folder: folder of the images.
        table: the annotation file; of stuff-thing maps, their folder.
        remark: what the user should know about the JSON file, '' for nothing.
    """

    root: Path
    options: CocoOptions
    images: tuple[dict[str, Any], ...]
    ids: tuple[str, ...]
    image_ids: dict[str, int | str]
    annotations: dict[int, list[dict[str, Any]]]
    categories: dict[int, str]
    things: frozenset[int]
    folder: Path
    table: Path
    remark: str

    @classmethod
    def open(cls, root: Path, split: str, options: CocoOptions, limit: int | None) -> CocoReader:
        """Parse the annotation file, or list the stuff-thing maps, and keep the first `limit` images."""
        folder = _first_folder(root, (options.part(split), f"images/{options.part(split)}"), "images")
        if options.annotations == "stuffthings":
            return _open_maps(cls, root, split, options, folder, limit)
        return cls.open_table(root, options.table(root, split), folder, split, options, limit)

    @classmethod
    def open_table(
        cls, root: Path, path: Path, folder: Path, split: str, options: CocoOptions, limit: int | None
    ) -> CocoReader:
        """Parse an annotation file, whose images lie in `folder`, and keep the first `limit` images."""
        content = read_json(path, _pack)
        check_entries(content, path, _PANOPTIC_FIELDS if options.annotations == "panoptic" else _FIELDS)
        check_ids(content, path)
        images = content["images"]
        if not images:
            raise DataMissingError(f"{path}: lists no image; download the file again")
        # Of all images, not the wanted ones: a limit or a list must not change what an image is called.
        names = sample_ids(images)
        numbers = image_ids(images, names)
        chosen = list(range(len(images)))
        if options.ids is not None:
            chosen = choose(root, options.ids, split, images, names, _NOT_ANNOTATED)
        images, names = tuple(images[k] for k in chosen[:limit]), tuple(names[k] for k in chosen[:limit])
        known, wanted = {image["id"] for image in content["images"]}, {image["id"] for image in images}
        grouped: dict[int, list[dict[str, Any]]] = {}
        strangers = 0
        for annotation in content["annotations"]:
            # Counted against all images, not the wanted ones: a limit or a list must not change the remark.
            strangers += annotation["image_id"] not in known
            if annotation["image_id"] in wanted:
                grouped.setdefault(annotation["image_id"], []).append(annotation)
        remark = f"; {strangers} annotations point to images that are not listed and are left out" if strangers else ""
        categories = {category["id"]: str(category["name"]) for category in content["categories"]}
        things = frozenset(category["id"] for category in content["categories"] if category.get("isthing", 1))
        return cls(root, options, images, names, numbers, grouped, categories, things, folder, path, remark)

    @cached_property
    def manifest(self) -> Manifest:
        """The annotation file, all images, and their maps where truth comes from maps."""
        folder = self.folder.relative_to(self.root).as_posix()
        names = [f"{folder}/{image['file_name']}" for image in self.images]
        if self.options.annotations == "stuffthings":
            return take_manifest(self.root, names, [image["map"] for image in self.images])
        table = self.table.relative_to(self.root)
        annotations = [table.as_posix()]
        if self.options.annotations == "panoptic":
            entries = (entry for entries in self.annotations.values() for entry in entries)
            annotations += [f"{table.with_suffix('').as_posix()}/{entry['file_name']}" for entry in entries]
        return take_manifest(self.root, names, annotations)

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`. Raises SampleError when a file is missing or broken or contradicts its annotation."""
        position = range(len(self))[index]
        entry, sample_id = self.images[position], self.ids[position]
        path = self.folder / _plain(entry["file_name"], sample_id)
        if self.options.annotations == "stuffthings":
            image = read_image(path, sample_id, remedy=_REMEDY)
            return Sample(sample_id, image, self._stuff_things(sample_id, entry["map"], image.shape[:2]))
        image = read_image(path, sample_id, shape=(entry["height"], entry["width"]), remedy=_REMEDY)
        annotations = self.annotations.get(entry["id"], [])
        if self.options.annotations == "panoptic":
            return Sample(sample_id, image, self._panoptic(sample_id, annotations, image.shape[:2]))
        return Sample(sample_id, image, self._instances(sample_id, annotations, image.shape[:2]))

    def _instances(self, sample_id: str, annotations: list[dict[str, Any]], shape: tuple[int, ...]) -> Truth:
        """Truth of `annotations: instances`: the objects, and their label map."""
        instances = tuple(self._instance(sample_id, entry, (shape[0], shape[1])) for entry in annotations)
        boxes = np.array([instance.box for instance in instances]).reshape(-1, 4)
        for kind, number in odd_boxes(boxes, (shape[0], shape[1])).items():
            warn_once(kind, self.root, f"sample {sample_id}: {number} {kind} (said once for {self.root})")
        labels, categories = label_map(instances, (shape[0], shape[1]), self.options.crowd)
        return Truth(narrowed(labels, sample_id, self.folder), categories, instances=instances)

    def _instance(self, sample_id: str, entry: dict[str, Any], shape: tuple[int, int]) -> Instance:
        """One annotation as an instance. Raises SampleError when a field is missing or makes no sense."""
        name = f"annotation {entry.get('id')}"
        try:
            category = entry["category_id"]
            if category not in self.categories:
                raise ValueError(f"unknown category {category!r}")
            mask = run_length(entry.get("segmentation"), shape)
            x, y, width, height = finite_numbers("bbox", entry["bbox"])
            # The area that the file states, not that of the mask: COCO's small, medium and large go by it.
            (area,) = finite_numbers("area", [entry.get("area", width * height)])
            if min(width, height) < 0:
                raise ValueError(f"bbox {entry['bbox']} and area {area:g} are not a box and its area")
        except KeyError as error:
            raise SampleError(sample_id, f"{name}: field {error} is missing; {_REMEDY}") from error
        except (ValueError, TypeError, OverflowError) as error:
            raise SampleError(sample_id, f"{name}: {error}; {_REMEDY}") from error
        return Instance(category, (x, y, x + width, y + height), mask, area, bool(entry.get("iscrowd", 0)))

    def _panoptic(self, sample_id: str, annotations: list[dict[str, Any]], shape: tuple[int, ...]) -> Truth:
        """Truth of `annotations: panoptic`: a label map of segments, labels in the order of the segment ids."""
        if len(annotations) != 1:
            raise SampleError(sample_id, f"{len(annotations)} panoptic annotations, expected 1; {_REMEDY}")
        path = self.table.with_suffix("") / _plain(annotations[0]["file_name"], sample_id)
        codes, coloured = read_mask(path, sample_id, shape=shape, remedy=_REMEDY)
        if not coloured:
            raise SampleError(sample_id, f"{path}: is not an RGB image; panoptic ids are colours")
        try:
            segments = {segment["id"]: segment["category_id"] for segment in annotations[0]["segments_info"]}
        except (KeyError, TypeError) as error:
            raise SampleError(sample_id, f"a segment without id or category_id in the JSON file; {_REMEDY}") from error
        if (twice := first_repeated(segment["id"] for segment in annotations[0]["segments_info"])) is not None:
            raise SampleError(sample_id, f"segment {twice} is listed twice in the JSON file; {_REMEDY}")
        if len(segments) > LARGEST_LABEL:
            raise SampleError(sample_id, f"{len(segments)} segments in the JSON file, at most {LARGEST_LABEL} are read")
        present = np.unique(codes)
        unknown = [int(code) for code in present if code and code not in segments]
        if unknown:
            raise SampleError(sample_id, f"{path}: segment {unknown[0]} is not in the JSON file; {_REMEDY}")
        for code in (int(code) for code in present if code):
            category = segments[code]
            if not isinstance(category, int) or category not in self.categories:
                raise SampleError(sample_id, f"segment {code}: unknown category {category!r}; {_REMEDY}")
        objects = frozenset(code for code, category in segments.items() if category in self.things)
        return panoptic_truth(codes, segments, objects, self.options.stuff)

    def _stuff_things(self, sample_id: str, path: str, shape: tuple[int, ...]) -> Truth:
        """Truth of `annotations: stuffthings`: a map of the 27 coarse classes."""
        codes, coloured = read_mask(self.root / path, sample_id, shape=shape, remedy=_REMEDY)
        if coloured:
            raise SampleError(sample_id, f"{path}: is a colour image; a stuff-thing map has one channel of ids")
        wrong = codes[(codes >= _FINE) & (codes != 255)]
        if wrong.size:
            raise SampleError(sample_id, f"{path}: value {wrong.max()}, expected 0..{_FINE - 1} or 255; {_REMEDY}")
        classes = _FINE_TO_COARSE[np.minimum(codes, _FINE)]
        return Truth(*class_regions(classes), classes=classes)


def panoptic_truth(
    codes: np.ndarray, segments: Mapping[int, int], things: Collection[int], stuff: Literal["merged", "segments"]
) -> Truth:
    """Truth of a panoptic map.

    Args:
        codes: (H, W) id of the segment of each pixel, 0 without annotation.
        segments: id -> category of each segment of the map.
        things: ids of the segments that are objects.
        stuff: what the others become, see the option `stuff`.
    """
    labels = np.full(codes.shape, VOID, dtype=np.int16)
    categories: list[int] = []
    for code in (int(code) for code in np.unique(codes) if code):
        if code in things or stuff == "segments":
            categories.append(segments[code])
            labels[codes == code] = len(categories)
        else:
            labels[codes == code] = 0
    return Truth(labels, tuple(categories))


_FINE = 182
"""Number of values of a stuff-thing map."""


def _coarse_table() -> np.ndarray:
    """(183,) int16: coarse class of each stuff-thing value, VOID at the end."""
    table = np.full(_FINE + 1, VOID, dtype=np.int16)
    for index, ranges in enumerate(COARSE):
        for first, last in ranges:
            table[first : last + 1] = index
    return table


_FINE_TO_COARSE = _coarse_table()
"""Coarse class of stuff-thing values 0..181; the last entry stands for 255, unlabelled."""


def _open_maps(
    kind: type[CocoReader], root: Path, split: str, options: CocoOptions, folder: Path, limit: int | None
) -> CocoReader:
    """The reader of the images in a folder that have a stuff-thing map."""
    part = options.part(split)
    places = (f"annotations/{part}", f"annotations/stuffthingmaps/{part}", f"stuffthingmaps/{part}")
    # `<split>2017` is the folder of the images as well, so it counts only where it holds PNG files.
    maps = _first_folder(root, (*places, part), "stuff-thing maps", "*.png")
    # Other code writes its converted maps, `_labelTrainIds`, beside the official ones.
    stems = {path.stem for path in find_files(maps, "[!.]*.png") if not path.stem.endswith("_labelTrainIds")}
    if not stems:
        raise DataMissingError(f"{maps}: no stuff-thing map in it; unpack stuffthingmaps_trainval2017.zip again")
    where, names = maps.relative_to(root).as_posix(), sorted(stems)
    images = [{"id": n, "file_name": f"{n}.jpg", "map": f"{where}/{n}.png"} for n in names]
    if options.ids:
        chosen = choose(root, options.ids, split, images, names, _NO_MAP)
        images, names = [images[position] for position in chosen], [names[position] for position in chosen]
    chosen_images, chosen_names = tuple(images[:limit]), tuple(names[:limit])
    return kind(root, options, chosen_images, chosen_names, {}, {}, {}, frozenset(), folder, maps, "")


def find_official(request: Request) -> Path:
    """The folder of the official files. Raises DataMissingError."""
    options, split = parse_options(CocoOptions, request), request.split
    # Stuff-thing maps need no JSON file, and may lie in another folder than `annotations`.
    folders = ("annotations", "stuffthingmaps", options.part(split))[: 3 if options.annotations == "stuffthings" else 1]
    return find_root(
        request,
        usual_places(request),
        lambda place: any(within(place, folder, Path.is_dir) for folder in folders),
        f"folder '{folders[0]}' (COCO {options.part(split)})",
        between=" and ",
    )


def find_table(request: Request) -> Path:
    """The folder of the official files, if that split is annotated there. Raises DataMissingError."""
    options, root = parse_options(CocoOptions, request), find_official(request)
    table = options.table(root, request.split)
    if options.annotations != "stuffthings" and not table.is_file():
        raise DataMissingError(f"{table}: there is no such file")
    return root


def _first_folder(root: Path, names: tuple[str, ...], what: str, pattern: str | None = None) -> Path:
    """The first of these folders with a file that fits the pattern. Raises DataMissingError; `what` is the content."""

    def holds(folder: Path) -> bool:
        if pattern is not None:
            return any(find_files(folder, pattern))
        return folder.is_dir() and any(one.name != folder.name for one in folder.glob("[!.]*"))

    for place in (root / name for name in names):
        if (found := within(place.parent, place.name, holds)) is not None:
            return found
    raise DataMissingError(f"{root}: no {what} in {' or '.join(names)}; see docs/data.md for the layout")


def _pack(entry: dict[str, Any]) -> dict[str, Any]:
    """An object of the JSON file with its polygons as arrays: as Python numbers those of train2017 take 2 GB more."""
    polygons = entry.get("segmentation")
    if isinstance(polygons, list):
        # Anything else than a list of numbers stays as it is: reading its sample then says what is wrong with it.
        with suppress(TypeError, OverflowError):
            entry["segmentation"] = [array("d", polygon) for polygon in polygons]
    return entry


def _plain(name: str, sample_id: str) -> str:
    """A file name of the JSON file. Raises SampleError when it leads out of its folder."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise SampleError(sample_id, f"file name '{name}' leaves its folder")
    return name
