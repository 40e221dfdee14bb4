"""ImageNet from Hugging Face: columns `image` and `label`, as Parquet files or saved by `datasets`.

Images stay encoded until they are asked for, and are decoded like torchvision's ImageFolder does: `datasets` itself
would turn images with an EXIF orientation. Parquet files are read in place, one row group at a time: `datasets` would
first copy them (150 GB) into its cache to map them into memory.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from ...core.errors import DataMissingError, SampleError, UsageError
from ...core.files import check_regular
from ...core.optional import import_optional
from ..images import IMAGE_FORMATS, check_pixels, one_line, remark_orientation, to_rgb
from .shards import Part, index_shards, list_shards

if TYPE_CHECKING:
    import datasets

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")

_PARTS = {"train": ("train",), "val": ("validation", "val", "valid")}
_COLUMNS = ("image", "label")
_REMEDY = "download the data set again"


class Rows(Protocol):
    """The rows of one split."""

    @property
    def folder(self) -> Path:
        """Folder of the data set."""
        ...

    @property
    def files(self) -> tuple[str, ...]:
        """Files that are read, relative to the folder."""
        ...

    @property
    def features(self) -> datasets.Features:
        """Types of the columns."""
        ...

    def labels(self) -> list[Any]:
        """The column `label`."""
        ...

    def encoded(self, position: int) -> tuple[str, bytes | None]:
        """The place of row `position`, for messages, and its image as stored; None when only a path is stored."""
        ...


@dataclass(frozen=True)
class SavedRows:
    """A folder that `datasets.save_to_disk` wrote, mapped into memory."""

    folder: Path
    files: tuple[str, ...]
    table: datasets.Dataset

    @property
    def features(self) -> datasets.Features:
        """Types of the columns."""
        return self.table.features

    def labels(self) -> list[Any]:
        """The column `label`."""
        return self.table.select_columns("label").with_format("arrow")[:]["label"].to_pylist()

    def encoded(self, position: int) -> tuple[str, bytes | None]:
        """Place and stored image of row `position`."""
        return f"{self.folder}, row {position}", self.table[position]["image"]["bytes"]


@dataclass(frozen=True)
class ParquetRows:
    """Rows of Parquet files, one file after the other.

    groups: number of the file and of the row group in it, for each of the G groups of all files. first: (G + 1,) number
    of the first row of each group, then the number of all rows. images: columns that hold images. _held: the group that
    was read last; neighbouring rows are usually asked for one after the other, and reading a group takes long.
    """

    folder: Path
    files: tuple[str, ...]
    features: datasets.Features
    groups: tuple[tuple[int, int], ...]
    first: np.ndarray
    images: tuple[str, ...] = ("image",)
    _held: dict[int, Any] = field(default_factory=dict, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        """What pickle sends to another process: all but the group, which may take 100 MB."""
        return {**self.__dict__, "_held": {}}

    def labels(self) -> list[Any]:
        """The column `label`."""
        import pyarrow.parquet

        columns = (pyarrow.parquet.read_table(self.folder / name, columns=["label"]) for name in self.files)
        return [value for column in columns for value in column["label"].to_pylist()]

    def encoded(self, position: int) -> tuple[str, bytes | None]:
        """Place and stored image of row `position`."""
        where, cells = self.cells(position)
        return where, cells["image"]["bytes"]

    def names(self, column: str) -> list[str | None]:
        """The file name of each image of a column, as far as it is stored."""
        import pyarrow.parquet

        names: list[str | None] = []
        for name in self.files:
            with pyarrow.parquet.ParquetFile(self.folder / name) as file:
                cells = file.read(columns=[f"{column}.path"])[column].to_pylist()
            names += [(cell or {}).get("path") for cell in cells]
        return names

    def cells(self, position: int) -> tuple[str, dict[str, dict[str, Any]]]:
        """The place of row `position`, and of each column of images the stored `bytes` and `path`."""
        import pyarrow.parquet

        group = int(np.searchsorted(self.first, position, side="right")) - 1
        number, part = self.groups[group]
        path = self.folder / self.files[number]
        table = self._held.get(group)
        if table is None:
            with pyarrow.parquet.ParquetFile(path) as file:
                table = file.read_row_group(part, columns=list(self.images))
            self._held.clear()
            self._held[group] = table
        row = position - int(self.first[group])
        return f"{path}, row {row} of group {part}", {name: table[name][row].as_py() for name in self.images}


@dataclass(frozen=True)
class ShardRows:
    """Rows of WebDataset shards with the parts jpg and cls, as `timm/imagenet-1k-wds` has them."""

    folder: Path
    files: tuple[str, ...]
    samples: tuple[dict[str, Part], ...]

    @classmethod
    def open(cls, folder: Path, shards: list[Path]) -> ShardRows:
        """List the samples. Raises UsageError when one lacks a part."""
        found = index_shards(shards)
        for key, parts in found.items():
            if lacking := [name for name in ("jpg", "cls") if name not in parts]:
                shard = next(iter(parts.values())).shard
                raise UsageError(f"{shard}: sample '{key}' has no part {lacking[0]}; {_REMEDY}")
        return cls(folder, tuple(shard.name for shard in shards), tuple(found.values()))

    @property
    def features(self) -> Any:
        """No column has named classes."""
        return {"image": None, "label": None}

    def labels(self) -> list[Any]:
        """The class of each sample: the number in its part cls."""
        return [int(parts["cls"].read(str(k))) for k, parts in enumerate(self.samples)]

    def encoded(self, position: int) -> tuple[str, bytes | None]:
        """Place and stored image of row `position`."""
        part = self.samples[position]["jpg"]
        return f"{part.shard}, byte {part.offset}", part.read(str(position))


def find_rows(folder: Path, split: str) -> Rows | None:
    """The rows of a split in a folder; None when the folder has no such files. Raises UsageError for broken files."""
    for part in _PARTS[split]:
        if (folder / part / "state.json").is_file():
            return _guarded(folder / part, _open_saved, folder, part)
        names = tuple(sorted(f"data/{path.name}" for path in (folder / "data").glob(f"{part}-*.parquet")))
        if names:
            return _guarded(folder / "data", _open_parquet, folder, names)
        if shards := list_shards(folder, rf"imagenet1k-{part}-([0-9]+)\.tar"):
            return ShardRows.open(folder, shards)
    return None


def read_labels(rows: Rows) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class index of each row, (N,) int32, and the names of the classes.

    Raises:
        UsageError: a label is missing or below 0 (the test split has -1), or has no name.
        DataMissingError: there is no row.
    """
    names = getattr(rows.features["label"], "names", None)
    values = _guarded(rows.folder, rows.labels)
    wrong = next((k for k, value in enumerate(values) if type(value) is not int or value < 0), None)
    if wrong is not None:
        raise UsageError(
            f"{rows.folder}: row {wrong} has the label {values[wrong]!r}, not a class; choose a labelled split"
        )
    if not values:
        raise DataMissingError(f"{rows.folder}: {rows.files[0]} has no row; {_REMEDY}")
    if names is None:
        names = [str(k) for k in range(max(values) + 1)]
    if max(values) >= len(names):
        raise UsageError(f"{rows.folder}: label {max(values)}, but only {len(names)} classes have names; {_REMEDY}")
    return np.array(values, dtype=np.int32), tuple(names)


