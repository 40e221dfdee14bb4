"""Names of the files in many folders, remembered: a folder is listed again only when an entry of it came or went.

One file for each root lies below `cache_root()/listings`. It is a cache and may be deleted.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from ..core.files import write_atomically
from ..core.log import logger
from ..core.paths import cache_root
from . import contents

_VERSION = 2
"""Add 1 when the form of the files changes: older ones are then not read."""

Stamp = tuple[int, int, int, int]
"""Device, inode, and times of the last modification and change in nanoseconds."""

UNKNOWN: Stamp = (0, 0, 0, 0)
"""Of a folder that is listed again each time."""

Stamps = Mapping[str, Stamp]
"""Path of each folder that was listed -> its stamp."""

Listed = tuple[list[str], list[str], Stamps]
"""Names of the files that are wanted, names of the others, and the folders they lie in."""


def folder_stamp(folder: str | Path) -> Stamp:
    """What changes when an entry of a folder comes, goes or is renamed; the folder itself may be another one, too."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


@dataclass
class Listings:
    """What is remembered of the folders below a root. entries: name -> files, other files, stamps of the folders.

    Names are joined by NUL, which none can have: a million short texts would take longer to read.
    """

    path: Path
    entries: dict[str, tuple[str, str, dict[str, list[int]]]]
    fresh: set[str] = field(default_factory=set)

    @classmethod
    def load(cls, root: Path, *, anew: bool = False) -> Listings:
        """What is remembered of a root; nothing with `anew`, or when the file is missing or damaged."""
        place = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:24]
        path = cache_root() / "listings" / f"{place}.json"
        if anew:
            return cls(path, {})
        try:
            head, _, body = path.read_text(encoding="utf-8").partition("\n")
            if head == _checksum(body):
                return cls(path, json.loads(body))
            logger.info("%s: is damaged or of another version, and is made again", path)
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            logger.info("%s: cannot be read (%s), and is made again", path, error)
        return cls(path, {})

    def get(self, name: str, read: Callable[[], Listed]) -> tuple[list[str], list[str]]:
        """Names of the wanted and of the other files in the folder `name`; `read` lists it where it was changed."""
        known = self.entries.get(name)
        if known is not None and self._unchanged(known[2]):
            wanted, others = known[0], known[1]
            return wanted.split("\0") if wanted else [], others.split("\0") if others else []
        wanted_names, other_names, stamps = read()
        last = time.time_ns() - contents.SETTLED_NS
        # A folder that was changed a moment ago may change again and show the same time: it is listed again next time.
        # Times in whole seconds come from images of disks and mounted buckets, whose folders may change without them.
        settled = all(changed < last and changed % 10**9 for *_, changed in stamps.values())
        kept = {folder: list(stamp) if settled else [] for folder, stamp in stamps.items()}
        self.entries[name] = "\0".join(wanted_names), "\0".join(other_names), kept
        self.fresh.add(name)
        return wanted_names, other_names

    def keep(self) -> None:
        """Write what was listed anew."""
        if not self.fresh:
            return
        body = json.dumps(self.entries, separators=(",", ":"))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, lambda place: place.write_text(f"{_checksum(body)}\n{body}", encoding="utf-8"))
        except OSError as error:
            # Not an error: without memory, the folders are only listed again the next time.
            logger.warning(
                "%s: cannot be written (%s); folders are listed again next time", self.path, error.strerror or error
            )

    @staticmethod
    def _unchanged(stamps: dict[str, list[int]]) -> bool:
        try:
            return bool(stamps) and all(list(folder_stamp(folder)) == stamp for folder, stamp in stamps.items())
        except OSError:
            return False


def _checksum(body: str) -> str:
    """Of another version, the suite may list other files."""
    return hashlib.sha256(f"{_VERSION} {version('ocl-bench')} {body}".encode()).hexdigest()
