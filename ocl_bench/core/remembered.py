"""Small values that take long to compute, kept in the cache under a hash of everything that they depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from .files import digest, write_atomically
from .paths import PACKAGE, cache_root


def remembered(folder: str, parts: Sequence[Any], compute: Callable[[], Any]) -> Any:
    """The value of `compute`, read from the cache where it was computed before.

    Args:
        folder: folder of the cache.
        parts: everything that the value depends on, ready for JSON.
        compute: gives a value ready for JSON.
    """
    place = cache_root() / folder / digest(parts)
    with suppress(OSError, ValueError):  # not there, or cut off by a full disk
        return json.loads(place.read_bytes())
    value = compute()
    with suppress(OSError):  # a full or read-only cache: the value is computed again next time
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(place, lambda target: target.write_text(json.dumps(value)))
    return value


@cache
def sources_hash(*places: str, data: tuple[Path, ...] = ()) -> str:
    """Hash of the Python files in folders of this package (`metrics`) or of single ones (`models/declared.py`).

    data: further files of the package that decide.
    """
    found = hashlib.sha256()
    files = [path for place in places for path in (PACKAGE.joinpath(place), *PACKAGE.joinpath(place).rglob("*.py"))]
    for path in sorted([*(path for path in files if path.is_file()), *data]):
        found.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()
