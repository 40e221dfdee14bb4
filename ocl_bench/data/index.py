"""The Arrow index of a data set: file names through Hugging Face `datasets`, keyed by a manifest of the files.

The index holds names, not pixels. Official sets are large (CLEVRTEX full: 50,000 scenes of 5 files), and a copy of the
pixels would double the disk space. Samples are decoded from the original files when they are asked for, so memory use
does not grow with the data set.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ..core.errors import UsageError
from ..core.files import find_file
from ..core.log import logger
from ..core.paths import cache_root
from . import contents
from .folders import remove, write_folder

if TYPE_CHECKING:
    import datasets

INDEX_VERSION = 1
"""Add 1 when the columns of an index change: caches of older versions are then not read."""


@dataclass(frozen=True)
class Manifest:
    """The files of opened data, below `root`.

    Attributes:
        images: name and stamp of each file whose content does not count for the revision.
        annotations: of each file whose content does: masks, tables, lists.
    """

    root: Path
    images: Mapping[str, contents.Stamp]
    annotations: Mapping[str, contents.Stamp]

    @cached_property
    def hashes(self) -> Mapping[str, str]:
        """Hash of the content of each annotation; those that were touched since they were last read are read."""
        return contents.annotation_hashes(self.root, self.annotations)

    @cached_property
    def content(self) -> str:
        """Eight hexadecimal digits of all names and sizes and of the content of annotations: equal on every machine.

        Raises:
            UsageError: an image is not the one that `--verify` recorded.
        """
        # No times here: this becomes the revision of the data, and a copy of the data has the same revision.
        contents.check_images(self.root, self.images)
        images = sorted((name, stamp.size) for name, stamp in self.images.items())
        annotations = sorted((name, stamp.size, self.hashes[name]) for name, stamp in self.annotations.items())
        return _digest([images, annotations])[:8]

    @property
    def key(self) -> str:
        """Key of the Arrow index: changes with every file's name, size or time, and with the versions of the reader."""
        files = [list(self.images.items()), list(self.annotations.items())]
        return _digest([version("ocl-bench"), INDEX_VERSION, files])[:24]

    def verify(self) -> bool:
        """Read all files whatever is remembered of them, and record the content of the images.

        Returns:
            Whether the annotations are those of `content`; if not, the data have to be opened again.

        Raises:
            UsageError: an image is not the one that was recorded earlier, or the record cannot be written.
        """
        read = contents.annotation_hashes(self.root, self.annotations, afresh=True)
        contents.record_images(self.root, self.images)
        logger.info("--verify: read %d files of %s", len(self.images) + len(self.annotations), self.root)
        changed = [name for name, value in read.items() if value != self.hashes[name]]
        if changed:
            text = "%s: content differs from what was remembered, though size and times are equal (%d such files)"
            logger.warning(text, self.root / changed[0], len(changed))
        return not changed


def take_manifest(root: Path, images: Iterable[str], annotations: Iterable[str] = ()) -> Manifest:
    """The manifest of these files, whose names are relative to `root`."""
    # A file that is both is an annotation: its content counts.
    annotated = dict(_stamped(root, name) for name in annotations)
    stamped = (_stamped(root, name) for name in images if name not in annotated)
    return Manifest(root, {name: stamp for name, stamp in stamped if name not in annotated}, annotated)


def _stamped(root: Path, name: str) -> tuple[str, contents.Stamp]:
    """Name and stamp of a file; the name as on the disk, because readers also find a suffix in capitals."""
    stamp = contents.stamp(root / name)
    if stamp != contents.ABSENT or (found := find_file(root / name)) is None:
        return name, stamp
    return str(PurePosixPath(name).with_suffix(found.suffix)), contents.stamp(found)


def open_index(name: str, columns: Mapping[str, Sequence[str]], manifest: Manifest) -> datasets.Dataset:
    """The memory-mapped index from the cache; it is built there when the manifest has changed.

    Args:
        name: first part of the name of its folder, `cache_root()/arrow/<name>-<manifest key>`.
        columns: name of each column and its texts, one per sample.
        manifest: of the files that the index names.

    Raises:
        UsageError: the cache cannot be written, or a name is not UTF-8.
    """
    import datasets

    for texts in columns.values():
        check_utf8(texts)

    folder = cache_root() / "arrow" / f"{name}-{manifest.key}"
    with _quiet(datasets):
        if (found := _read_index(datasets, folder, columns)) is not None:
            return found
        if not folder.is_dir():
            features = datasets.Features({column: datasets.Value("string") for column in columns})
            table = datasets.Dataset.from_dict({key: list(column) for key, column in columns.items()}, features)
            try:
                # Whole or not at all: two processes may build the same index at the same time.
                write_folder(folder, lambda place: table.save_to_disk(str(place)))
            except OSError as error:
                reason = error.strerror or str(error)
                raise UsageError(f"{folder}: cannot be written ({reason}); set OCL_BENCH_CACHE elsewhere") from error
        return datasets.load_from_disk(str(folder), keep_in_memory=False)


def read_row(index: datasets.Dataset, position: int) -> dict[str, str]:
    """Row `position` of an index: what `index[position]` gives, without the formatting that takes ten times as long."""
    table = index.data.table
    return {name: table.column(name)[position].as_py() for name in table.column_names}


def check_utf8(names: Iterable[str]) -> None:
    """Raise UsageError for a name of a file that is not UTF-8: it can stand in no index, row or result."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"{name!r}: the name of a file is not UTF-8; rename the file") from error


def _read_index(module: Any, folder: Path, columns: Mapping[str, Sequence[str]]) -> datasets.Dataset | None:
    """The index in a folder of the cache; None when there is none, or when it is damaged, and then it is removed."""
    import pyarrow

    if not os.path.lexists(folder):
        return None
    try:
        index = module.load_from_disk(str(folder), keep_in_memory=False)
        table = index.data.table
        table.validate(full=True)  # Arrow trusts offsets: a changed one would lead out of the file
        # Every row: a name that was edited would give a sample the mask of another one.
        if table.equals(pyarrow.table({key: list(texts) for key, texts in columns.items()}, table.schema)):
            return index
    except Exception as error:  # whatever the damaged bytes mean to Arrow and JSON
        logger.info("%s: damaged (%s); it is made again", folder, type(error).__name__)
    try:
        remove(folder)
    except OSError as error:
        raise UsageError(f"{folder}: damaged, and cannot be removed ({error.strerror}); remove it") from error
    return None


@contextmanager
def _quiet(module: object) -> Iterator[None]:
    """Hide the progress bars of `datasets` inside the `with`; the caller's own setting is restored afterwards."""
    shown = not module.are_progress_bars_disabled()  # type: ignore[attr-defined]
    module.disable_progress_bars()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if shown:
            module.enable_progress_bars()  # type: ignore[attr-defined]


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()
