"""Rendered files in the cache: a record beside them tells whether they are still what was rendered.

`<folder>/.rendered.json` holds size, times and hash of each file. A file with the recorded size and times is not read.
One that was touched is read, and rendered again when its content is another. A file of which nothing is recorded,
because an earlier version rendered it or a run was killed, is recorded as it is found. A record is valid in its place
of the cache only: other splits and seeds have files of the same names.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..core.errors import UsageError
from ..core.locks import locked
from ..core.log import logger
from ..core.paths import cache_root
from .contents import ABSENT, Memory, Stamp, hash_files, stamp
from .folders import remove, write_folder

RECORD = ".rendered.json"


def ensure_files(
    folder: Path, names: Iterable[str], render: Callable[[Sequence[str]], Any], *, verify: bool = False
) -> None:
    """Have these files as they were rendered.

    Args:
        folder: of the cache; other processes may render other files in it.
        names: of the files, relative to the folder.
        render: is given the names of those that are missing or changed, and writes at least these.
        verify: read all files, also those with the recorded size and times.

    Raises:
        OSError: what is in the place of a file cannot be removed.
    """
    names = tuple(names)
    if not verify and _Look.at(folder, names).is_known:
        return
    with _alone(folder):
        look = _Look.at(folder, names)  # another process may have rendered them meanwhile
        hashes = look.hashes(verify)
        wrong = look.wrong(hashes)
        if wrong:
            look.announce(wrong)
            for name in wrong:
                if look.files[name] == ABSENT:
                    remove(folder / name)  # a folder or a pipe would not be overwritten
            render(wrong)
            again = _Look.at(folder, wrong)
            hashes |= again.hashes(all_files=True)
            look = replace(look, files={**look.files, **again.files})
        look.record(hashes)


def ensure_folder(folder: Path, write: Callable[[Path], Any], *, verify: bool = False) -> None:
    """Have a folder with exactly the files that were rendered into it; otherwise the whole of it is rendered again.

    Args:
        folder: of the cache.
        write: fills a folder that does not exist yet.
        verify: read all files, also those with the recorded size and times.

    Raises:
        OSError: the disk refuses.
    """
    if not verify and (look := _Look.inside(folder)).is_known and not look.strangers:
        return
    with _alone(folder):
        look = _Look.inside(folder)
        hashes = look.hashes(verify)
        wrong = [*look.wrong(hashes), *look.strangers]
        if look.files and not wrong:
            look.record(hashes)
            return
        look.announce(wrong)
        remove(folder)
        write_folder(folder, lambda place: _write_recorded(place, write, folder))


def _write_recorded(place: Path, write: Callable[[Path], Any], folder: Path) -> None:
    """Fill a folder, and record its files as they will be in `folder`."""
    write(place)
    look = _Look.inside(place)
    Memory(place / RECORD, _place_in_cache(folder)).keep(look.hashes(), look.files)


def _place_in_cache(folder: Path) -> str:
    """Where a folder is in the cache; the cache itself may be moved."""
    root = cache_root()
    return (folder.relative_to(root) if folder.is_relative_to(root) else folder).as_posix()


def _recorded(folder: Path) -> Memory:
    return Memory.load(folder / RECORD, _place_in_cache(folder))


@dataclass(frozen=True)
class _Look:
    """A look at files. memory: what is recorded of them. files: name and stamp of each."""

    folder: Path
    memory: Memory
    files: Mapping[str, Stamp]

    @classmethod
    def at(cls, folder: Path, names: Iterable[str]) -> _Look:
        """Look at the files of these names."""
        return cls(folder, _recorded(folder), {name: stamp(f"{folder}/{name}") for name in names})

    @classmethod
    def inside(cls, folder: Path) -> _Look:
        """Look at all files that are in the folder or were recorded; the hidden ones of desktops do not count."""
        start = len(f"{folder}{os.sep}")
        found = (
            f"{parent}{os.sep}{name}"[start:].replace(os.sep, "/")
            for parent, _, names in os.walk(folder)
            for name in names
            if not name.startswith(".")
        )
        memory = _recorded(folder)
        return cls(folder, memory, {name: stamp(f"{folder}/{name}") for name in {*found, *memory.entries}})

    @property
    def is_known(self) -> bool:
        """Whether all files are there with the recorded size and times."""
        return bool(self.files) and len(self.memory.hashes(self.files)) == len(self.files)

    @property
    def strangers(self) -> list[str]:
        """Files that are not among the recorded ones, where there are recorded ones."""
        return [name for name in self.files if name not in self.memory.entries] if self.memory.entries else []

    def hashes(self, all_files: bool = False) -> dict[str, str]:
        """Hash of each file that is there. Read are those that differ from the record in size or times, or all."""
        known = {} if all_files else self.memory.hashes(self.files)
        return known | hash_files(self.folder, {name: mark for name, mark in self.files.items() if name not in known})

    def wrong(self, hashes: Mapping[str, str]) -> list[str]:
        """Files that are missing or have another hash than the recorded one; a damaged record vouches for none."""
        if self.memory.trouble:
            return list(self.files)
        recorded = {name: entry[3] for name, entry in self.memory.entries.items()}
        return [
            name
            for name, mark in self.files.items()
            if mark == ABSENT or recorded.get(name, hashes.get(name)) != hashes.get(name)
        ]

    def announce(self, wrong: Sequence[str]) -> None:
        """Say which files were changed or lost; nothing of those that are rendered for the first time."""
        if self.memory.trouble:
            logger.warning("%s: %s; the files of its folder are rendered again", self.memory.path, self.memory.trouble)
            return
        lost = [name for name in wrong if name in self.memory.entries or self.files[name] != ABSENT]
        if lost:
            text = "%s: not there as it was rendered (%d such files); rendered again"
            logger.warning(text, self.folder / sorted(lost)[0], len(lost))

    def record(self, hashes: Mapping[str, str]) -> None:
        """Record these hashes where the record has others, or other times."""
        known = self.memory.hashes(self.files)
        fresh = {name: value for name, value in hashes.items() if known.get(name) != value}
        if not fresh:
            return
        try:
            if self.memory.trouble:
                remove(self.memory.path)
            self.memory.keep(fresh, self.files)
        except OSError as error:
            # Not an error: the files are only read again the next time.
            logger.warning(
                "%s: cannot be written (%s); read again next time", self.memory.path, error.strerror or error
            )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from rendering into this folder inside the `with`."""
    with ExitStack() as stack:
        # A cache that is read-only can be read all the same, and nobody renders into it.
        with suppress(UsageError):
            busy = f"waiting for another process, which renders {folder}"
            stack.enter_context(locked(folder.parent / f".{folder.name}.lock", busy))
        yield
