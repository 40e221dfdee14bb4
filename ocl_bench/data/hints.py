"""What may help when data are not below a data root: archives that nobody unpacked, and a root that would fit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from ..core.errors import OclBenchError
from .base import OpenData, Request
from .readers.frames import name_some

_ARCHIVE = re.compile(r".+\.(zip|tar|tar\.gz|tgz|tar\.bz2|7z|rar)", re.IGNORECASE)
_SHARD = re.compile(r".+-[a-z]+-[0-9]+\.tar")
"""WebDataset shards, which are read as they are."""

_ABOVE, _BELOW, _MOST = 3, 2, 200
"""How many levels above and below the root are tried, and how many folders below it."""


def hints(request: Request, opener: Callable[[Request], OpenData]) -> str:
    """What to add to the message that data are not there, '' for nothing. opener: opens the data of a request."""
    assert request.root is not None
    places = dict.fromkeys((request.root, request.root / request.data.folder))
    packed = sorted(
        path.name for place in places for path in _entries(place) if _is_archive(path.name) and path.is_file()
    )
    text = f"; archives are not read, unpack them first: {name_some(packed)}" if packed else ""
    for root in (*request.root.absolute().parents[:_ABOVE], *islice(_folders(request.root), _MOST)):
        try:
            opener(replace(request, data_root=root, limit=1, verify=False))
        except OclBenchError:
            continue
        return f"{text}; there are such data with --data-root {root}"
    return text


def _is_archive(name: str) -> bool:
    return bool(_ARCHIVE.fullmatch(name)) and not _SHARD.fullmatch(name) and not name.startswith(".")


def _folders(root: Path) -> Iterator[Path]:
    """The folders below a root, level by level; hidden ones and those that macOS packs are left out."""
    level = [root]
    for _ in range(_BELOW):
        level = [path for folder in level for path in _entries(folder) if _is_folder(path)]
        yield from level


def _is_folder(path: Path) -> bool:
    return not path.name.startswith((".", "__MACOSX")) and path.is_dir()


def _entries(folder: Path) -> list[Path]:
    """The first entries of a folder, sorted; none where it cannot be read."""
    try:
        return sorted(islice(folder.iterdir(), 10 * _MOST))
    except OSError:
        return []
