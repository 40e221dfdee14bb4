"""ImageNet-1k (ILSVRC 2012, Russakovsky et al. 2015, arXiv:1409.0575), below <data root>/imagenet or the root itself.

    train/<wnid>/*.JPEG, val/<wnid>/*.JPEG                  ImageFolder, also of subsets (ImageNet-100, Imagenette), and
                                                            with folders below those of the classes
    val/images/*.JPEG, val/val_annotations.txt              Tiny ImageNet, as it unpacks
    val/*.JPEG                                              flat, as the archive unpacks, with one of the tables
        ILSVRC2012_devkit_t12/data/{meta.mat,ILSVRC2012_validation_ground_truth.txt}
        LOC_val_solution.csv
    ILSVRC/Data/CLS-LOC/{train,val}, LOC_val_solution.csv   Kaggle
    data/{train,validation}-*.parquet                       Hugging Face imagenet-1k, columns image and label
    imagenet1k-{train,validation}-0000.tar                  WebDataset shards of timm/imagenet-1k-wds, parts jpg and cls
    {train,validation}/state.json                           the same, saved by `datasets.save_to_disk`; both forms may
                                                            say val or valid for validation
    Annotations/CLS-LOC/{train,val}                         boxes, for `boxes: labelled` only; train/<wnid>/<name>.xml,
                                                            val/<name>.xml; Kaggle: ILSVRC/Annotations/CLS-LOC; or bbox/
    labels.txt                                              classes, read only if there is no train folder

Options of a card (`data.options`):

boxes       `labelled`: boxes are read for each image; a card may grant those of the image's own class to a model
boxes_file  JSONL or Parquet table instead of the XML files, see `ocl_bench/data/readers/imagenet_boxes.py`; relative to
            the working folder or the data; `{split}` in its name becomes the split

Splits: train, val. The index of a class is the rank of its wnid among the sorted folders of train, for both splits; a
class of val that train lacks is refused, a class without images is counted in the note. `labels.txt` has a line
`wnid` or `wnid,name` per class. Hidden files and folders are left out. Images are JPEG, PNG, WebP, BMP or TIFF whatever
their suffix, in any colour mode, and read as stored (no EXIF rotation), as torchvision does. Sample ids are
`<wnid>/<name>`, or `train/000123` if there are no names. A limit takes images spread evenly: the first ones would be of
one class.

Opening lists all names but asks only 1000 files for their size: on a network drive, asking all 1.28 million takes
minutes. The revision depends on all names and classes, on these sizes, and on the XML files of these images. It may
stay the same when another file changes: `--verify` reads them all, and `--force` evaluates again. There is no Arrow
index, because the ids are the file names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from ...core.errors import DataMissingError, UsageError
from ...core.files import read_bytes
from ...core.numbers import counted
from ...core.types import Instance, Sample, Truth
from ..base import OpenData, Request, SampleSequence, subset
from ..images import read_image
from ..index import Manifest, check_utf8, take_manifest
from ..options import check_split, parse_options
from ..stand_ins.layouts import ensure_layout
from . import imagenet_hub as hub
from .imagenet_boxes import BoxSource, TableBoxes, XmlBoxes, open_table
from .imagenet_files import Listing, Place, find_place, list_split, look_around

_REMEDY = "copy the file again"
_CHECKED_FILES = 1000
"""Number of files, spread evenly, whose sizes tell whether images were encoded or resized anew."""


class ImageNetOptions(BaseModel):
    """The options of the card, validated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    boxes: Literal["labelled"] | None = None
    boxes_file: str | None = None


