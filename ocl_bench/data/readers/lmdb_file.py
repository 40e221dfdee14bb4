"""LMDB files as the codes of Genera1Z write them (DIAS, VVO, RandSF.Q, SmoothSA and others; their releases of v3).

    <name>/{train,val,test}.lmdb        one file; key `__keys__` is a pickled list of the keys "000000", "000001", ...;
                                        every other value is a pickled dict

Pickles are read by `load_plain`, which runs no code. Needs the package `lmdb`.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import DataMissingError, SampleError, UsageError
from ...core.files import check_regular
from ...core.optional import import_optional
from ..images import one_line
from ..unpickling import load_plain

_REMEDY = "download the file again"
_KEYS = b"__keys__"
_MAGIC = b"\xde\xc0\xef\xbe"
_OPENING = threading.Lock()


@dataclass(frozen=True)
class LmdbFile:
    """An opened file. keys: of its samples, in order."""

    path: Path
    keys: tuple[str, ...]

    @classmethod
    def open(cls, path: Path) -> LmdbFile:
        """Read the list of keys.

        Raises:
            UsageError: the package `lmdb` is not installed, or the file is damaged, cut, or has a pickle with code.
            DataMissingError: the file cannot be read.
        """
        try:
            keys = load_plain(_value(path, _KEYS))
        except OSError as error:
            raise DataMissingError(f"{path}: cannot be read ({error.strerror}); {_REMEDY}") from error
        except ValueError as error:
            raise UsageError(f"{path}: refused, its list of keys cannot be read: {error}; {_REMEDY}") from error
        if not isinstance(keys, list) or not all(isinstance(key, bytes) and key.isalnum() for key in keys) or not keys:
            raise UsageError(f"{path}: __keys__ is not a list of keys; {_REMEDY}")
        return cls(path, tuple(key.decode() for key in keys))

    def sample(self, key: str, sample_id: str, fields: dict[str, Any]) -> dict[str, Any]:
        """The dict of a sample.

        Args:
            key: of the sample.
            sample_id: for messages.
            fields: name -> type of what must be in it.

        Raises:
            SampleError: the value is missing, no plain dict, or has code in it.
        """
        where = f"{self.path}, key {key}"
        try:
            content = load_plain(_value(self.path, key.encode()))
        except OSError as error:
            raise SampleError(sample_id, f"{where}: cannot be read ({error.strerror}); {_REMEDY}") from error
        except ValueError as error:
            raise SampleError(sample_id, f"{where}: refused, its pickle cannot be read: {error}; {_REMEDY}") from error
        if not isinstance(content, dict):
            raise SampleError(sample_id, f"{where}: is a {type(content).__name__}, expected a dict; {_REMEDY}")
        for name, kind in fields.items():
            if not isinstance(content.get(name), kind):
                there = ", ".join(map(str, content)) or "nothing"
                text = f"'{name}' is missing or of a wrong type (there are {there})"
                raise SampleError(sample_id, f"{where}: {text}; is it a file of another data set or of before v3?")
        return content


def encoded(value: Any) -> bytes:
    """The bytes of an image file, which are stored as bytes or as an array of them."""
    return value.tobytes() if isinstance(value, np.ndarray) else bytes(value)


def _value(path: Path, key: bytes) -> bytes:
    """The value of a key. Raises OSError when the file cannot be read, ValueError when the key or a page is missing."""
    lmdb = _package(path)
    check_regular(path)
    stamp = path.stat()
    try:
        with _OPENING:  # a file must not be opened twice in one process
            environment = _environment(os.getpid(), path, stamp.st_size, stamp.st_mtime_ns)
        with environment.begin() as transaction:
            value = transaction.get(key)
    except lmdb.Error as error:
        raise ValueError(f"not a whole LMDB file ({one_line(error)})") from error
    if value is None:
        raise ValueError(f"there is no key {key.decode()}")
    return bytes(value)


@lru_cache(maxsize=8)
def _environment(process: int, path: Path, size: int, modified: int) -> Any:
    """The opened file. process, size, modified: a file is opened anew in another process and after a change."""
    del process, modified
    # LMDB maps the file into memory and trusts it: what is no such file, or was cut, must not get that far.
    with path.open("rb") as file:
        if file.read(20)[16:20] != _MAGIC:
            raise ValueError("not an LMDB file")
    environment = _package(path).open(
        str(path), subdir=False, readonly=True, lock=False, readahead=False, meminit=False, max_readers=1
    )
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if needed > size:
        environment.close()
        raise ValueError(f"it has {size} bytes of {needed}, it was cut")
    return environment


def _package(path: Path) -> Any:
    return import_optional("lmdb", "lmdb", f"{path}: reading it")
