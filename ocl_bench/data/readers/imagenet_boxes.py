"""Boxes of ImageNet images: the CLS-LOC files of ILSVRC, and tables that an extractor of boxes wrote.

A table is JSONL (an object per line) or Parquet with the columns

image_id       `<split>/<wnid>/<name>` or `<wnid>/<name>` without suffix, the name alone, or the id of a sample
width, height  of the stored image in pixels
boxes          [[x1, y1, x2, y2], ...] in pixels of the stored image
score, source  optional, not used
label          optional: wnid of all boxes of the image, or one per box; without it, a box is of the image's own class
"""

from __future__ import annotations

import io
import math
import os
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from xml.etree import ElementTree

import numpy as np

from ...core.boxes import FIRST_PIXEL, odd_boxes
from ...core.errors import DataMissingError, SampleError, UsageError
from ...core.files import check_regular, file_sha256, find_file, parse_json, read_bytes, read_text
from ...core.numbers import finite_numbers
from ...core.types import Instance

OTHER_CLASS = -1
"""Category of a box whose wnid is not a class of this data, as in subsets. No card grants such boxes to a model."""

_SPLITS = ("train", "val")
_REQUIRED = ("image_id", "width", "height", "boxes")
_COLUMNS = (*_REQUIRED, "score", "label", "source")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_WNID = re.compile(r"n\d{8}")
_FARTHEST = 2.0**31
"""Largest coordinate of a box, in pixels."""
_XML_REMEDY = "unpack the archive of boxes again"


class BoxSource(Protocol):
    """Gives the boxes of an image."""

    def read(self, position: int, sample_id: str, own: int, shape: tuple[int, int]) -> tuple[Instance, ...]:
        """The boxes of image `position`, which has the class index `own` and the size `shape` (H, W).

        Raises SampleError when the boxes are broken, or belong to an image of another size.
        """
        ...


