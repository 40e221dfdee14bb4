"""TFRecord files of `tf.train.Example` messages, read and written without TensorFlow and protobuf.

A file is a sequence of records; numbers are little-endian (TensorFlow, `core/lib/io/record_writer.h`):

    uint64 length | uint32 masked CRC-32C of the length | length bytes | uint32 masked CRC-32C of these bytes

    for offset, length in index_records(path):         # reads 12 bytes of each record
        features = decode_example(read_record(path, offset), names=("video",))

Both checksums are always compared. A damaged file raises ValueError with the name of the file and the byte.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ...core.files import check_regular

Values = list[bytes] | np.ndarray
"""Values of a feature: byte strings, or (N,) int64, or (N,) float32."""

_HEADER = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")

_POLYNOMIAL = 0x82F63B78
"""Castagnoli's polynomial, bits reversed."""

_LANE = 256
"""Bytes in one lane of the vectorised checksum."""


def crc32c(data: bytes | memoryview) -> int:
    """CRC-32C (RFC 3720, appendix B.4) of `data`: by `google_crc32c` where it is installed, which is far faster."""
    library = _library()
    return crc32c_numpy(data) if library is None else int(library.value(bytes(data)))


@functools.cache
def _library() -> Any:
    """The module google_crc32c with its C code; None without it."""
    try:
        import google_crc32c
    except ImportError:
        return None
    return google_crc32c if google_crc32c.implementation == "c" else None


