"""Atomic writing of files, text from any system, and hashes of content and of sets of samples."""

from __future__ import annotations

import codecs
import errno
import hashlib
import json
import os
import re
import secrets
import socket
import stat
import tempfile
import zipfile
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UsageError

if TYPE_CHECKING:
    import yaml

DEEPEST_YAML = 200
"""Most brackets of a YAML text that may be open at the same time."""
LONGEST_INTEGER = 1000
"""Most characters of an integer in a YAML text: Python does not print one of more than 4300 digits."""


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Call `write` with a temporary file in the same folder, then rename it: readers see all or nothing.

    What exists must be a regular file: a rename as root would turn the device /dev/null into one. An OSError names
    the file: that of a full disk names none, and others the temporary one.
    """
    _check_replaceable(path)
    # Containers that share a folder may have the same process numbers. The name is cut as it may have 255 bytes.
    owner = f"{path_name(socket.gethostname())[:24]}-{os.getpid()}-{secrets.token_hex(4)}"
    temporary = path.with_name(f".{path.name[:40]}.{owner}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    except OSError as error:
        if error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
    finally:
        with suppress(OSError):  # a read-only file system refuses it also for a file that is not there
            temporary.unlink(missing_ok=True)


def check_out(path: Path, *, folder: bool = False) -> None:
    """Raise UsageError unless a file, or files in a folder, can be written there; missing folders would be made."""
    try:
        if not folder:
            _check_replaceable(path)
        place = path if folder else path.parent
        nearest = next(one for one in (place, *place.absolute().parents) if one.exists())
        if not nearest.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(nearest))
        try:
            # Permissions alone do not tell it: nothing can be made in /proc, not even by root.
            tempfile.TemporaryFile(dir=nearest).close()
        except OSError as error:
            reason = f"no file can be made in it ({error.strerror})"
            raise OSError(error.errno or errno.EIO, reason, str(nearest)) from error
    except OSError as error:
        raise UsageError(f"--out {path}: {error.filename}: {error.strerror}; choose another place") from error


def _check_replaceable(path: Path) -> None:
    """Raise OSError unless a file can be put there: nothing but a regular file may be replaced, as by check_regular.

    A link of the system, such as /dev/stdout, also counts as a device when it leads to a regular file for a moment.
    """
    place = path
    while place.is_symlink():
        folder = os.path.realpath(place.parent)
        if folder == "/dev" or folder.startswith("/proc/"):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        place = place.parent / os.readlink(place)
        if not place.exists():
            return  # leads nowhere, perhaps in a circle
    if path.exists():
        check_regular(path)


def read_text(path: Path) -> str:
    """The text of a file that people or programs of any system wrote: UTF-8, or UTF-16 with its byte-order mark.

    A mark is no part of the text: left in, it would become part of the first name of a list or of the first column of
    a table.

    Raises:
        OSError: the file cannot be read.
        UnicodeDecodeError: it is in another encoding.
    """
    content = read_bytes(path)
    # Windows PowerShell writes UTF-16 with `>`.
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if marked else "utf-8-sig")


def find_file(path: Path) -> Path | None:
    """The file, whether its suffix is in small letters or capitals on the disk (`a.PNG` for `a.png`); None without."""
    if path.is_file():
        return path
    others = (path.with_suffix(change(path.suffix)) for change in (str.upper, str.lower, str.title))
    return next((other for other in others if other.is_file()), None)


def find_files(folder: Path, pattern: str) -> Iterator[Path]:
    """The files below a folder that fit a pattern with a suffix (`*/[!.]*.png`), the suffix also in capitals.

    The folder may be missing, and then it has no files. As with `find_file`, the names are those on the disk.
    """
    stem, _, suffix = pattern.rpartition(".")
    files = folder.glob(f"{stem}.*") if folder.is_dir() else iter(())
    return (path for path in files if path.suffix.lower() == f".{suffix.lower()}")


def digest(content: Any) -> str:
    """SHA-256 of the canonical JSON of `content`: sorted keys, no spaces."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def ids_hash(ids: Sequence[str]) -> str:
    """SHA-256 of the sorted sample ids."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def path_name(name: str) -> str:
    """A model name as a file name: `dias:1` becomes `dias-1`. Leading dots go: files never become hidden ones."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip(".") or "model"


def check_regular(path: Path) -> None:
    """Raise OSError unless a path leads to a regular file: a pipe or a device would be read without end."""
    try:
        mode = os.stat(path).st_mode
    except ValueError as error:  # a name with a NUL byte
        raise OSError(errno.EINVAL, "not a file name", repr(str(path))) from error
    if not stat.S_ISREG(mode):
        reason = "is a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, reason, str(path))


def read_bytes(path: Path) -> bytes:
    """The content of a regular file. Raises OSError for anything else."""
    check_regular(path)
    return path.read_bytes()


def parse_json(text: str | bytes, **keywords: Any) -> Any:
    """JSON as `json.loads` reads it. Raises ValueError also where lists are nested too deeply."""
    try:
        return json.loads(text, **keywords)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def parse_yaml(text: str) -> Any:
    """YAML as `yaml.safe_load` reads it. Raises ValueError with one line for all that cannot be read.

    A key that is written twice is an error too: `yaml.safe_load` keeps the last value and says nothing.
    """
    import yaml

    # PyYAML looks at all open brackets at each further one: 100,000 of them would take hours.
    depth = 0
    for bracket in re.findall(r"[\[\]{}]", text):
        depth = max(0, depth + (1 if bracket in "[{" else -1))
        if depth > DEEPEST_YAML:
            raise ValueError("nested too deeply")
    try:
        return yaml.load(text, _strict_loader())
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except yaml.YAMLError as error:
        raise ValueError(str(error).splitlines()[0]) from error
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:  # of PyYAML, for `!!int ''` and the like
        raise ValueError("a value does not fit its tag or is too large") from error


@lru_cache(maxsize=1)
def _strict_loader() -> type[yaml.SafeLoader]:
    """The safe loader, which refuses a key that is written twice and an integer that is too long."""
    import yaml  # not at the top, because most commands read no card

    # The loader of libyaml, where it is installed, reads the same safe subset many times faster.
    class StrictLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
            keys = [key.value for key, _ in node.value]
            for place, (key, _) in enumerate(node.value):
                if key.value in keys[:place]:
                    raise yaml.YAMLError(f"line {key.start_mark.line + 1}: '{key.value}' is written twice; keep one")
            return super().construct_mapping(node, deep)

        def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
            length = len(node.value)
            if length > LONGEST_INTEGER:
                where = f"line {node.start_mark.line + 1}: an integer of {length} characters"
                raise yaml.YAMLError(f"{where}; at most {LONGEST_INTEGER}")
            return int(super().construct_yaml_int(node))

    StrictLoader.add_constructor("tag:yaml.org,2002:int", StrictLoader.construct_yaml_int)
    return StrictLoader


def damaged_part(path: Path) -> str:
    """Name of the first part of a zip file that does not fit its checksum; empty where all fit, and for other files.

    Checkpoints of torch are zip files, and torch reads them without a look at their checksums.
    """
    if not zipfile.is_zipfile(path):
        return ""
    with zipfile.ZipFile(path) as parts:
        return parts.testzip() or ""


def file_sha256(path: Path) -> str:
    """SHA-256 of the content of a regular file, read in pieces. Raises OSError for anything else."""
    check_regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
