"""The Arrow index of a data set: file names through Hugging Face `datasets`, keyed by a manifest of the files.

The index holds names, not pixels. Official sets are large (CLEVRTEX full: 50,000 scenes of 5 files), so that copying
pixels would double the disk space; samples are decoded from the original files when asked for, and memory stays flat.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import UsageError
from ..core.paths import cache_root

if TYPE_CHECKING:
    import datasets

INDEX_VERSION = 1
"""Raised when the columns of an index change."""


@dataclass(frozen=True)
class Manifest:
    """Names, sizes in bytes and modification times in ns of the files; a file that is not there has -1 and -1."""

    files: tuple[tuple[str, int, int], ...]

    @property
    def content(self) -> str:
        """Eight hexadecimal digits that depend on names and sizes only, hence equal on another machine."""
        return _digest([(name, size) for name, size, _ in self.files])[:8]

    @property
    def key(self) -> str:
        """Key of the Arrow index: changes with every file's name, size or time, and with the versions of the reader."""
        return _digest([version("ocl-bench"), INDEX_VERSION, self.files])[:24]


def take_manifest(root: Path, names: Sequence[str]) -> Manifest:
    """The manifest of `names`, given relative to `root`."""
    return Manifest(tuple(_entry(root, name) for name in names))


def open_index(name: str, columns: Mapping[str, Sequence[str]], manifest: Manifest) -> datasets.Dataset:
    """The memory-mapped index with text `columns`, from the cache, or built there when the manifest changed.

    It lies in `cache_root()/arrow/<name>-<manifest key>` and is written atomically, so that two processes may build it
    at the same time. Raises UsageError when the cache cannot be written.
    """
    import datasets

    folder = cache_root() / "arrow" / f"{name}-{manifest.key}"
    with _quiet(datasets):
        if not folder.is_dir():
            features = datasets.Features({column: datasets.Value("string") for column in columns})
            table = datasets.Dataset.from_dict({key: list(column) for key, column in columns.items()}, features)
            try:
                _save(table, folder)
            except OSError as error:
                reason = error.strerror or str(error)
                raise UsageError(f"{folder}: cannot be written ({reason}); set OCL_BENCH_CACHE elsewhere") from error
        return datasets.load_from_disk(str(folder), keep_in_memory=False)


def _entry(root: Path, name: str) -> tuple[str, int, int]:
    try:
        status = os.stat(root / name)
    except OSError:
        return (name, -1, -1)
    return (name, status.st_size, status.st_mtime_ns)


def _save(table: datasets.Dataset, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".writing-"))
    try:
        table.save_to_disk(str(scratch / "index"))
        try:
            os.rename(scratch / "index", folder)
        except OSError:
            # Another process may have been faster; its index is the same, as the key is.
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _quiet(module: object) -> Iterator[None]:
    """No progress bars of `datasets` inside; the caller's own setting comes back afterwards."""
    shown = not module.are_progress_bars_disabled()  # type: ignore[attr-defined]
    module.disable_progress_bars()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if shown:
            module.enable_progress_bars()  # type: ignore[attr-defined]


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()
