"""WebDataset shards: tar files whose members are called `<key>.<part>`, those of one key beside each other.

`tarfile` finds where each part begins; a part is then read from the shard in place. Nothing is unpacked, so that no
name or link in a tar can lead anywhere.
"""

from __future__ import annotations

import math
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...core.errors import DataMissingError, SampleError, UsageError
from ...core.files import check_regular
from ..images import one_line

_REMEDY = "copy the shard again"
_LARGEST_HEAD = 10_000
"""Bytes that the head of a NumPy file may have; that of a plain array has 128."""


_BLOCK = 1 << 20
"""Bytes of an array that are read at a time, or more where one entry has more."""


@dataclass(frozen=True)
class Part:
    """Where one part of a sample lies: its shard, the byte at which it begins there, and its length in bytes."""

    shard: Path
    offset: int
    length: int

    def read(self, sample_id: str) -> bytes:
        """The bytes of the part. Raises SampleError when the shard ends too early or cannot be read."""
        try:
            check_regular(self.shard)
            with self.shard.open("rb") as file:
                file.seek(self.offset)
                content = file.read(self.length)
        except OSError as error:
            raise SampleError(sample_id, f"{self.shard}: cannot be read ({error.strerror}); {_REMEDY}") from error
        if len(content) < self.length:
            raise SampleError(sample_id, f"{self.shard}: ends within a sample; {_REMEDY}")
        return content


@dataclass
class Array:
    """An array in a NumPy file inside a shard, of which one entry of the first axis is given at a time.

    part: the numbers. shape, dtype: of the whole array. block: the entries that were read last, and the first's index.
    """

    part: Part
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    block: tuple[int, np.ndarray] | None = None

    def __getitem__(self, index: int) -> np.ndarray:
        """Entry `index` of the first axis. Raises OSError or ValueError when the shard was changed."""
        if self.block is None or not 0 <= index - self.block[0] < len(self.block[1]):
            self.block = index, self._read(index)
        first, entries = self.block
        return entries[index - first]

    def _read(self, index: int) -> np.ndarray:
        """Entry `index` and those after it, up to a block: opening a file takes longer than reading a small entry."""
        length = math.prod(self.shape[1:]) * self.dtype.itemsize
        count = min(max(_BLOCK // max(length, 1), 1), self.shape[0] - index)
        with self.part.shard.open("rb") as file:
            file.seek(self.part.offset + index * length)
            content = file.read(count * length)
        return np.frombuffer(content, self.dtype).reshape(count, *self.shape[1:])


def list_shards(folder: Path, pattern: str) -> list[Path]:
    """The shards in a folder in the order of their numbers.

    Args:
        folder: where they lie; it may be missing, and then it has none.
        pattern: regular expression of their names, whose first group is the number.

    Raises:
        DataMissingError: a number is missing. (Nothing tells how many there should be.)
    """
    if not folder.is_dir():
        return []
    named = ((re.fullmatch(pattern, path.name), path) for path in folder.iterdir())
    found = {int(match[1]): path for match, path in named if match}
    missing = next((number for number in range(max(found, default=-1) + 1) if number not in found), None)
    if missing is not None:
        raise DataMissingError(f"{folder}: shard {missing} of {max(found) + 1} is missing; copy all of them")
    return [found[number] for number in sorted(found)]


def index_shards(shards: list[Path]) -> dict[str, dict[str, Part]]:
    """Key -> name of the part -> place, in the order of the shards.

    Raises:
        UsageError: a shard is damaged, or a key is in it twice.
        DataMissingError: a shard cannot be read.
    """
    found: dict[str, dict[str, Part]] = {}
    for shard in shards:
        own: dict[str, dict[str, Part]] = {}
        try:
            check_regular(shard)
            size = shard.stat().st_size
            # Not "r:*": a compressed shard could not be read in place.
            with tarfile.open(shard, "r:") as archive:
                for member in archive:
                    if not member.isreg():  # links and devices hold no sample
                        continue
                    if member.offset_data + member.size > size:
                        raise UsageError(f"{shard}: ends within '{member.name}', it was cut; {_REMEDY}")
                    key, _, part = member.name.rpartition("/")[2].partition(".")
                    own.setdefault(key, {})[part] = Part(shard, member.offset_data, member.size)
        except (tarfile.TarError, EOFError, ValueError) as error:
            raise UsageError(f"{shard}: is not a whole tar file ({one_line(error)}); {_REMEDY}") from error
        except OSError as error:
            raise DataMissingError(f"{shard}: cannot be read ({error.strerror}); {_REMEDY}") from error
        if twice := own.keys() & found.keys():
            raise UsageError(f"{shard}: sample '{min(twice)}' is also in another shard; keep shards of one conversion")
        found |= own
    return found


def open_array(part: Part, name: str, sample_id: str) -> Array:
    """The array of a NumPy file; only its head is read.

    Args:
        part: the file.
        name: what messages call it.
        sample_id: for messages.

    Raises:
        SampleError: it is no NumPy file, holds Python objects, or is not stored row by row.
    """
    try:
        check_regular(part.shard)
        with part.shard.open("rb") as file:
            file.seek(part.offset)
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file, max_header_size=_LARGEST_HEAD)
            start = file.tell()
    except OSError as error:
        raise SampleError(sample_id, f"{part.shard}: cannot be read ({error.strerror}); {_REMEDY}") from error
    except (ValueError, TypeError, SyntaxError) as error:
        text = f"{name} is not a NumPy array ({one_line(error)})"
        raise SampleError(sample_id, f"{part.shard}: {text}; {_REMEDY}") from error
    # Objects would have to be unpickled, which runs code.
    if dtype.hasobject or fortran:
        what = "holds Python objects" if dtype.hasobject else "is stored column by column"
        raise SampleError(sample_id, f"{part.shard}: {name} {what}, expected numbers row by row; {_REMEDY}")
    length = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    rest = part.length - (start - part.offset)
    if length != rest:
        raise SampleError(sample_id, f"{part.shard}: {name} has {rest} bytes, its head says {length}; {_REMEDY}")
    return Array(Part(part.shard, start, length), shape, dtype)
