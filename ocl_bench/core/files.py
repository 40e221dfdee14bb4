"""Atomic writing of files, and hashes of content and of sets of samples."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Call `write` with a temporary file in the same folder, then rename it: readers see all or nothing."""
    # Containers that share a folder may have the same process numbers. The name is cut as it may have 255 bytes.
    owner = f"{path_name(socket.gethostname())[:24]}-{os.getpid()}-{secrets.token_hex(4)}"
    temporary = path.with_name(f".{path.name[:40]}.{owner}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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
