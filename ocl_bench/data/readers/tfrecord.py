"""TFRecord files of `tf.train.Example` messages, read and written without TensorFlow and protobuf.

A file is a row of records; numbers are little-endian (TensorFlow, `core/lib/io/record_writer.h`):

    uint64 length | uint32 masked CRC-32C of the length | length bytes | uint32 masked CRC-32C of these bytes

    for offset, length in index_records(path):         # reads 12 bytes of each record
        features = decode_example(read_record(path, offset), names=("video",))

Both checksums are always compared. Whatever is wrong with a file is a ValueError that names it and the byte.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

Values = list[bytes] | np.ndarray
"""Values of a feature: byte strings, or (N,) int64, or (N,) float32."""

_HEADER = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")

_POLYNOMIAL = 0x82F63B78
"""Castagnoli's polynomial, bits reversed."""

_LANE = 256
"""Bytes that one lane of the vectorised checksum takes."""


def crc32c(data: bytes | memoryview) -> int:
    """CRC-32C (RFC 3720, appendix B.4) of `data`.

    The bytes are cut into lanes of 256, which one row of numpy operations advances by eight bytes at a time
    (slicing-by-8); the registers of neighbouring lanes are then joined pairwise, as a CRC is linear over GF(2).
    """
    if len(data) < _LANE:
        return _crc32c_bytewise(data)
    lanes = -(-len(data) // _LANE)
    padded = np.zeros(lanes * _LANE, dtype=np.uint8)
    content = padded[lanes * _LANE - len(data) :]
    content[:] = np.frombuffer(data, dtype=np.uint8)
    # A register that starts with ones is one that starts with zeros, the first 32 bits inverted: and that one may as
    # well have read any number of zero bytes before.
    content[:4] ^= 0xFF
    tables = _tables()
    register = np.zeros(lanes, dtype=np.uint32)
    for first, high in np.ascontiguousarray(padded.view("<u4").reshape(lanes, -1, 2).transpose(1, 2, 0)):
        low = first ^ register
        register[:] = tables[7][low & 0xFF]
        for table, word, shift in ((6, low, 8), (5, low, 16), (4, low, 24), (3, high, 0), (2, high, 8), (1, high, 16)):
            register ^= tables[table][(word >> shift) & 0xFF]
        register ^= tables[0][high >> 24]
    return _join(register) ^ 0xFFFFFFFF


def _join(register: np.ndarray) -> int:
    """The register after all lanes, from one (N,) uint32 after each."""
    level = 0
    while len(register) > 1:
        if len(register) % 2:
            register = np.concatenate([np.zeros(1, dtype=np.uint32), register])
        register = _through(_zero_bytes(level), register[0::2]) ^ register[1::2]
        level += 1
    return int(register[0])


def masked_crc32c(data: bytes | memoryview) -> int:
    """The checksum as TFRecord stores it: rotated and shifted, so that checksums of checksums stay harmless."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _crc32c_bytewise(data: bytes | memoryview) -> int:
    table = _byte_table()
    register = 0xFFFFFFFF
    for byte in bytes(data):
        register = register >> 8 ^ table[(register ^ byte) & 0xFF]
    return register ^ 0xFFFFFFFF


@functools.cache
def _tables() -> np.ndarray:
    """(8, 256) uint32: the register after byte b and k zero bytes is entry [k, b]."""
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
    """(4, 256) uint32: what 256 * 2^level zero bytes do to each byte of a register."""
    if level:
        half = _zero_bytes(level - 1)
        return np.stack([_through(half, row) for row in half])
    register = np.arange(256, dtype=np.uint32)[None] << np.arange(0, 32, 8, dtype=np.uint32)[:, None]
    for _ in range(_LANE):
        register = register >> 8 ^ _tables()[0][register & 0xFF]
    return register


def _through(operator: np.ndarray, register: np.ndarray) -> np.ndarray:
    """Apply a linear map, given for each byte, to registers (N,) uint32."""
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
    """Offset and length in bytes of each record, for `read_record`. Only heads are read, and their checksums compared.

    Raises ValueError, naming the offset of the record, for a damaged head and for a file that ends too early.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        offset = 0
        while offset < size:
            length = _read_length(file, path, offset, size)
            yield offset, length
            offset += _HEADER.size + length + _CHECKSUM.size


def read_record(path: Path, offset: int) -> bytes:
    """The record at an offset, both checksums compared. Raises ValueError, naming the offset, when it is damaged."""
    with open(path, "rb") as file:
        length = _read_length(file, path, offset, path.stat().st_size)
        data = file.read(length)
        (stored,) = _CHECKSUM.unpack(file.read(_CHECKSUM.size))
    if masked_crc32c(data) != stored:
        raise ValueError(f"{path}: record at byte {offset}: wrong checksum of its {length} bytes; the file is damaged")
    return data


def _read_length(file: BinaryIO, path: Path, offset: int, size: int) -> int:
    file.seek(offset)
    head = file.read(_HEADER.size)
    if len(head) < _HEADER.size:
        raise ValueError(f"{path}: record at byte {offset}: the file ends in its head, at byte {size}; it was cut")
    length, stored = _HEADER.unpack(head)
    if masked_crc32c(head[:8]) != stored:
        raise ValueError(f"{path}: record at byte {offset}: wrong checksum of its length; damaged, or no TFRecord file")
    end = offset + _HEADER.size + length + _CHECKSUM.size
    if end > size:
        raise ValueError(f"{path}: record at byte {offset}: ends at byte {end}, the file at byte {size}; it was cut")
    return int(length)


def encode_example(features: Mapping[str, Sequence[bytes] | Sequence[int] | Sequence[float]]) -> bytes:
    """A `tf.train.Example` as bytes, features in the order of their names; numbers are packed.

    The first value of a list decides its kind; an empty list is a feature without values, as TensorFlow has it.
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
            feature = _field(3, _field(1, b"".join(_varint(int(value) % 2**64) for value in values)))
        entries.append(_field(1, _field(1, name.encode()) + _field(2, feature)))
    return _field(1, b"".join(entries))


_KINDS: tuple[tuple[int, tuple[type, ...]], ...] = (
    (1, (bytes,)),
    (3, (int, np.integer)),
    (2, (float, np.floating)),
)
"""Field number in `tf.train.Feature` of what Python's types become."""


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def decode_example(data: bytes, names: Collection[str] | None = None) -> dict[str, Values]:
    """Features of a `tf.train.Example` by name; with `names`, only those of them that are there are decoded.

    A feature without values is an empty list. Raises ValueError when the bytes are no such message.
    """
    features: dict[str, Values] = {}
    for table in _messages(memoryview(data), 1):
        for entry in _messages(table, 1):
            parts = {number: content for number, content in _fields(entry) if isinstance(content, memoryview)}
            try:
                name = bytes(parts.get(1, b"")).decode()
            except UnicodeDecodeError as error:
                raise ValueError("not a tf.train.Example: a feature's name is no UTF-8") from error
            if names is None or name in names:
                features[name] = _values(parts.get(2, memoryview(b"")))
    return features


def _values(feature: memoryview) -> Values:
    for number, content in _fields(feature):
        if not isinstance(content, memoryview):
            continue
        parts = [part for index, part in _fields(content) if index == 1]
        if number == 1:
            return [bytes(part) for part in _messages(content, 1)]
        # Numbers may be packed into one field or be a field each.
        packed = b"".join(part if isinstance(part, memoryview) else _varint(part) for part in parts)
        if number == 2:
            if len(packed) % 4:
                raise ValueError("not a tf.train.Example: a list of floats has a part of one")
            return np.frombuffer(packed, dtype="<f4")
        if number == 3:
            return _integers(packed)
    return []


def _integers(packed: bytes) -> np.ndarray:
    """Packed varints as (N,) int64, all at once: seven bits a byte, low ones first, the last byte below 128."""
    digits = np.frombuffer(packed, dtype=np.uint8)
    last = np.flatnonzero(digits < 0x80)
    if not len(digits):
        return np.zeros(0, dtype=np.int64)
    starts = np.concatenate([[0], last[:-1] + 1]) if len(last) else np.zeros(1, dtype=np.int64)
    lengths = last - starts + 1
    if not len(last) or last[-1] != len(digits) - 1 or lengths.max() > 10:
        raise ValueError("not a tf.train.Example: a list of integers ends within one")
    place = np.arange(len(digits)) - np.repeat(starts, lengths)
    bits = (digits & 0x7F).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.add.reduceat(bits, starts).astype(np.int64)


def _messages(message: memoryview, number: int) -> Iterator[memoryview]:
    """Contents of the fields `number` that are byte strings."""
    for found, content in _fields(message):
        if found == number and isinstance(content, memoryview):
            yield content


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Numbers and contents of the fields of a message: byte strings (also of four and eight bytes), or varints."""
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
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"not a tf.train.Example: wire type {kind}")
        if position + length > len(message):
            raise ValueError("not a tf.train.Example: a field ends behind its message")
        yield key >> 3, message[position : position + length]
        position += length


def _read_varint(message: memoryview, position: int) -> tuple[int, int]:
    """The varint at a position, and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            break
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("not a tf.train.Example: a number does not end")
