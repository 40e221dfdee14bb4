"""Features of another length than those of the other images: a head would repeat them, and say nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import torch

from ocl_bench.cards.names import get_task
from ocl_bench.core.errors import UsageError
from ocl_bench.core.types import Prediction, Truth
from ocl_bench.families import get_adapter
from ocl_bench.families.base import Head
from ocl_bench.families.heads.features import extracted
from ocl_bench.families.heads.matching import Objects
from ocl_bench.families.heads.slots import collect_slots

SHAPE = (8, 8)
LENGTH = 6


def truths(count: int) -> Sequence[Truth]:
    return [Truth(np.zeros(SHAPE, np.int16), classes=np.zeros(SHAPE, np.int16)) for _ in range(count)]


def tokens(*shapes: Sequence[int]) -> Iterator[tuple[Sequence[Truth], Prediction]]:
    return ((truths(2), Prediction(tokens=torch.ones(2, *shape))) for shape in shapes)


def slots(*lengths: int) -> Iterator[tuple[Sequence[Truth], Prediction]]:
    for length in lengths:
        masks = torch.zeros(2, *SHAPE, dtype=torch.int64)
        yield truths(2), Prediction(masks=masks, slots=torch.ones(2, 3, length), mask_source="decoder")


def one_object(truth: Truth, segments: np.ndarray, count: int) -> Objects:
    del truth, segments
    overlap = np.zeros((1, count))
    overlap[0, 0] = 1
    return Objects(np.array([1]), np.zeros((1, 4), np.float32), overlap)


@pytest.mark.parametrize("second", [(1, 4, 4), (LENGTH, 1, 1), (5, 4, 4), (LENGTH, 4, 8)], ids=str)
def test_tokens_of_a_fit_split_have_one_shape(second: tuple[int, int, int], tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path))
    with extracted(tokens((LENGTH, 4, 4), (LENGTH, 4, 4)), 4, 8) as found:
        assert found is not None and found.tokens.shape == (4, LENGTH, 4, 4)
    wrong = r"Prediction\.tokens has .* numbers for one image and 6 x 4 x 4 for another"
    with pytest.raises(UsageError, match=wrong), extracted(tokens((LENGTH, 4, 4), second), 4, 8):
        pass


@pytest.mark.parametrize("second", [1, 5])
def test_slots_of_a_fit_split_have_one_length(second: int) -> None:
    assert collect_slots(slots(LENGTH, LENGTH), one_object, 0.5, unmatched=False).features.shape == (4, LENGTH)
    with pytest.raises(UsageError, match=rf"Prediction\.slots has {second} numbers for one image and 6 for another"):
        collect_slots(slots(LENGTH, second), one_object, 0.5, unmatched=False)


PERCEPTRON: Head = {
    "mean": torch.zeros(LENGTH),
    "scale": torch.ones(LENGTH),
    "weight1": torch.ones(4, LENGTH),
    "bias1": torch.zeros(4),
    "weight2": torch.ones(7, 4),
    "bias2": torch.zeros(7),
    "categories": torch.tensor([1, 2]),
}
LINEAR: Head = {
    "mean": torch.zeros(LENGTH),
    "scale": torch.ones(LENGTH),
    "weight": torch.ones(3, LENGTH),
    "bias": torch.zeros(3),
}
SOFT = torch.full((2, 3, *SHAPE), 1 / 3)


def of_slots(length: int) -> Prediction:
    return Prediction(masks=SOFT, slots=torch.ones(2, 3, length), mask_source="decoder")


def of_tokens(length: int) -> Prediction:
    return Prediction(tokens=torch.ones(2, length, 4, 4))


@pytest.mark.parametrize("length", [1, 5])
@pytest.mark.parametrize(
    ("task", "head", "prediction"),
    [
        ("coco-recognition", PERCEPTRON, of_slots),
        ("coco-detection-slot", PERCEPTRON, of_slots),
        ("coco-detection-dense", PERCEPTRON, of_tokens),
        ("voc-segmentation", LINEAR, of_tokens),
        ("cocostuff-segmentation", {"centres": torch.ones(3, LENGTH)}, of_tokens),
    ],
    ids=["recognition", "slots", "dense", "linear", "k-means"],
)
def test_what_is_scored_is_as_long_as_what_the_head_was_fitted_on(
    task: str, head: Head, prediction: Callable[[int], Prediction], length: int
) -> None:
    adapter = get_adapter(get_task(task)).with_head(head)  # type: ignore[attr-defined]
    assert len(adapter.outputs(prediction(LENGTH), [SHAPE] * 2, 8)) == 2
    with pytest.raises(UsageError, match=rf"Prediction\.\w+ has {length} numbers for one image and 6 for another"):
        adapter.outputs(prediction(length), [SHAPE] * 2, 8)
