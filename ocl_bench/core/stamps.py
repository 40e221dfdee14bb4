"""What a file system says about a file without reading it: who remembers something of a file reads it once."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

SETTLED_NS = 2_000_000_000
"""A file that was changed less than this before it was hashed may change again within one tick of the clock of its file
system, and then shows the same times: its hash is not trusted later."""


class Stamp(NamedTuple):
    """What a file system says about a file without reading it; -1 everywhere when there is no such file.

    The time of the last change of the entry itself (ctime) is there because tools that copy or repair may set the
    modification time back.
    """

    size: int
    modified_ns: int
    changed_ns: int


ABSENT = Stamp(-1, -1, -1)


def stamp(path: str | Path) -> Stamp:
    """The stamp of a regular file; `ABSENT` for all others. A link counts as what it points to."""
    try:
        status = os.stat(path)
    # A NUL in the name is a ValueError.
    except (OSError, ValueError):
        return ABSENT
    # A pipe would be read for ever, and the size of a folder depends on the file system.
    if not stat.S_ISREG(status.st_mode):
        return ABSENT
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns)
