"""Atomic writing of files, text from any system, and hashes of content and of sets of samples."""

from __future__ import annotations

import codecs
import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Call `write` with a temporary file in the same folder, then rename it: readers see all or nothing."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_text(path: Path) -> str:
    """The text of a file that people or programs of any system wrote: UTF-8, or UTF-16 with its byte-order mark.

    A mark is no part of the text: left in, it would become part of the first name of a list or of the first column of
    a table.

    Raises:
        OSError: the file cannot be read.
        UnicodeDecodeError: it is in another encoding.
    """
    content = path.read_bytes()
    # Windows PowerShell writes UTF-16 with `>`.
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if marked else "utf-8-sig")


def find_file(path: Path) -> Path | None:
    """The file, whether its suffix is in small letters or capitals on the disk (`a.PNG` for `a.png`); None without."""
    if path.is_file():
        return path
    others = (path.with_suffix(change(path.suffix)) for change in (str.upper, str.lower, str.title))
    return next((other for other in others if other.is_file()), None)


def digest(content: Any) -> str:
    """SHA-256 of the canonical JSON of `content`: sorted keys, no spaces."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def ids_hash(ids: Sequence[str]) -> str:
    """SHA-256 of the sorted sample ids."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def path_name(name: str) -> str:
    """A model name as a file name: `dias:1` becomes `dias-1`. Leading dots go: files never become hidden ones."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip(".") or "model"


def file_sha256(path: Path) -> str:
    """SHA-256 of the content of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