def read_pixels(rows: Rows, position: int, sample_id: str) -> np.ndarray:
    """Image `position` as (H, W, 3) uint8 RGB. Raises SampleError when it is not there or cannot be decoded."""
    # Arrow and Pillow's decoders raise errors of many kinds; all mean that this row is damaged.
    try:
        where, content = rows.encoded(position)
    except Exception as error:
        text = f"row {position} cannot be read ({one_line(error)})"
        raise SampleError(sample_id, f"{rows.folder}: {text}; {_REMEDY}") from error
    if content is None:
        raise SampleError(sample_id, f"{where}: holds a path instead of an image; save the data set with its images")
    try:
        with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as picture:
            check_pixels(picture)
            pixels = to_rgb(picture)
            remark_orientation(picture, rows.folder / "data" / sample_id)
            return pixels
    except Exception as error:
        reason = one_line(error)
        if isinstance(error, UnidentifiedImageError):
            reason = f"not a {' or '.join(IMAGE_FORMATS)} image"
        raise SampleError(sample_id, f"{where}: image cannot be decoded ({reason}); {_REMEDY}") from error


def _open_saved(folder: Path, part: str) -> SavedRows:
    """The rows that `save_to_disk` wrote to folder/part."""
    datasets = import_optional("datasets", "hub", f"{folder / part}: reading it")
    for path in (folder / part).iterdir():
        check_regular(path)
    table = datasets.load_from_disk(str(folder / part), keep_in_memory=False)
    _check_columns(table.features, folder / part)
    names = tuple(sorted(f"{part}/{path.name}" for path in (folder / part).iterdir() if path.is_file()))
    # Without decoding: `datasets` would turn images with an EXIF orientation.
    return SavedRows(folder, names, table.cast_column("image", datasets.Image(decode=False)))


def _open_parquet(
    folder: Path, names: Sequence[str], images: tuple[str, ...] = ("image",), needed: tuple[str, ...] = _COLUMNS
) -> ParquetRows:
    """The rows of these files; only their footers are read. needed: columns without which they are refused."""
    import pyarrow.parquet

    datasets = import_optional("datasets", "hub", f"{folder}: reading its Parquet files")
    groups, counts = [], []
    for number, name in enumerate(names):
        check_regular(folder / name)
        with pyarrow.parquet.ParquetFile(folder / name) as file:
            features = datasets.Features.from_arrow_schema(file.schema_arrow)
            _check_columns(features, folder / name, needed)
            for part in range(file.metadata.num_row_groups):
                groups.append((number, part))
                counts.append(file.metadata.row_group(part).num_rows)
    first = np.concatenate([[0], np.cumsum(counts)])
    return ParquetRows(folder, tuple(names), features, tuple(groups), first, images)


def open_images(folder: Path, names: Sequence[str], images: tuple[str, ...]) -> ParquetRows:
    """The rows of Parquet files with these columns of images. Raises UsageError for broken files or without them."""
    return _guarded(folder, _open_parquet, folder, names, images, images)


def _check_columns(features: Any, path: Path, needed: tuple[str, ...] = _COLUMNS) -> None:
    """Raise UsageError unless there are these columns."""
    missing = [name for name in needed if name not in features]
    if missing:
        names, wanted = ", ".join(features), " and ".join(needed)
        raise UsageError(f"{path}: no column '{missing[0]}' (there are {names}); rename the columns to {wanted}")


def _guarded(
    where: Path, function: Callable[Arguments, Value], *arguments: Arguments.args, **named: Arguments.kwargs
) -> Value:
    """Call a function; errors of Arrow and of the disk become a UsageError of one line that names `where`."""
    try:
        return function(*arguments, **named)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{where}: cannot be read ({one_line(error)}); {_REMEDY}") from error
