"""TFRecord files: checksums of RFC 3720, bytes that TensorFlow and TensorBoard wrote, damaged and cut files."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from video_layout_trees import plain_crc32c

from ocl_bench.data.readers import tfrecord
from ocl_bench.data.readers.tfrecord import (
    crc32c,
    crc32c_numpy,
    decode_example,
    encode_example,
    index_records,
    read_record,
    write_records,
)

GOAT = (
    b"\nR\n\x11\n\x08feature0\x12\x05\x1a\x03\n\x01\x00\n\x11\n\x08feature1\x12\x05\x1a\x03\n\x01\x04\n\x14\n\x08feature2"
    b"\x12\x08\n\x06\n\x04goat\n\x14\n\x08feature3\x12\x08\x12\x06\n\x04[\xd3|?"
)
"""The message of TensorFlow's tutorial "TFRecord and tf.train.Example", as tf.train.Example serialises it."""

GOAT_RECORD = b"T\x00\x00\x00\x00\x00\x00\x00_QE\x87" + GOAT + b"\xb5$\xe9\xbe"
"""It as tensorboard 2.21's RecordWriter writes it."""


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_checksum_of_the_examples_of_rfc_3720(data: bytes, expected: int) -> None:
    assert crc32c(data) == crc32c_numpy(data) == expected


@pytest.mark.parametrize("length", [1, 4, 255, 256, 257, 511, 512, 513, 768, 1025, 5000, 20011])
def test_checksum_agrees_with_the_definition_at_the_edges_of_lanes(length: int) -> None:
    data = np.random.default_rng(length).bytes(length)
    for function in (crc32c, crc32c_numpy):  # with the library, where it is installed, and without it
        assert function(data) == plain_crc32c(data)
        assert function(bytes(length)) == plain_crc32c(bytes(length)), "leading zeros count, too"
        assert function(memoryview(data)[1:]) == plain_crc32c(data[1:])


def test_checksum_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfrecord, "_library", lambda: None)
    assert crc32c(b"123456789") == 0xE3069283


def test_the_library_is_used_where_it_is_installed() -> None:
    library = pytest.importorskip("google_crc32c")
    assert tfrecord._library() is library


def test_checksum_is_fast_enough_for_videos() -> None:
    data = np.random.default_rng(0).bytes(4_000_000)
    crc32c_numpy(data)
    took = []
    for _ in range(3):
        start = time.perf_counter()
        crc32c_numpy(data)
        took.append(time.perf_counter() - start)
    assert len(data) / min(took) > 15e6, "about 160 MB/s alone on a processor of 2023, 8 MB/s byte by byte"


def test_bytes_are_those_that_tensorflow_writes(tmp_path: Path) -> None:
    goat = {"feature3": [0.9876], "feature1": [4], "feature2": [b"goat"], "feature0": [0]}
    assert encode_example(goat) == GOAT
    path = tmp_path / "goat.tfrecord"
    assert write_records(path, [GOAT]) == [len(GOAT)]
    assert path.read_bytes() == GOAT_RECORD
    assert list(index_records(path)) == [(0, len(GOAT))] and read_record(path, 0) == GOAT
    decoded = decode_example(GOAT)
    assert set(decoded) == set(goat) and decoded["feature2"] == [b"goat"]
    assert decoded["feature1"].tolist() == [4] and decoded["feature3"].tolist() == [np.float32(0.9876)]  # type: ignore[union-attr]


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=12),
        st.one_of(
            st.lists(st.binary(max_size=40), max_size=4),
            st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20),
            st.lists(st.floats(width=32, allow_nan=False), max_size=20),
        ),
        max_size=5,
    )
)
def test_examples_come_back(features: dict[str, list[bytes] | list[int] | list[float]]) -> None:
    decoded = decode_example(encode_example(features))
    assert {name: list(values) for name, values in decoded.items()} == features
    for name in features:
        assert set(decode_example(encode_example(features), names=(name, "another"))) == {name}


def test_numbers_that_are_not_packed_are_read() -> None:
    """Proto2 writers give each number a field of its own: here 3, 300, and the float 1.0."""
    integers = b"\x1a\x05\x08\x03\x08\xac\x02"
    floats = b"\x12\x05\x0d\x00\x00\x80\x3f"
    entries = b"".join(
        b"\n" + bytes([len(feature) + 5]) + b"\n\x01" + name + b"\x12" + bytes([len(feature)]) + feature
        for name, feature in ((b"i", integers), (b"f", floats))
    )
    decoded = decode_example(b"\n" + bytes([len(entries)]) + entries)
    assert list(decoded["i"]) == [3, 300] and list(decoded["f"]) == [1.0]


def test_records_are_found_without_being_read(tmp_path: Path) -> None:
    path, records = tmp_path / "three.tfrecord", [b"first", b"", bytes(1000)]
    write_records(path, records)
    index = list(index_records(path))
    assert index == [(0, 5), (21, 0), (37, 1000)]
    assert [read_record(path, offset) for offset, _ in index] == records
    content = bytearray(path.read_bytes())
    content[60] ^= 1
    path.write_bytes(content)
    assert list(index_records(path)) == index, "an index looks at heads only"
    assert read_record(path, 0) == b"first"
    with pytest.raises(ValueError, match=r"three.tfrecord: record at byte 37: wrong checksum of its 1000 bytes"):
        read_record(path, 37)


def test_every_cut_and_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "cut.tfrecord"
    records = [b"first", b"second"]
    write_records(path, records)
    whole = path.read_bytes()
    for end in range(1, len(whole)):
        path.write_bytes(whole[:end])
        at = 0 if end < 21 else 21
        if end == 21:
            assert [read_record(path, offset) for offset, _ in index_records(path)] == records[:1]
            continue
        with pytest.raises(ValueError, match=rf"cut.tfrecord: record at byte {at}: .*at byte {end}; it was cut"):
            list(index_records(path))
        with pytest.raises(ValueError, match=rf"record at byte {at}: .*it was cut"):
            read_record(path, at)
    for position in range(len(whole)):
        content = bytearray(whole)
        content[position] ^= 0x10
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"record at byte {0 if position < 21 else 21}: wrong checksum"):
            for offset, _ in index_records(path):
                read_record(path, offset)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.tfrecord"
    path.write_text("This is no TFRecord file at all.")
    with pytest.raises(ValueError, match="record at byte 0: wrong checksum of its length; damaged, or not a TFRecord"):
        list(index_records(path))
    path.write_bytes(b"")
    assert list(index_records(path)) == []


@pytest.mark.parametrize(
    "data",
    [
        GOAT[:-1],
        GOAT[:40],
        b"\x0b",  # a group
        b"\xff" * 12,  # a number that does not end
        b"\n\x03\n\x05a",  # an entry longer than its message
        b"\n\x08\n\x06\n\x01a\x12\x01\x12",  # a feature without length
        b"\n\x0c\n\x0a\n\x01a\x12\x05\x1a\x03\n\x01\x80",  # an integer that does not end
        b"\n\x0d\n\x0b\n\x01a\x12\x06\x12\x04\n\x02\x00\x00",  # half a float
        b"\n\x07\n\x05\n\x01\xff\x12\x00",  # a name that is no text
    ],
)
def test_bytes_that_are_no_example_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"not a tf\.train\.Example"):
        decode_example(data)


def test_values_of_other_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="feature 'name': values are str, expected bytes, int or float"):
        encode_example({"name": ["text"]})  # type: ignore[dict-item]
