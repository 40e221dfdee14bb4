"""Folders that are whole or not there, and what has to make room for them."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_folder(folder: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary folder beside `folder`, then rename it: readers see all of it or nothing.

    `write` is called with a path that does not exist yet. Raises OSError when the disk refuses.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = _scratch(folder, ".writing-")
    try:
        write(scratch / "content")
        try:
            os.rename(scratch / "content", folder)
        except OSError:
            # Another process may have been faster. What it wrote is equal, because the name says what is inside.
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def remove(path: Path) -> None:
    """Remove what is at a place, if anything: a file, a link or a whole folder. Raises OSError if that fails."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    # Renamed first: a folder that is removed in part would still look like one.
    scratch = _scratch(path, ".removing-")
    try:
        os.rename(path, scratch / "content")
    finally:
        shutil.rmtree(scratch)


def _scratch(path: Path, prefix: str) -> Path:
    """A temporary folder beside `path`. Raises OSError that names `path`, because nobody knows the temporary name."""
    try:
        return Path(tempfile.mkdtemp(dir=path.parent, prefix=prefix))
    except OSError as error:
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
