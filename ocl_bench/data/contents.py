"""Content of files: hashes that are remembered, so that a file is read again only when it was touched.

Two small files per folder of data lie below `cache_root()/contents`. One holds the hashes of annotation files, which
make the revision of the data; it is a cache and may be deleted. The other holds the hashes of images that `--verify`
recorded. Rendered files have theirs beside them, see `rendered.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from ..core.errors import UsageError
from ..core.files import check_regular, digest, read_bytes, write_atomically
from ..core.log import logger
from ..core.paths import cache_root
from ..core.stamps import ABSENT as ABSENT
from ..core.stamps import SETTLED_NS as SETTLED_NS
from ..core.stamps import Stamp as Stamp
from ..core.stamps import stamp as stamp

_VERSION = 1
"""Add 1 when the form of the files changes: older ones are then not read, and rendered files are rendered again."""

_BATCH, _PIECE = 64, 1 << 20
"""Files that a thread takes at a time, and bytes that it reads at a time."""

_THREADS = 8
"""Reading small files mostly waits for the disk, and hashing does not hold Python's lock."""

_MANY_FILES, _MANY_BYTES = 20_000, 2_000_000_000
"""From this on, reading takes long enough to be announced."""


def annotation_hashes(root: Path, files: Mapping[str, Stamp], *, afresh: bool = False) -> dict[str, str]:
    """Name -> SHA-256 of the content of each file; '' for a file that is not there or cannot be read.

    Args:
        root: folder to which the names are relative.
        files: name -> stamp. Files whose stamp is the remembered one are not read.
        afresh: read all files, whatever is remembered.
    """
    memory = _remembered(root, "annotations")
    known = {} if afresh else memory.hashes(files)
    fresh = hash_files(root, {name: mark for name, mark in files.items() if name not in known})
    if fresh:
        try:
            memory.keep(fresh, files)
        except OSError as error:
            # Not an error: without memory, the files are only read again the next time.
            logger.warning(
                "%s: cannot be written (%s); annotations are read again next time", memory.path, error.strerror or error
            )
    return {name: known.get(name) or fresh.get(name, "") for name in files}


def check_images(root: Path, files: Mapping[str, Stamp]) -> None:
    """Read the images that were touched since `--verify` recorded them. Files that it did not record are not read.

    Raises:
        UsageError: one of them has another content and the same size: the revision cannot tell them apart.
    """
    memory = _remembered(root, "images")
    known = memory.hashes(files)
    touched = {name: mark for name, mark in files.items() if name in memory.entries and name not in known}
    fresh = hash_files(root, touched)
    memory.refuse_changed(fresh, files)
    if fresh:
        try:
            memory.keep(fresh, files)
        except OSError as error:
            logger.warning(
                "%s: cannot be written (%s); images are read again next time", memory.path, error.strerror or error
            )


def record_images(root: Path, files: Mapping[str, Stamp]) -> None:
    """Read all images and record their content.

    Raises:
        UsageError: an image has another content than the one recorded earlier, and the same size; or nothing can be
            recorded. The record is then left as it was.
    """
    memory = _remembered(root, "images")
    fresh = hash_files(root, files)
    memory.refuse_changed(fresh, files)
    try:
        memory.keep(fresh, files)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"{memory.path}: cannot be written ({reason}); set OCL_BENCH_CACHE elsewhere") from error


def _remembered(root: Path, kind: str) -> Memory:
    """What is remembered of a folder of data; nothing when the file is missing or damaged."""
    place = str(root.resolve())
    name = hashlib.sha256(os.fsencode(place)).hexdigest()[:24]
    memory = Memory.load(cache_root() / "contents" / f"{name}-{kind}.json", place)
    if memory.trouble:
        lost = "; what --verify recorded there is lost" if kind == "images" else ""
        logger.warning("%s: %s and is made again%s", memory.path, memory.trouble, lost)
    return memory


