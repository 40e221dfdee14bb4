"""The Arrow index of a data set: names of files, memory-mapped, keyed by a manifest of the files.

The index holds names, not pixels. Official sets are large (CLEVRTEX full: 50,000 scenes of 5 files), and a copy of the
pixels would double the disk space. Samples are decoded from the original files when they are asked for, so memory use
does not grow with the data set.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ..core.errors import UsageError
from ..core.files import find_file, write_atomically
from ..core.log import logger
from ..core.paths import cache_root
from . import contents
from .folders import remove

if TYPE_CHECKING:
    import pyarrow

INDEX_VERSION = 2
"""Add 1 when the columns or the format of an index change: caches of older versions are then not read."""


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


def open_index(name: str, columns: Mapping[str, Sequence[str]], manifest: Manifest) -> pyarrow.Table:
    """The memory-mapped index from the cache; it is built there when the manifest has changed.

    Args:
        name: first part of the name of its file, `cache_root()/arrow/<name>-<manifest key>.arrow`.
        columns: name of each column and its texts, one per sample.
        manifest: of the files that the index names.

    Raises:
        UsageError: the cache cannot be written, or a name is not UTF-8.
    """
    import pyarrow

    for texts in columns.values():
        check_utf8(texts)

    path = cache_root() / "arrow" / f"{name}-{manifest.key}.arrow"
    table = pyarrow.table({column: pyarrow.array(texts, pyarrow.string()) for column, texts in columns.items()})
    if (found := _read_index(path, table)) is not None:
        return found
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all: two processes may build the same index at the same time.
        write_atomically(path, lambda part: _write(table, part))
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"{path}: cannot be written ({reason}); set OCL_BENCH_CACHE elsewhere") from error
    return _mapped(path)


def read_row(index: pyarrow.Table, position: int) -> dict[str, str]:
    """Row `position` of an index, by column."""
    return {name: index.column(name)[position].as_py() for name in index.column_names}


def check_utf8(names: Iterable[str]) -> None:
    """Raise UsageError for a name of a file that is not UTF-8: it can stand in no index, row or result."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"{name!r}: the name of a file is not UTF-8; rename the file") from error


def _read_index(path: Path, expected: pyarrow.Table) -> pyarrow.Table | None:
    """The index in a file of the cache; None when there is none, or when it is damaged, and then it is removed."""
    if not os.path.lexists(path):
        return None
    try:
        table = _mapped(path)
        table.validate(full=True)  # Arrow trusts offsets: a changed one would lead out of the file
        # Every row: a name that was edited would give a sample the mask of another one.
        if table.equals(expected):
            return table
    except Exception as error:  # whatever the damaged bytes mean to Arrow
        logger.info("%s: damaged (%s); it is made again", path, type(error).__name__)
    try:
        remove(path)
    except OSError as error:
        raise UsageError(f"{path}: damaged, and cannot be removed ({error.strerror}); remove it") from error
    return None


def _mapped(path: Path) -> pyarrow.Table:
    import pyarrow

    with pyarrow.memory_map(str(path)) as source, pyarrow.ipc.open_stream(source) as stream:
        return stream.read_all()


def _write(table: pyarrow.Table, path: Path) -> None:
    import pyarrow

    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()
