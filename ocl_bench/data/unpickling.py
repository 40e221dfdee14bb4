"""Pickles of strangers, read without running any code: arrays, numbers, text, bytes and plain containers, nothing else.

A pickle is a program that may call any function. Here it can name only the few that NumPy's arrays need, and for these
it gets stand-ins of this file, not NumPy's own: those accept states that would make NumPy read foreign memory.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np

DTYPES = frozenset({"b1", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"})
"""Kinds of numbers that an array may hold."""

_DEEPEST = 50
"""Levels of containers in containers."""

_PUTS = ("PUT", "BINPUT", "LONG_BINPUT")
"""Instructions that remember a value at the place that they name. Picklers count the places from 0."""

_HARMLESS = 1000
"""Up to this place the memory does not matter, whoever counted."""

_CONTAINERS: dict[str, Callable[..., Any]] = {"set": set, "frozenset": frozenset, "bytes": lambda none: b""}
"""What protocols before 4 make by a call; bytes only where they are empty."""

_ARRAYS = frozenset(
    (f"numpy.{core}.{module}", name)
    for core in ("core", "_core")
    for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))
)
"""Modules of NumPy before and after version 2, and the functions that its pickles name."""


def load_plain(content: bytes) -> Any:
    """The value of a pickle.

    Returns:
        None, bool, int, float, str, bytes, NumPy arrays, and lists, tuples, sets and dicts of these.

    Raises:
        ValueError: the pickle names anything else, or is damaged.
    """
    try:
        _check_places(content)
        return _finish(_Plain(io.BytesIO(content)).load(), {}, 0)
    # Damaged bytes make the C code of pickle raise errors of nearly every kind, and ask for memory that is not there.
    except (Exception, MemoryError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(text) from error


def _check_places(content: bytes) -> None:
    """Raise ValueError where a value is remembered at a place that no pickle needs.

    The C code of pickle gets memory for all places up to it: five bytes can ask for 64 GiB.
    """
    for number, (opcode, place, _) in enumerate(pickletools.genops(content)):
        if opcode.name in _PUTS and isinstance(place, int) and place > max(number, _HARMLESS):
            raise ValueError(f"it remembers value {place} after {number} instructions")


class _Plain(pickle.Unpickler):
    """An unpickler that knows no function but the stand-ins below."""

    def find_class(self, module: str, name: str) -> Any:
        """A stand-in, a new one each time: a pickle may set attributes of what it is given."""
        if (module, name) in _ARRAYS:
            makers: dict[str, Callable[..., Any]] = {
                "_reconstruct": lambda *arguments: _Array(),
                "scalar": lambda kind, content: _Array((1, (), kind, False, content)),
                "_frombuffer": lambda content, kind, shape, order: _Array((1, shape, kind, order == "F", content)),
            }
            return makers[name]
        if module in ("builtins", "__builtin__") and name in _CONTAINERS:
            return lambda entries=(): _CONTAINERS[name](entries)
        if (module, name) == ("numpy", "dtype"):
            return lambda code, align=False, copy=True: _Kind(code)
        if (module, name) == ("numpy", "ndarray"):
            return lambda *arguments: None  # only the first argument of _reconstruct, which is not used
        if (module, name) == ("_codecs", "encode"):
            return lambda text, encoding: _latin1(text, encoding)
        raise ValueError(f"it names {module}.{name}, which is no array, number, text or plain container")


class _Kind:
    """The dtype of an array."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any) -> None:
        self.code, self.order = code, "<"

    def __setstate__(self, state: Any) -> None:
        # (version, byte order, ...): everything after it is of structures, which are refused by their code.
        self.order = ">" if state[1] == ">" else "<"

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy's dtype. Raises ValueError for one that is no plain number."""
        if type(self.code) is not str or self.code not in DTYPES:
            raise ValueError(f"it has an array of {self.code!r}, expected numbers")
        return np.dtype(f"{self.order}{self.code}")


class _Array:
    """An array whose state may not be known yet: (version, shape, kind, whether column by column, bytes)."""

    __slots__ = ("state",)

    def __init__(self, state: tuple[Any, ...] | None = None) -> None:
        self.state = state

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def value(self) -> np.ndarray:
        """The array. Raises ValueError or TypeError when the state is not that of one."""
        if type(self.state) is not tuple or len(self.state) != 5:
            raise ValueError("it has an array without content")
        _, shape, kind, columns, content = self.state
        if type(kind) is not _Kind or type(shape) is not tuple or not isinstance(content, bytes | bytearray):
            raise ValueError("it has an array whose content is not bytes")
        # frombuffer and reshape check the number of bytes against the shape.
        array = np.frombuffer(bytes(content), kind.dtype).reshape(shape, order="F" if columns is True else "C")
        return array.astype(array.dtype.newbyteorder("="), copy=False)


def _latin1(text: Any, encoding: Any) -> bytes:
    """Bytes as protocol 2 writes them."""
    if type(text) is not str or encoding != "latin1":
        raise ValueError("it has text in an encoding that pickles do not use")
    return text.encode("latin1")


def _finish(value: Any, done: dict[int, Any], depth: int) -> Any:
    """The value with arrays in place of `_Array`. done: by id, what is there several times is finished once."""
    if depth > _DEEPEST:
        raise ValueError("it is nested too deeply")
    if id(value) in done:
        return done[id(value)][1]
    kind = type(value)
    if kind in (type(None), bool, int, float, str, bytes):
        return value
    if kind is bytearray:
        return bytes(value)
    if kind is _Array:
        array = value.value()
        finished = array if array.shape else array.item()
    elif kind in (list, tuple, set, frozenset):
        finished = kind(_finish(entry, done, depth + 1) for entry in value)
    elif kind is dict:
        finished = {_finish(key, done, depth + 1): _finish(entry, done, depth + 1) for key, entry in value.items()}
    else:
        raise ValueError(f"it holds a {kind.__name__}, which is no array, number, text or plain container")
    done[id(value)] = (value, finished)  # the value too, so that its id is not given to another one
    return finished
