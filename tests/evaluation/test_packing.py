"""What crosses from one process to another is the same, bit by bit."""

from __future__ import annotations

import numpy as np
import torch
from all_families import annotated

from ocl_bench.evaluation.packing import pack, unpack


def test_arrays_and_tensors_are_the_same_and_aligned() -> None:
    """Odd sizes, empty arrays, Fortran order, steps, and views of tensors."""
    given = {
        "odd": np.arange(7, dtype=np.uint8),
        "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        "empty": np.zeros((0, 4), np.float32),
        "strided": np.arange(20)[::3],
        "tensor": torch.arange(24.0).reshape(2, 3, 4),
        "turned": torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1),
    }
    content, sizes, arrays = pack(given)
    found = unpack((content, sizes, arrays.clone()))
    assert set(found) == set(given)
    for name, value in given.items():
        one, other = np.asarray(value), np.asarray(found[name])
        assert type(found[name]) is type(value) and one.dtype == other.dtype and np.array_equal(one, other), name
        assert other.flags.aligned and other.flags.writeable


def test_a_truth_with_instances_is_the_same() -> None:
    truth = annotated(1).reader[0].truth
    found = unpack(pack(truth))
    assert np.array_equal(found.labels, truth.labels) and np.array_equal(found.classes, truth.classes)
    assert found.instances == truth.instances and found.categories == truth.categories


def test_the_pickle_holds_no_pixels() -> None:
    """They would be copied several times on their way."""
    content, _, arrays = pack([torch.zeros(3, 64, 64), np.zeros((64, 64), np.int16)])
    assert len(content) < 1000 and len(arrays) == 3 * 64 * 64 * 4 + 64 * 64 * 2


def test_nothing_to_send_is_sent() -> None:
    assert unpack(pack(([], None))) == ([], None)