@dataclass
class Memory:
    """Hashes of the files of one folder.

    Attributes:
        path: the file that holds them.
        root: the folder, where they are valid for it alone.
        entries: name -> size, two times and the hash.
        trouble: why nothing could be read; '' also where there is no such file.
    """

    path: Path
    root: str = ""
    entries: dict[str, list[int | str]] = field(default_factory=dict)
    trouble: str = ""

    @classmethod
    def load(cls, path: Path, root: str = "") -> Memory:
        """What a file holds; no entries when it is missing or damaged."""
        memory = cls(path, root)
        try:
            content = json.loads(read_bytes(path))
            files = content["files"]
            # The checksum covers version and folder. The form is looked at because anybody can compute a checksum.
            well_formed = all(isinstance(entry, list) and len(entry) == 4 for entry in files.values())
            if well_formed and content["checksum"] == memory._checksum(files):
                memory.entries = files
            else:
                memory.trouble = "is damaged, or of another folder or version"
        except FileNotFoundError:
            pass
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            memory.trouble = "cannot be read"
        return memory

    def hashes(self, files: Mapping[str, Stamp]) -> dict[str, str]:
        """Hashes of those files whose stamp is the remembered one."""
        entries = ((name, self.entries.get(name), mark) for name, mark in files.items())
        return {name: str(entry[3]) for name, entry, mark in entries if entry and entry[:3] == list(mark)}

    def refuse_changed(self, fresh: Mapping[str, str], files: Mapping[str, Stamp]) -> None:
        """Raise UsageError when a file has the remembered size, but another content."""
        changed = [
            name
            for name, value in fresh.items()
            if (entry := self.entries.get(name)) and entry[0] == files[name].size and entry[3] != value
        ]
        if changed:
            raise UsageError(
                f"{Path(self.root, changed[0])}: not what an earlier --verify recorded, though of the same "
                f"size ({len(changed)} such files); restore it, or delete {self.path} and evaluate with --force"
            )

    def keep(self, fresh: Mapping[str, str], files: Mapping[str, Stamp]) -> None:
        """Remember these hashes and write the file. Raises OSError when the disk refuses."""
        last = time.time_ns() - SETTLED_NS
        for name, value in fresh.items():
            mark = files[name]
            # Without times, the hash stays known, but the file is read again the next time.
            times = mark[1:] if mark.changed_ns < last else (0, 0)
            self.entries[name] = [mark.size, *times, value]
        content = {"checksum": self._checksum(self.entries), "root": self.root, "files": self.entries}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(content, separators=(",", ":"))
        write_atomically(self.path, lambda place: place.write_text(text, encoding="utf-8"))

    def _checksum(self, entries: object) -> str:
        return digest([_VERSION, self.root, entries])


def hash_files(root: Path, files: Mapping[str, Stamp]) -> dict[str, str]:
    """Name -> hash of the files that are there and can be read."""
    names = [name for name, mark in files.items() if mark != ABSENT]
    size = sum(files[name].size for name in names)
    if len(names) >= _MANY_FILES or size >= _MANY_BYTES:
        logger.info("reading %d files (%.1f GB) of %s to hash their content", len(names), size / 1e9, root)
    # In batches: handing files over to threads one by one takes longer than hashing small ones.
    batches = [names[start : start + _BATCH] for start in range(0, len(names), _BATCH)]
    with ThreadPoolExecutor(_THREADS) as pool:
        hashed = pool.map(lambda batch: [(name, _hash_file(root / name)) for name in batch], batches)
        return {name: value for pairs in hashed for name, value in pairs if value}


def _hash_file(path: Path) -> str:
    """SHA-256 of a file; '' when it cannot be read: its sample fails later, with a message."""
    try:
        check_regular(path)
        # Not hashlib.file_digest: its large buffer makes small files take twice as long.
        value = hashlib.sha256()
        with open(path, "rb", buffering=0) as file:
            while piece := file.read(_PIECE):
                value.update(piece)
        return value.hexdigest()
    except OSError:
        return ""
