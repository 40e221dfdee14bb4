"""Label maps and run-length codes, against pycocotools and against plain loops."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as rle

from ocl_bench.core.errors import SampleError
from ocl_bench.core.types import Instance
from ocl_bench.data.labels import (
    Runs,
    class_regions,
    distinct,
    label_map,
    narrowed,
    region_codes,
    renumbered,
    run_length,
    unpack_runs,
)


def runs_of(mask: np.ndarray) -> list[int]:
    """Run lengths of a mask, column by column, from a run of zeros on."""
    runs, value = [0], 0
    for pixel in mask.reshape(-1, order="F").tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (33, 1), (17, 23), (640, 480)])
def test_compressed_codes_are_unpacked_to_their_runs(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(shape[1])
    for share in (0, 0.001, 0.1, 0.5, 0.97, 1):
        mask = (random.random(shape) < share).astype(np.uint8)
        mask[: shape[0] // 3] = mask[:1]  # long and short runs, hence differences of either sign
        code = rle.encode(np.asfortranarray(mask))
        runs = runs_of(mask)
        assert unpack_runs(code["counts"]) == runs
        kinds = (code["counts"], code["counts"].decode(), runs)
        for counts in kinds:
            back = run_length({"size": list(shape), "counts": counts}, shape)
            assert back is not None and back["size"] == list(shape) and back["counts"] == code["counts"]


def test_every_cut_code_is_refused() -> None:
    mask = (np.random.default_rng(1).random((40, 50)) < 0.02).astype(np.uint8)
    counts = rle.encode(np.asfortranarray(mask))["counts"]
    for length in range(len(counts)):
        with pytest.raises(ValueError, match=r"ends within a number|its image has 2000"):
            run_length({"size": [40, 50], "counts": counts[:length]}, (40, 50))


@pytest.mark.parametrize("counts", [[5, 1.5, 93.5], [50, True, 49], [-1, 101], ["100"], [2**40, 100 - 2**40]])
def test_runs_are_whole_numbers_from_0(counts: list[object]) -> None:
    with pytest.raises(ValueError, match="not a whole number of 0 or more"):
        run_length({"size": [10, 10], "counts": counts}, (10, 10))


def test_nothing_is_no_mask() -> None:
    assert run_length(None, (4, 4)) is None and run_length([], (4, 4)) is None


@pytest.mark.parametrize("crowd", ["drop", "instance", "ignore"])
def test_label_maps_are_those_of_a_loop_over_pixels(crowd: str) -> None:
    random, shape = np.random.default_rng(3), (12, 15)
    for _ in range(20):
        masks = random.random((5, *shape)) < random.uniform(0, 0.6)
        crowds = random.random(5) < 0.4
        instances = tuple(
            Instance(k, (0, 0, 1, 1), rle.encode(np.asfortranarray(mask.astype(np.uint8))), 1, bool(one))
            for k, (mask, one) in enumerate(zip(masks, crowds, strict=True))
        )
        without_mask = Instance(9, (0, 0, 1, 1), None, 1)
        labels, categories = label_map((*instances, without_mask), shape, crowd)
        objects = [k for k in range(5) if crowd == "instance" or not crowds[k]]
        assert categories == tuple(objects) and labels.dtype == np.int16
        for y, x in np.ndindex(shape):
            owners = [label for label, k in enumerate(objects, start=1) if masks[k, y, x]]
            void = crowd == "ignore" and (masks[:, y, x] & crowds).any()
            assert labels[y, x] == (-2 if len(owners) > 1 else owners[0] if owners else -1 if void else 0)


def test_classes_become_regions() -> None:
    labels, categories = class_regions(np.array([[4, -1, 0], [4, 26, 0]], np.int16))
    assert categories == (0, 4, 26) and labels.tolist() == [[2, -1, 1], [2, 3, 1]]
    labels, categories = class_regions(np.full((2, 2), -1, np.int16))
    assert categories == () and (labels == -1).all()


@pytest.mark.parametrize("largest", [2, 20, 255, 70_000, 1 << 24])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int64])
def test_numbers_of_a_map_are_found_and_replaced_as_by_sorting(largest: int, kind: type[Any]) -> None:
    random = np.random.default_rng(largest)
    low = 0 if np.issubdtype(kind, np.unsignedinteger) else -2
    for shape in ((1, 1), (7, 9), (40, 30)):
        codes = random.integers(low, min(largest, np.iinfo(kind).max) + 1, shape).astype(kind).repeat(3, axis=1)
        numbers = distinct(codes)
        assert numbers.dtype == codes.dtype and np.array_equal(numbers, np.unique(codes))
        many = random.integers(-1, 30_000, len(numbers)).astype(np.int16)
        few = (np.arange(len(numbers)) % 250 - 1).astype(np.int64)
        for values in (many, few):
            found = renumbered(codes, numbers, values)
            assert found.dtype == values.dtype
            assert np.array_equal(found, values[np.searchsorted(numbers, codes)])


def test_a_number_may_be_void_in_class_regions() -> None:
    classes = np.array([[4, 0, 9], [4, 26, 0]], np.uint8)
    labels, categories = class_regions(classes, void=0)
    assert labels.tolist() == [[1, -1, 2], [1, 3, -1]] and categories == (4, 9, 26) and labels.dtype == np.int16


def test_an_empty_map_has_no_numbers() -> None:
    empty = np.zeros((0, 4), np.uint8)
    assert len(distinct(empty)) == 0
    assert renumbered(empty, distinct(empty), np.zeros(0, np.int16)).shape == (0, 4)


@pytest.mark.parametrize("count", [1, 5, 254, 300])
def test_codes_of_all_regions_are_those_of_their_masks(count: int) -> None:
    """Also of labels without a pixel, of -1 and -2, and beyond what a byte can hold."""
    random = np.random.default_rng(count)
    labels = random.integers(-2, count + 1, (9, 13)).repeat(3, 0).repeat(2, 1).astype(np.int16)
    codes = region_codes(labels, count)
    assert codes == [rle.encode(np.asfortranarray(labels == k + 1)) for k in range(count)]


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int32, np.int64])
def test_maps_whose_labels_fit_are_narrowed(kind: type[Any]) -> None:
    largest = min(int(np.iinfo(kind).max), 32767)
    labels = narrowed(np.array([[0, largest]], kind), "a", "a.png")
    assert labels.dtype == np.int16 and labels.tolist() == [[0, largest]]


@pytest.mark.parametrize(
    ("kind", "label"),
    [(np.uint16, 32768), (np.uint16, 40000), (np.int32, 65537), (np.int64, -40000), (np.uint64, 2**63)],
)
def test_a_label_that_does_not_fit_is_refused(kind: type[Any], label: int) -> None:
    with pytest.raises(SampleError, match=rf"^sample a: b/a\.png: label {label}, expected 0..32767"):
        narrowed(np.array([[0, label]], kind), "a", "b/a.png")


def test_more_objects_than_labels_are_refused() -> None:
    """The last label would be 32768."""
    counts = ([0, 1, 1], [1, 1])
    first, last = (run_length({"size": [1, 2], "counts": runs}, (1, 2)) for runs in counts)
    first, last = (Instance(1, (0.0, 0.0, 1.0, 1.0), code, 1.0) for code in (first, last))
    labels, _ = label_map((first,) * 32767 + (last,), (1, 2))
    assert labels.tolist() == [[-2, 32768]]
    with pytest.raises(SampleError, match="label 32768, expected"):
        narrowed(labels, "a", "a.json")


@pytest.mark.parametrize("shape", [(0, 4), (1, 1), (7, 9), (40, 3)])
def test_runs_of_two_maps_give_both_maps_back(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(5)
    maps = [random.integers(0, 2, shape, np.uint8), random.integers(-1, 2, shape, np.int16)]
    before = [one.copy() for one in maps]
    runs = Runs.of(*maps)
    for one, copy, values in zip(maps, before, runs.values, strict=True):
        assert np.array_equal(one, copy) and np.array_equal(runs.drawn(values), one)
        assert runs.drawn(values).dtype == one.dtype
    pairs = list(zip(*runs.values, strict=True))
    assert all(first != second for first, second in pairwise(pairs)), "no run is cut in two"
