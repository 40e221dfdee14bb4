"""Pickles of strangers: plain data come back exactly, and nothing that a pickle asks for is ever run."""

from __future__ import annotations

import collections
import io
import os
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pickles_with_code import Touching

from ocl_bench.data.unpickling import DTYPES, load_plain

PLAIN: tuple[Any, ...] = (
    None, True, 7, -(2**70), 0.5, "text", b"bytes", [1, [2]], (3, "a"), {"a": {"b": (None,)}}, {1, 2}, frozenset({3}),
)  # fmt: skip


def equal(first: Any, second: Any) -> bool:
    if isinstance(first, np.ndarray):
        return isinstance(second, np.ndarray) and first.dtype == second.dtype and np.array_equal(first, second)
    return bool(type(first) is type(second) and first == second)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_come_back(protocol: int) -> None:
    for value in PLAIN:
        assert equal(load_plain(pickle.dumps(value, protocol)), value)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("code", sorted(DTYPES))
def test_arrays_come_back(protocol: int, code: str) -> None:
    random = np.random.default_rng(0)
    for shape in ((), (0, 4), (5,), (2, 3, 4)):
        array = (random.random(shape) * 100).astype(code)
        found = load_plain(pickle.dumps({"a": array}, protocol))["a"]
        assert equal(found, array) if shape else found == array
    columns = np.asfortranarray((random.random((3, 4)) * 100).astype(code))
    swapped = columns.astype(columns.dtype.newbyteorder(">"))
    for array in (columns, swapped):
        assert equal(load_plain(pickle.dumps(array, protocol)), columns)
    assert load_plain(pickle.dumps(columns[1, 2], protocol)) == columns[1, 2], "a number of NumPy becomes Python's"


class System:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch /tmp/should-not-be-there",))


class Evaluated:
    def __reduce__(self) -> tuple[Any, ...]:
        return (eval, ("1 + 1",))


class Getattr:
    def __reduce__(self) -> tuple[Any, ...]:
        return (getattr, ("", "join"))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "hostile", [System(), Evaluated(), Getattr(), os.system, Path("a"), collections.OrderedDict(a=1), np.load, slice(3)]
)
def test_everything_else_is_refused(hostile: Any, protocol: int) -> None:
    for value in (hostile, {"image": b"", "more": [hostile]}):
        with pytest.raises(ValueError, match=r"it names \S+\.\S+, which is no array"):
            load_plain(pickle.dumps(value, protocol))


def test_nothing_runs(tmp_path: Path) -> None:
    content = pickle.dumps(Touching(tmp_path / "ran"))
    pickle.loads(content)
    assert (tmp_path / "ran").exists(), "the payload works where pickles are trusted"
    (tmp_path / "ran").unlink()
    with pytest.raises(ValueError):
        load_plain(content)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'touch /tmp/x'\ntR.",
        b"c__builtin__\neval\n(S'1'\ntR.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
        b"(S'true'\nios\nsystem\n.",  # INST
        b"cnumpy\nndarray\n.",
        b"cnumpy\nload\n.",
        b"cnumpy.core.multiarray\n_reconstruct\n.",  # a function itself is no value
        b"Pwhatever\n.",  # a persistent id
        b"\x82\x01.",  # an extension
        b"]q\x00h\x00a.",  # a list in itself
        b"",
        b"\x80",
        b"r\xff\xff\xff\x7f.",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.",  # 9 exabytes of bytes
    ],
)
def test_hand_made_pickles_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError):
        load_plain(content)


def test_objects_in_arrays_and_structures_are_refused() -> None:
    for array in (np.array([System()], object), np.zeros(2, "i4,f4"), np.array(["a"]), np.zeros(2, "M8[s]")):
        with pytest.raises(ValueError):
            load_plain(pickle.dumps(array))


def test_a_state_that_promises_more_bytes_is_refused() -> None:
    content = pickle.dumps(np.arange(6, dtype=np.uint8).reshape(2, 3), 2)
    assert content.count(b"K\x02K\x03\x86") == 1
    with pytest.raises(ValueError):
        load_plain(content.replace(b"K\x02K\x03\x86", b"K\xffK\xff\x86"))


def test_what_a_pickle_sets_does_not_outlive_it() -> None:
    """BUILD with (None, attributes) sets attributes of whatever stands before it, here of a stand-in."""
    setting = b"cnumpy\ndtype\nN}S'__defaults__'\n(S'O'\nS'O'\ntsN\x86b."
    assert "BUILD" in pickletools_names(setting)
    with pytest.raises(ValueError):
        load_plain(setting)
    assert equal(load_plain(pickle.dumps(np.arange(3))), np.arange(3))


def pickletools_names(content: bytes) -> set[str]:
    return {opcode.name for opcode, _, _ in pickletools.genops(io.BytesIO(content))}


def test_laughter_stays_small() -> None:
    """A list of two references to a list of two references ... is finished once for each list."""
    value: Any = []
    for _ in range(45):
        value = [value, value]
    found = load_plain(pickle.dumps(value))
    assert found[0] is found[1]
    for _ in range(20):
        value = [value]
    with pytest.raises(ValueError, match="nested too deeply"):
        load_plain(pickle.dumps(value))


@pytest.mark.parametrize("put", [b"r\x00\x00\x00\x10", b"p268435456\n"], ids=["LONG_BINPUT", "PUT"])
def test_a_place_far_beyond_the_pickle_is_refused_before_memory_is_taken(put: bytes) -> None:
    """The table of remembered values would get two entries for each number up to that place: here 4 GiB."""
    with pytest.raises(ValueError, match="remembers value 268435456"):
        load_plain(b"\x80\x02N" + put + b".")


def mutated(data: st.DataObject, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 6))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    return bytes(changed)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_pickles_give_plain_values_or_one_error(data: st.DataObject) -> None:
    value = {"image": b"abc", "segment": np.arange(12, dtype=np.uint8).reshape(3, 4), "s": np.uint8(3), "t": [1, "x"]}
    content = mutated(data, pickle.dumps(value, data.draw(st.integers(0, 5))))
    check: Callable[[Any], bool] = lambda found: isinstance(  # noqa: E731
        found, type(None) | bool | int | float | str | bytes | list | tuple | set | frozenset | dict | np.ndarray
    )
    try:
        assert check(load_plain(content))
    except ValueError as error:
        assert "\n" not in str(error)