@dataclass(frozen=True)
class XmlBoxes:
    """Boxes of CLS-LOC files below `folder`, <wnid>/<name>.xml or <name>.xml. classes: wnid -> class index."""

    folder: Path
    classes: Mapping[str, int]

    def read(self, position: int, sample_id: str, own: int, shape: tuple[int, int]) -> tuple[Instance, ...]:
        """The boxes of one image; none when it has no file, like 57 % of the training images."""
        path = self.path(sample_id)
        return () if path is None else read_xml(path, sample_id, own, shape, self.classes)

    def path(self, sample_id: str) -> Path | None:
        """The file of an image; None when it has none."""
        name = f"{Path(sample_id).name}.xml"
        folders = Path(sample_id).parents  # of an image below its class folder too: class/part, class, .
        tried = (self.folder / folder / name for folder in folders)
        return next((found for path in tried if (found := find_file(path))), None)

    def names(self) -> list[str]:
        """Names of all files relative to `folder`, sorted."""
        with os.scandir(self.folder) as entries:
            top = [(entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith(".")]
        names = [name for name, is_folder in top if not is_folder]
        names += [f"{name}/{inner}" for name, is_folder in top if is_folder for inner in os.listdir(self.folder / name)]
        return sorted(name for name in names if name.lower().endswith(".xml"))


@dataclass(frozen=True)
class TableBoxes:
    """The boxes of a table, ordered by image.

    Attributes:
        path: file of the table.
        starts: (N + 1,) number of the first box of each image, then the number of all boxes.
        boxes: (M, 4) float64 xyxy in pixels, clipped at the image.
        categories: (M,) int16 class index of each box.
        sizes: (N, 2) int32 height and width of each image, 0 for images without a row.
        unknown: number of rows of images that neither split has.
        odd: number of odd boxes by kind, see `core.boxes`.
        digest: hash of the file.
    """

    path: Path
    starts: np.ndarray
    boxes: np.ndarray
    categories: np.ndarray
    sizes: np.ndarray
    unknown: int
    odd: Mapping[str, int]
    digest: str

    def read(self, position: int, sample_id: str, own: int, shape: tuple[int, int]) -> tuple[Instance, ...]:
        """The boxes of one image. Raises SampleError when the table states another size of the image."""
        first, last = self.starts[position : position + 2]
        height, width = self.sizes[position].tolist()
        # Another size means other pixels: the boxes were extracted from resized or turned copies.
        if height and (height, width) != shape:
            sizes = f"{width}x{height}, the stored image {shape[1]}x{shape[0]}"
            raise SampleError(
                sample_id, f"{self.path}: boxes of an image of {sizes}; extract the boxes from these files"
            )
        boxes = map(tuple, self.boxes[first:last].tolist())
        return _instances(zip(self.categories[first:last].tolist(), boxes, strict=True))


def read_xml(
    path: Path, sample_id: str, own: int, shape: tuple[int, int], classes: Mapping[str, int]
) -> tuple[Instance, ...]:
    """The boxes of a CLS-LOC file, read like TensorFlow's process_bounding_boxes.py does.

    The file states the size of the picture that annotators saw, which may differ from that of the stored image: boxes
    are scaled. Swapped corners are put in order, boxes are clipped at the image, and left out where nothing remains. A
    name that is not a wnid (some dogs have a word) means the image's own class. The `filename` in the file, which may
    be `%s`, is not used.

    Args:
        path: the XML file.
        sample_id: for messages.
        own: class index of the image.
        shape: (H, W) of the stored image; boxes are returned in its pixels.
        classes: wnid -> class index.

    Raises:
        SampleError: the file is broken.
    """
    try:
        root = ElementTree.fromstring(read_bytes(path))
        size = [float(root.findtext(f"size/{side}") or "nan") for side in ("width", "height")]
        rows = [
            (
                (entry.findtext("name") or "").strip(),
                [float(entry.findtext(f"bndbox/{corner}") or "nan") for corner in _CORNERS],
            )
            for entry in root.findall("object")
        ]
    except (OSError, ElementTree.ParseError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SampleError(sample_id, f"{path}: boxes cannot be read ({reason}); {_XML_REMEDY}") from error
    if rows and not all(math.isfinite(side) and side > 0 for side in size):
        raise SampleError(sample_id, f"{path}: size/width or size/height is not a number above 0; {_XML_REMEDY}")
    boxes = []
    for number, (name, corners) in enumerate(rows, start=1):
        if not all(abs(corner) <= _FARTHEST for corner in corners):  # also false for NaN
            raise SampleError(sample_id, f"{path}: object {number}: bndbox lacks a number; {_XML_REMEDY}")
        box = fit_box(corners, (shape[1] / size[0], shape[0] / size[1]), shape)
        boxes.append((_category(name, own, classes), box))
    return _instances(boxes)


def fit_box(
    corners: Sequence[float], scale: tuple[float, float], shape: tuple[int, int]
) -> tuple[float, float, float, float] | None:
    """A box x1, y1, x2, y2 scaled by (x, y), with its corners in order, clipped at an image (H, W); None when empty."""
    x = sorted(min(max(value * scale[0], 0.0), float(shape[1])) for value in corners[0::2])
    y = sorted(min(max(value * scale[1], 0.0), float(shape[0])) for value in corners[1::2])
    return (x[0], y[0], x[1], y[1]) if x[0] < x[1] and y[0] < y[1] else None


def open_table(
    path: Path, split: str, ids: Sequence[str], labels: np.ndarray, classes: Mapping[str, int]
) -> TableBoxes:
    """Read a table of boxes. Boxes are clipped at the image, and left out where nothing remains.

    Args:
        path: JSONL or Parquet file, see the text at the top.
        split: split of the images; image ids of the table may begin with its name.
        ids: sample ids of the N images.
        labels: (N,) class index of each image.
        classes: wnid -> class index.

    Raises:
        DataMissingError: the table cannot be read.
        UsageError: it has other columns, impossible values, two rows for an image, or no box in this split.
    """
    places = {sample_id: position for position, sample_id in enumerate(ids)}
    names = {sample_id.rpartition("/")[2]: position for sample_id, position in places.items()}
    counts, sizes = np.zeros(len(ids), dtype=np.int64), np.zeros((len(ids), 2), dtype=np.int32)
    boxes, categories, owners = array("d"), array("h"), array("q")
    odd, written = Counter[str](), 0
    unknown, first, others = 0, "", tuple(f"{name}/" for name in _SPLITS if name != split)
    for where, row in _rows(path):
        name, size, corners, words = _checked(row, where)
        # `<split>/<wnid>/<name>`, then `<wnid>/<name>`, then the name alone: but never a name with another class.
        position = places.get(name, places.get(name.removeprefix(f"{split}/")))
        if position is None and "/" not in name.removeprefix(f"{split}/"):
            position = names.get(name.removeprefix(f"{split}/"))
        if position is None:
            # One table may hold both splits: rows of the other split are not counted as unknown.
            unknown, first = unknown + (not name.startswith(others)), first or name
            continue
        if sizes[position].any():
            raise UsageError(f"{where}: a second row for image '{name}'; write one row with all its boxes")
        sizes[position] = size
        odd.update(odd_boxes(np.array(corners).reshape(-1, 4), size))
        written += len(corners)
        for box, word in zip(corners, words, strict=True):
            fitted = fit_box(box, (1.0, 1.0), size)
            if fitted is not None:
                counts[position] += 1
                boxes.extend(fitted)
                owners.append(position)
                categories.append(_category(word or "", int(labels[position]), classes))
    if not sizes.any():
        example = f"{split}/{ids[0].removeprefix(f'{split}/')}"
        rows = f"first row: '{first}'" if first else "it is empty"
        raise UsageError(f"{path}: no row is of an image of {split} ({rows}); write image_id as in '{example}'")
    if odd[FIRST_PIXEL] == written > 0:
        raise UsageError(f"{path}: all {written} boxes lie within the first pixel of their image; write pixels")
    if not owners:
        raise UsageError(f"{path}: its rows have no box inside of the images of {split}; extract the boxes again")
    # Stable: the boxes of an image stay in the order of its row.
    order = np.argsort(np.array(owners, dtype=np.int64), kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)])
    content = np.array(boxes, dtype=np.float64).reshape(-1, 4)[order]
    return TableBoxes(
        path, starts, content, np.array(categories, dtype=np.int16)[order], sizes, unknown, odd, _digest_file(path)
    )


