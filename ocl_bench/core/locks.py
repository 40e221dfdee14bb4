"""A lock that only one process holds: the operating system releases it when that process dies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import UsageError
from .log import logger


@contextmanager
def locked(path: Path, busy: str, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of this file. A file that a dead process left, of this host or another, locks nothing.

    Args:
        path: the lock file; its folder is created if needed, and the file is deleted in the end.
        busy: what to say when another process holds the lock.
        wait: say `busy` once and wait for the lock; otherwise refuse.

    Raises:
        UsageError: when another holds the lock and `wait` is off, or the file cannot be written.
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if not wait:
                raise UsageError(busy) from None
            logger.info("%s", busy)
            lock.acquire()
    except (OSError, NotImplementedError) as error:  # the latter where a file system has no locks
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{path}: cannot be locked ({reason}); choose a folder that can be written") from error
    try:
        yield
    finally:
        if os.name == "posix":
            # While the lock is held: whoever opened the file before sees that it was deleted, and opens a new one.
            with suppress(OSError):
                path.unlink()
        lock.release()
