"""The Arrow index of a data set: file names through Hugging Face `datasets`, keyed by a manifest of the files.

The index holds names, not pixels. Official sets are large (CLEVRTEX full: 50,000 scenes of 5 files), and a copy of the
pixels would double the disk space. Samples are decoded from the original files when they are asked for, so memory use
does not grow with the data set.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import UsageError
from ..core.files import find_file
from ..core.paths import cache_root
from .folders import write_folder

if TYPE_CHECKING:
    import datasets

INDEX_VERSION = 1
"""Add 1 when the columns of an index change: caches of older versions are then not read."""


@dataclass(frozen=True)
class Manifest:
    """Name, size in bytes and modification time in ns of each file; a file that is not there has -1 and -1."""

    files: tuple[tuple[str, int, int], ...]

    @property
    def content(self) -> str:
        """Eight hexadecimal digits that depend on names and sizes only, so they are equal on every machine."""
        # No times here: this becomes the revision of the data, and a copy of the data has the same revision.
        return _digest([(name, size) for name, size, _ in self.files])[:8]

    @property
    def key(self) -> str:
        """Key of the Arrow index: changes with every file's name, size or time, and with the versions of the reader."""
        return _digest([version("ocl-bench"), INDEX_VERSION, self.files])[:24]


def take_manifest(root: Path, names: Sequence[str]) -> Manifest:
    """The manifest of `names`, given relative to `root`."""
    return Manifest(tuple(_entry(root, name) for name in names))


def open_index(name: str, columns: Mapping[str, Sequence[str]], manifest: Manifest) -> datasets.Dataset:
    """The memory-mapped index from the cache; it is built there when the manifest has changed.

    Args:
        name: first part of the name of its folder, `cache_root()/arrow/<name>-<manifest key>`.
        columns: name of each column and its texts, one per sample.
        manifest: of the files that the index names.

    Raises:
        UsageError: the cache cannot be written.
    """
    import datasets

    folder = cache_root() / "arrow" / f"{name}-{manifest.key}"
    with _quiet(datasets):
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


def _entry(root: Path, name: str) -> tuple[str, int, int]:
    try:
        status = os.stat(root / name)
    except OSError:
        # Readers also find a file whose suffix is in capitals.
        found = find_file(root / name)
        if found is None:
            return (name, -1, -1)
        status = found.stat()
    return (name, status.st_size, status.st_mtime_ns)


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