def _category(name: str, own: int, classes: Mapping[str, int]) -> int:
    """Class index of a box with this name, which may be a wnid, a word or empty."""
    if name in classes:
        return classes[name]
    return OTHER_CLASS if _WNID.fullmatch(name) else own


def _instances(boxes: Any) -> tuple[Instance, ...]:
    """Instances without masks from pairs of category and box; a box that is None is left out."""
    return tuple(
        Instance(category, box, None, (box[2] - box[0]) * (box[3] - box[1]))
        for category, box in boxes
        if box is not None
    )


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a table, each with its place for messages."""
    try:
        check_regular(path)
        if path.suffix.lower() == ".parquet":
            yield from _parquet_rows(path)
        else:
            # Not splitlines(), which also splits at characters that may stand in a text of JSON.
            for number, line in enumerate(io.StringIO(read_text(path)), start=1):
                if line.strip():
                    yield f"{path}, line {number}", parse_json(line)
    except OSError as error:
        text = f"{path}: boxes cannot be read ({error.strerror or error})"
        raise DataMissingError(f"{text}; correct data.options.boxes_file or --boxes") from error
    # Errors of JSON and of Arrow are ValueErrors, and so are those of text that is not UTF-8.
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path}: is neither JSONL nor a .parquet file ({reason}); see docs/data.md") from error


def _parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow.parquet

    number = 0
    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield f"{path}, row {number}", row


def _checked(row: Any, where: str) -> tuple[str, tuple[int, int], list[list[float]], list[Any]]:
    """The image_id of a row, (height, width), boxes, and a label or None per box. Raises UsageError naming `where`."""
    if not isinstance(row, dict) or not set(_REQUIRED) <= set(row) <= set(_COLUMNS):
        content = ", ".join(map(str, row)) if isinstance(row, dict) else type(row).__name__
        raise UsageError(
            f"{where}: has {content or 'nothing'}; expected {', '.join(_REQUIRED)} and perhaps score, label, source"
        )
    name, boxes, words = row["image_id"], row["boxes"], row.get("label")
    size = row["height"], row["width"]
    if not isinstance(name, str) or not all(type(side) is int and 0 < side < 2**31 for side in size):
        raise UsageError(f"{where}: image_id must be text, width and height whole numbers of pixels above 0")
    try:
        corners = [finite_numbers("a box", box) for box in boxes or ()]
    except (TypeError, ValueError) as error:
        text = f"boxes must be a list of [x1, y1, x2, y2], four numbers in pixels ({error})"
        raise UsageError(f"{where}: {text}") from error
    # No image is that wide.
    if not all(len(box) == 4 and all(abs(value) <= _FARTHEST for value in box) for box in corners):
        raise UsageError(f"{where}: boxes must be a list of [x1, y1, x2, y2], four numbers in pixels")
    if not isinstance(words, list):
        words = [words] * len(corners)
    if len(words) != len(corners) or not all(word is None or isinstance(word, str) for word in words):
        raise UsageError(f"{where}: label must be a wnid, or a list of one wnid per box")
    return name, size, corners, words


def _digest_file(path: Path) -> str:
    return file_sha256(path)[:8]
