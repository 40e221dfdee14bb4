"""What one process sends to another: a pickle, and beside it the bytes of all its arrays and tensors in one piece."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
import torch
from torch import Tensor

Packed = tuple[bytes, list[int], Tensor]
"""A pickle, the sizes of the arrays that it leaves out, and their bytes, which alone go through shared memory."""

_ALIGNMENT = 64


class _Pickler(pickle.Pickler):
    """Sends tensors as arrays, whose bytes pickle leaves out on request."""

    def reducer_override(self, value: Any) -> Any:
        """How a tensor is made again of an array."""
        return (torch.from_numpy, (value.numpy(),)) if isinstance(value, Tensor) else NotImplemented


def pack(value: Any) -> Packed:
    """A value with all its arrays in one tensor: one piece of shared memory and not one for each of them."""
    stream, arrays = io.BytesIO(), list[pickle.PickleBuffer]()
    _Pickler(stream, protocol=5, buffer_callback=arrays.append).dump(value)
    parts = [np.frombuffer(array.raw(), np.uint8) for array in arrays]
    whole = np.empty(sum(map(_room, map(len, parts))), np.uint8)
    place = 0
    for part in parts:
        whole[place : place + len(part)] = part
        place += _room(len(part))
    return stream.getvalue(), [len(part) for part in parts], torch.from_numpy(whole)


def unpack(packed: Packed) -> Any:
    """The value; its arrays are views."""
    content, sizes, tensor = packed
    whole, place = memoryview(tensor.numpy().data), 0
    arrays = []
    for size in sizes:
        arrays.append(whole[place : place + size])
        place += _room(size)
    return pickle.loads(content, buffers=arrays)


def _room(size: int) -> int:
    """Bytes that an array takes, so that the next one is aligned."""
    return -(-size // _ALIGNMENT) * _ALIGNMENT