def open_imagenet(request: Request) -> OpenData:
    """Open one split.

    Raises:
        UsageError: an option or the split is unknown, or the splits have different classes.
        DataMissingError: the split, a table of its classes or the boxes are not there.
    """
    options = parse_options(ImageNetOptions, request)
    split, name = request.split, request.task.name
    check_split(request, "ImageNet", ("train", "val"))
    if options.boxes_file is not None and options.boxes is None:
        raise UsageError(f"task '{name}': data.options.boxes_file needs `boxes: labelled`; this card grants no boxes")
    if request.root is None:
        tree = ensure_layout(request, "imagenet")
        opened = _open_folders(Place(tree.root, tree.root), request, options)
        revision = tree.revision + opened.boxes_revision
        note = f"{tree.note}{opened.remark}"
        return OpenData(
            opened.reader, "embedded", revision, tree.root, opened.reader.ids, note, dict(enumerate(opened.classes))
        )
    place, rows = _find(request)
    opened = _open_folders(place, request, options) if rows is None else _open_rows(rows, place, split, options)
    reader, count = opened.reader, len(opened.reader)
    what = f"ImageNet {split}, {counted(count, 'image')} of {len(opened.classes)} classes"
    note = f"data: {what} of {place.images}{opened.remark}"
    revision = f"official-{opened.content}{opened.boxes_revision}{_box_content(reader)}"
    categories = dict(enumerate(opened.classes))
    data = OpenData(reader, "official", revision, place.images, reader.ids, note, categories)
    if request.limit is None or request.limit >= count:
        return data
    return subset(data, [position * count // request.limit for position in range(request.limit)])


@dataclass(frozen=True)
class ImageNetReader(SampleSequence):
    """Image files of one split.

    Attributes:
        folder: folder of the split.
        labels: (N,) class index of each image.
        suffixes: suffix of each file.
        flat: whether the files lie in the folder itself, not in folders of their classes.
        boxes: gives the boxes of an image; None when the card asks for none.
    """

    folder: Path
    ids: tuple[str, ...]
    labels: np.ndarray
    suffixes: Sequence[str]
    flat: bool
    boxes: BoxSource | None = None

    @cached_property
    def manifest(self) -> Manifest:
        """All images and XML files, for `--verify` only: asking a million files takes minutes on a network drive."""
        files = [self.path(position).relative_to(self.folder).as_posix() for position in range(len(self))]
        if isinstance(self.boxes, XmlBoxes):
            files += [str(self.boxes.folder / name) for name in self.boxes.names()]
        return take_manifest(self.folder, files)

    def path(self, position: int) -> Path:
        """The file of image `position`."""
        name = self.ids[position].rpartition("/")[2] if self.flat else self.ids[position]
        return self.folder / f"{name}{self.suffixes[position]}"

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`. Raises SampleError when its image cannot be decoded or its boxes make no sense."""
        position = range(len(self))[index]
        image = read_image(self.path(position), self.ids[position], remedy=_REMEDY)
        return _sample(self, position, image)


@dataclass(frozen=True)
class HubReader(SampleSequence):
    """Rows of Hugging Face columns. labels: (N,) class index of each row."""

    rows: hub.Rows
    ids: tuple[str, ...]
    labels: np.ndarray
    boxes: BoxSource | None = None

    @cached_property
    def manifest(self) -> Manifest:
        """The files of the rows."""
        return take_manifest(self.rows.folder, self.rows.files)

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`. Raises SampleError when its image cannot be decoded or its boxes make no sense."""
        position = range(len(self))[index]
        return _sample(self, position, hub.read_pixels(self.rows, position, self.ids[position]))


@dataclass(frozen=True)
class _Opened:
    """An opened split. content: hash of the images. boxes_revision: what the boxes add to the revision, or ''."""

    reader: ImageNetReader | HubReader
    classes: tuple[str, ...]
    content: str
    boxes_revision: str
    remark: str


def _sample(reader: ImageNetReader | HubReader, position: int, image: np.ndarray) -> Sample:
    """An image with its class, its boxes, and a label map that is all background."""
    own, sample_id = int(reader.labels[position]), reader.ids[position]
    height, width = image.shape[:2]
    instances: tuple[Instance, ...] = ()
    if reader.boxes is not None:
        instances = reader.boxes.read(position, sample_id, own, (height, width))
    return Sample(sample_id, image, Truth(np.zeros((height, width), np.int16), instances=instances, label=own))


def _find(request: Request) -> tuple[Place, hub.Rows | None]:
    """The place of the split, and its rows when it is in Hugging Face columns. Raises DataMissingError."""
    assert request.root is not None
    candidates = tuple(dict.fromkeys((request.root / (request.data.folder or "imagenet"), request.root)))
    for candidate in candidates:
        rows = hub.find_rows(candidate, request.split)
        if rows is not None:
            return Place(candidate.resolve(), candidate.resolve()), rows
        place = find_place(candidate, request.split)
        if place is not None:
            return place, None
    raise DataMissingError(
        f"task '{request.task.name}': no folder '{request.split}' of ImageNet and no Parquet files of it; looked in "
        f"{' and '.join(map(str, candidates))}; get it: {request.data.get}"
    )


def _open_folders(place: Place, request: Request, options: ImageNetOptions) -> _Opened:
    """A split of image files."""
    split = request.split
    listing = list_split(place, split, anew=request.verify)
    numbers = {wnid: index for index, wnid in enumerate(listing.classes)}
    reader = ImageNetReader(listing.folder, listing.ids, listing.labels, listing.suffixes, listing.flat)
    boxes, revision, remark = _open_boxes(place, split, options, reader, numbers)
    reader = replace(reader, boxes=boxes)
    return _Opened(reader, listing.classes, _content(reader, listing), revision, listing.remark + remark)


def _open_rows(rows: hub.Rows, place: Place, split: str, options: ImageNetOptions) -> _Opened:
    """A split in Hugging Face columns. Raises UsageError when the train split beside it has other classes."""
    labels, classes = hub.read_labels(rows)
    absent = np.setdiff1d(np.arange(len(classes)), labels)
    remark = f"; {len(absent)} of {len(classes)} classes have no image in {split}" if len(absent) else ""
    # A labelled train split next to val must have the same classes, because nearest neighbours are searched in it.
    if split == "val" and (train := hub.find_rows(rows.folder, "train")) is not None:
        known, names = hub.read_labels(train)
        if names != classes:
            raise UsageError(
                f"{place.images}: the splits train and validation name different classes; take one version"
            )
        lacking = np.setdiff1d(labels, known)
        if len(lacking):
            what = f"class '{classes[lacking[0]]}' of validation has no image in train"
            raise UsageError(f"{place.images}: {what} ({len(lacking)} such classes); take both splits of one version")
    ids = tuple(f"{split}/{position:06d}" for position in range(len(labels)))
    reader = HubReader(rows, ids, labels)
    boxes, revision, more = _open_boxes(place, split, options, reader, {name: k for k, name in enumerate(classes)})
    return _Opened(replace(reader, boxes=boxes), classes, _row_content(reader, classes), revision, remark + more)


def _open_boxes(
    place: Place, split: str, options: ImageNetOptions, reader: ImageNetReader | HubReader, numbers: dict[str, int]
) -> tuple[BoxSource | None, str, str]:
    """The boxes that the options ask for, what they add to the revision, and a remark for the user."""
    if options.boxes is None:
        return None, "", ""
    if options.boxes_file is not None:
        path = Path(options.boxes_file.replace("{split}", split)).expanduser()
        path = path if path.exists() else place.images / path
        table: TableBoxes = open_table(path, split, reader.ids, reader.labels, numbers)
        remark = f"; boxes of {path.name} for {np.count_nonzero(np.diff(table.starts))} images"
        remark += f", {table.unknown} of its rows are of other images" if table.unknown else ""
        remark += "".join(f", {count} {kind}" for kind, count in table.odd.items())
        return table, f"-boxes-{table.digest}", remark
    if isinstance(reader, HubReader):
        raise UsageError(f"{place.images}: Hugging Face columns hold no boxes; give data.options.boxes_file or --boxes")
    tried = [
        folder / name / split
        for folder in look_around(place)
        for name in ("Annotations/CLS-LOC", "Annotations", "bbox")
    ]
    box_folder = next((folder for folder in tried if folder.is_dir()), None)
    if box_folder is None:
        raise DataMissingError(
            f"{tried[0]}: no such folder of boxes; unpack ILSVRC2012_bbox_{split}, or give --boxes FILE"
        )
    boxes = XmlBoxes(box_folder, numbers)
    names = boxes.names()
    check_utf8(names)
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
    return boxes, f"-boxes-{digest}", f"; {len(names)} box files of {box_folder}"


def _content(reader: ImageNetReader, listing: Listing) -> str:
    """Eight hexadecimal digits of all names and of the sizes of some files; a file that is not there counts as -1."""
    digest = _label_digest(reader, listing.classes)
    check_utf8(reader.ids)
    for sample_id, suffix in zip(reader.ids, listing.suffixes, strict=True):
        digest.update(f"{sample_id}{suffix}\n".encode())
    for position in _some(len(reader)):
        path = reader.path(position)
        digest.update(f"{path.stat().st_size if path.is_file() else -1}\n".encode())
    return digest.hexdigest()[:8]


def _row_content(reader: HubReader, classes: Sequence[str]) -> str:
    """Eight hexadecimal digits of the names and sizes of the files and of all labels."""
    digest = _label_digest(reader, classes)
    digest.update(reader.manifest.content.encode())
    return digest.hexdigest()[:8]


def _label_digest(reader: ImageNetReader | HubReader, classes: Sequence[str]) -> Any:
    """A SHA-256 of the names of the classes and of the class of each image."""
    check_utf8(classes)
    digest = hashlib.sha256("\n".join([*classes, ""]).encode())
    digest.update(reader.labels.astype("<i4").tobytes())
    return digest


def _box_content(reader: ImageNetReader | HubReader) -> str:
    """A hyphen and eight hexadecimal digits of the XML files of some images; '' without XML files.

    Not used for stand-ins: their revision determines the content of all their files.
    """
    if not isinstance(reader.boxes, XmlBoxes):
        return ""
    digest = hashlib.sha256()
    for position in _some(len(reader)):
        path = reader.boxes.path(reader.ids[position])
        try:
            digest.update(b"\0" if path is None else read_bytes(path))
        except OSError:  # its sample fails later, with a message
            digest.update(b"\1")
    return f"-{digest.hexdigest()[:8]}"


def _some(count: int) -> Iterator[int]:
    """At most `_CHECKED_FILES` positions below `count`, spread evenly."""
    checked = min(_CHECKED_FILES, count)
    return (k * count // checked for k in range(checked))
