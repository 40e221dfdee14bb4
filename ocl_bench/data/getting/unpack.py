"""Unpack archives of strangers: no name leads out of the folder, no links, no devices, no more than announced."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from ...core.errors import UsageError
from ..images import one_line

MOST_FILES = 2_000_000
"""ImageNet, the largest of the data sets, has 1.3 million."""

_PIECE = 1 << 20
_Entry = tuple[str, int, Callable[[], IO[bytes] | None]]
"""Name, announced size in bytes, and how to open a regular file."""


def unpack(archive: Path, folder: Path, most_bytes: int) -> int:
    """Unpack a tar (also gz, bz2, xz) or zip file into a folder, beside what is there.

    All of it is unpacked into a hidden folder first: a refused archive leaves nothing behind. Files of equal names are
    replaced.

    Args:
        archive: the file.
        folder: where the files go; it is made.
        most_bytes: unpacked bytes that are allowed.

    Returns:
        The number of files.

    Raises:
        UsageError: the archive is damaged or cut, or one of its members is not allowed.
        OSError: the disk refuses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder, prefix=".unpacking-"))
    try:
        names = _write(archive, scratch, most_bytes)
        for name in names:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            # A link in the folder, made by an earlier step or by somebody else, must not lead the file elsewhere.
            if not target.parent.resolve().is_relative_to(folder.resolve()):
                raise UsageError(f"{target.parent}: is a link that leads out of {folder}; remove it")
            os.replace(scratch / name, target)
        return len(names)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise UsageError(f"{archive}: is damaged or cut ({one_line(error)}); delete it and get it again") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write(archive: Path, scratch: Path, most_bytes: int) -> list[str]:
    """Write all files of an archive below `scratch`; returns their names."""
    names: dict[str, None] = {}
    written = 0
    for name, size, opened in _entries(archive):
        plain = _checked(name, archive)
        if written + size > most_bytes or len(names) >= MOST_FILES:
            raise UsageError(f"{archive}: unpacks to more than {most_bytes} bytes or {MOST_FILES} files; it is refused")
        target = scratch / plain
        target.parent.mkdir(parents=True, exist_ok=True)
        with opened() as source, target.open("wb") as file:  # type: ignore[union-attr]
            # Counted, not believed: a member may hold more than its head announces.
            left = size
            while piece := source.read(min(_PIECE, left + 1)):  # type: ignore[union-attr]
                left -= len(piece)
                if left < 0:
                    raise UsageError(f"{archive}: '{name}' is larger than announced; it is refused")
                file.write(piece)
        if left:
            raise ValueError(f"'{name}' ends {left} bytes too early")
        written += size
        names[plain] = None
    if not names:
        raise UsageError(f"{archive}: holds no file; delete it and get it again")
    return list(names)


def _entries(archive: Path) -> Iterator[_Entry]:
    """The regular files of an archive. Raises UsageError for links, devices and encrypted members."""
    with archive.open("rb") as file:
        is_zip = file.read(2) == b"PK"  # is_zipfile also says yes to a tar that ends with a zip file
    if is_zip:
        with zipfile.ZipFile(archive) as content:
            for info in content.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                if info.is_dir():
                    _checked(info.filename, archive)
                elif kind not in (0, stat.S_IFREG) or info.flag_bits & 1:
                    raise UsageError(f"{archive}: '{info.filename}' is a link, a device or encrypted; it is refused")
                else:
                    yield info.filename, info.file_size, lambda info=info: content.open(info)  # type: ignore[misc]
        return
    with _open_tar(archive) as tar:
        for member in tar:
            if member.isdir():
                _checked(member.name, archive)
            elif not member.isreg():
                raise UsageError(f"{archive}: '{member.name}' is a link or a device; it is refused")
            else:
                yield member.name, member.size, lambda member=member: tar.extractfile(member)  # type: ignore[misc]


def _open_tar(archive: Path) -> tarfile.TarFile:
    """An opened tar file. Raises ValueError for another file, in fewer words than tarfile."""
    try:
        return tarfile.open(archive, "r:*")
    except tarfile.ReadError as error:
        raise ValueError("it is neither zip nor tar; did the server send a page?") from error


def _checked(name: str, archive: Path) -> str:
    """The name of a member, if it stays in its folder on any system. Raises UsageError."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in name or "\0" in name:
        raise UsageError(f"{archive}: '{name}' leads out of the folder; it is refused")
    return path.as_posix()