def crc32c_numpy(data: bytes | memoryview) -> int:
    """CRC-32C without a library.

    The bytes are cut into lanes of 256 bytes. All lanes advance together, eight bytes at a time (slicing-by-8). The
    registers of neighbouring lanes are then joined pairwise, which works because a CRC is linear over GF(2).
    """
    if len(data) < _LANE:
        return _crc32c_bytewise(data)
    lanes = -(-len(data) // _LANE)
    padded = np.zeros(lanes * _LANE, dtype=np.uint8)
    content = padded[lanes * _LANE - len(data) :]
    content[:] = np.frombuffer(data, dtype=np.uint8)
    # CRC-32C starts with a register of ones. Inverting the first 32 bits of the data and starting with zeros is the
    # same, and a register of zeros stays zero while it reads the zero bytes of the padding in front.
    content[:4] ^= 0xFF
    tables = _tables()
    register = np.zeros(lanes, dtype=np.uint32)
    # Each step takes two 32-bit words of every lane; table k advances a byte that has k more bytes behind it.
    for first, high in np.ascontiguousarray(padded.view("<u4").reshape(lanes, -1, 2).transpose(1, 2, 0)):
        low = first ^ register
        register[:] = tables[7][low & 0xFF]
        for table, word, shift in ((6, low, 8), (5, low, 16), (4, low, 24), (3, high, 0), (2, high, 8), (1, high, 16)):
            register ^= tables[table][(word >> shift) & 0xFF]
        register ^= tables[0][high >> 24]
    return _join(register) ^ 0xFFFFFFFF


def _join(register: np.ndarray) -> int:
    """The register after all lanes, from the registers (N,) uint32 that each lane has alone."""
    level = 0
    while len(register) > 1:
        # A lane of zeros in front changes nothing and makes the number even. Each left register is then advanced over
        # as many zero bytes as its right neighbour has read: by now that is 2^level lanes.
        if len(register) % 2:
            register = np.concatenate([np.zeros(1, dtype=np.uint32), register])
        register = _through(_zero_bytes(level), register[0::2]) ^ register[1::2]
        level += 1
    return int(register[0])


def masked_crc32c(data: bytes | memoryview) -> int:
    """The checksum as TFRecord stores it: rotated, plus a constant: a CRC of data that holds CRCs is weak."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _crc32c_bytewise(data: bytes | memoryview) -> int:
    """CRC-32C of few bytes, without numpy: record heads have eight."""
    table = _byte_table()
    register = 0xFFFFFFFF
    for byte in bytes(data):
        register = register >> 8 ^ table[(register ^ byte) & 0xFF]
    return register ^ 0xFFFFFFFF


@functools.cache
def _tables() -> np.ndarray:
    """(8, 256) uint32: entry [k, b] is the register after byte b and k zero bytes."""
    first: np.ndarray = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        first = first >> 1 ^ np.where(first & 1, np.uint32(_POLYNOMIAL), np.uint32(0))
    tables = [first]
    for _ in range(7):
        tables.append(tables[-1] >> 8 ^ first[tables[-1] & 0xFF])
    return np.stack(tables)


@functools.cache
def _byte_table() -> list[int]:
    return [int(value) for value in _tables()[0]]


@functools.cache
def _zero_bytes(level: int) -> np.ndarray:
    """(4, 256) uint32: entry [k, b] is byte b at place k of a register after 256 * 2^level zero bytes."""
    if level:
        half = _zero_bytes(level - 1)
        return np.stack([_through(half, row) for row in half])
    register = np.arange(256, dtype=np.uint32)[None] << np.arange(0, 32, 8, dtype=np.uint32)[:, None]
    for _ in range(_LANE):
        register = register >> 8 ^ _tables()[0][register & 0xFF]
    return register


def _through(operator: np.ndarray, register: np.ndarray) -> np.ndarray:
    """Apply a linear map, given by its table for each byte, to registers (N,) uint32."""
    result = operator[0][register & 0xFF]
    for byte in (1, 2, 3):
        result ^= operator[byte][register >> (8 * byte) & 0xFF]
    return result


def write_records(path: Path, records: Iterable[bytes]) -> list[int]:
    """Write a file of records; returns the length of each in bytes."""
    lengths = []
    with open(path, "wb") as file:
        for data in records:
            head = len(data).to_bytes(8, "little")
            file.write(head + _CHECKSUM.pack(masked_crc32c(head)))
            file.write(data)
            file.write(_CHECKSUM.pack(masked_crc32c(data)))
            lengths.append(len(data))
    return lengths


def index_records(path: Path) -> Iterator[tuple[int, int]]:
    """Offset and length in bytes of each record. Only the heads are read, and their checksums compared.

    Raises ValueError, naming the offset of the record, when a head is damaged or the file ends too early.
    """
    check_regular(path)
    size = path.stat().st_size
    with open(path, "rb") as file:
        offset = 0
        while offset < size:
            length = _read_length(file, path, offset, size)
            yield offset, length
            offset += _HEADER.size + length + _CHECKSUM.size


def read_record(path: Path, offset: int) -> bytes:
    """The bytes of the record at an offset of `index_records`. Raises ValueError, naming the offset, when damaged."""
    check_regular(path)
    with open(path, "rb") as file:
        length = _read_length(file, path, offset, path.stat().st_size)
        data = file.read(length)
        (stored,) = _CHECKSUM.unpack(file.read(_CHECKSUM.size))
    if masked_crc32c(data) != stored:
        raise ValueError(f"{path}: record at byte {offset}: wrong checksum of its {length} bytes; the file is damaged")
    return data


def _read_length(file: BinaryIO, path: Path, offset: int, size: int) -> int:
    """Length in bytes of the record at an offset; `size` is that of the file. Leaves the file at its content."""
    file.seek(offset)
    head = file.read(_HEADER.size)
    if len(head) < _HEADER.size:
        raise ValueError(f"{path}: record at byte {offset}: the file ends in its head, at byte {size}; it was cut")
    length, stored = _HEADER.unpack(head)
    if masked_crc32c(head[:8]) != stored:
        raise ValueError(
            f"{path}: record at byte {offset}: wrong checksum of its length; damaged, or not a TFRecord file"
        )
    end = offset + _HEADER.size + length + _CHECKSUM.size
    if end > size:
        raise ValueError(f"{path}: record at byte {offset}: ends at byte {end}, the file at byte {size}; it was cut")
    return int(length)


def encode_example(features: Mapping[str, Sequence[bytes] | Sequence[int] | Sequence[float]]) -> bytes:
    """A `tf.train.Example` as bytes, features in the order of their names; numbers are packed.

    The type of the first value decides the kind of a feature; an empty list becomes a feature without values.
    """
    entries = []
    for name in sorted(features):
        values = features[name]
        kind = next((number for number, types in _KINDS if values and isinstance(values[0], types)), None)
        if kind is None:
            feature = b""
            if values:
                raise ValueError(
                    f"feature '{name}': values are {type(values[0]).__name__}, expected bytes, int or float"
                )
        elif kind == 1:
            feature = _field(1, b"".join(_field(1, bytes(value)) for value in values))  # type: ignore[arg-type]
        elif kind == 2:
            feature = _field(2, _field(1, np.asarray(values, dtype="<f4").tobytes()))
        else:
            # Negative numbers are stored as their two's complement of 64 bits.
            feature = _field(3, _field(1, b"".join(_varint(int(value) % 2**64) for value in values)))
        entries.append(_field(1, _field(1, name.encode()) + _field(2, feature)))
    return _field(1, b"".join(entries))


_KINDS: tuple[tuple[int, tuple[type, ...]], ...] = (
    (1, (bytes,)),
    (3, (int, np.integer)),
    (2, (float, np.floating)),
)
"""Field number in `tf.train.Feature`, and the Python types that are stored there."""


def _varint(value: int) -> bytes:
    """A number in protobuf's variable length: seven bits a byte, low ones first, the top bit set but in the last."""
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def _field(number: int, content: bytes) -> bytes:
    """A field of wire type 2, bytes with their length in front."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def decode_example(data: bytes, names: Collection[str] | None = None) -> dict[str, Values]:
    """Features of a `tf.train.Example` by name.

    Args:
        data: the message.
        names: features to decode, None for all. A name that is not in the message is left out of the result.

    Returns:
        The values of each feature; an empty list for a feature without values.

    Raises:
        ValueError: the bytes are not such a message.
    """
    features: dict[str, Values] = {}
    for table in _messages(memoryview(data), 1):
        for entry in _messages(table, 1):
            parts = {number: content for number, content in _fields(entry) if isinstance(content, memoryview)}
            try:
                name = bytes(parts.get(1, b"")).decode()
            except UnicodeDecodeError as error:
                raise ValueError("not a tf.train.Example: a feature's name is not UTF-8") from error
            if names is None or name in names:
                features[name] = _values(parts.get(2, memoryview(b"")))
    return features


def _values(feature: memoryview) -> Values:
    """The values of a `tf.train.Feature`."""
    for number, content in _fields(feature):
        if not isinstance(content, memoryview):
            continue
        parts = [part for index, part in _fields(content) if index == 1]
        if number == 1:
            return [bytes(part) for part in _messages(content, 1)]
        # Protobuf allows both: all numbers packed into one field, or one field for each number.
        packed = b"".join(part if isinstance(part, memoryview) else _varint(part) for part in parts)
        if number == 2:
            if len(packed) % 4:
                raise ValueError("not a tf.train.Example: a list of floats has a part of one")
            return np.frombuffer(packed, dtype="<f4")
        if number == 3:
            return _integers(packed)
    return []


def _integers(packed: bytes) -> np.ndarray:
    """The varints of a packed field as (N,) int64, decoded all at once."""
    digits = np.frombuffer(packed, dtype=np.uint8)
    last = np.flatnonzero(digits < 0x80)
    if not len(digits):
        return np.zeros(0, dtype=np.int64)
    starts = np.concatenate([[0], last[:-1] + 1]) if len(last) else np.zeros(1, dtype=np.int64)
    lengths = last - starts + 1
    # The last byte of a number is below 128. 64 bits take at most 10 bytes.
    if not len(last) or last[-1] != len(digits) - 1 or lengths.max() > 10:
        raise ValueError("not a tf.train.Example: a list of integers ends within one")
    place = np.arange(len(digits)) - np.repeat(starts, lengths)
    bits = (digits & 0x7F).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.add.reduceat(bits, starts).astype(np.int64)


def _messages(message: memoryview, number: int) -> Iterator[memoryview]:
    """Contents of those fields with this number that are byte strings."""
    for field, content in _fields(message):
        if field == number and isinstance(content, memoryview):
            yield content


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Number and content of each field of a message: an int for a varint, bytes for all other wire types."""
    position = 0
    while position < len(message):
        key, position = _read_varint(message, position)
        kind = key & 7
        if kind == 0:
            value, position = _read_varint(message, position)
            yield key >> 3, value
            continue
        if kind == 2:
            length, position = _read_varint(message, position)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4  # fixed64 and fixed32 carry no length
        else:
            raise ValueError(f"not a tf.train.Example: wire type {kind}")
        if position + length > len(message):
            raise ValueError("not a tf.train.Example: a field ends behind its message")
        yield key >> 3, message[position : position + length]
        position += length


def _read_varint(message: memoryview, position: int) -> tuple[int, int]:
    """The varint at a position, and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):  # at most 10 bytes
        if position >= len(message):
            break
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("not a tf.train.Example: a number does not end")
