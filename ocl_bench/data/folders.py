"""Folders that are whole or not there, and what has to make room for them."""

from __future__ import annotations

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
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".writing-"))
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
    scratch = Path(tempfile.mkdtemp(dir=path.parent, prefix=".removing-"))
    try:
        os.rename(path, scratch / "content")
    finally:
        shutil.rmtree(scratch)
