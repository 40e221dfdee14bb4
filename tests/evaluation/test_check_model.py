"""`check-model` passes what works and names what does not, with a remedy."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_evaluation import HERE, SlotModel

from ocl_bench.cards.names import model_names
from ocl_bench.core.types import Batch, Prediction
from ocl_bench.evaluation.check_model import check_model, synthetic_images


def failed(model: Any) -> list[str]:
    return [check.name for check in check_model(model) if check.passed is False]


def test_a_good_model_passes() -> None:
    assert all(check.passed for check in check_model(HERE))


@pytest.mark.parametrize("name", ["single-slot", "grid", "random", "kmeans", "oracle", "patch-oracle"])
def test_bundled_floors_and_ceilings_pass(name: str) -> None:
    assert name in model_names() and failed(name) == []


class Changed(SlotModel):
    """The good model with one mistake."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        self.change = change

    def predict(self, batch: Batch) -> Prediction:
        return self.change(super().predict, batch)


def writes_into_the_image(predict: Any, batch: Batch) -> Prediction:
    answer = predict(batch)
    batch.image.sub_(0.5)
    return answer


def global_noise(predict: Any, batch: Batch) -> Prediction:
    masks = predict(batch).masks
    return Prediction(masks=(masks + torch.rand_like(masks)) / 2, mask_source="decoder")


def batch_statistics(predict: Any, batch: Batch) -> Prediction:
    masks = predict(batch).masks
    return Prediction(masks=masks / masks.max(), mask_source="decoder")


def position_in_batch(predict: Any, batch: Batch) -> Prediction:
    masks = predict(batch).masks
    return Prediction(masks=masks / torch.arange(1, len(batch) + 1).view(-1, 1, 1, 1), mask_source="decoder")


MISTAKES = {
    "predicts": lambda predict, batch: predict(None),
    "fields and shapes": lambda predict, batch: Prediction(masks=predict(batch).masks[0], mask_source="decoder"),
    "finite values": lambda predict, batch: Prediction(masks=predict(batch).masks * torch.nan, mask_source="decoder"),
    "input unchanged": writes_into_the_image,
    "deterministic": global_noise,
    "independent of order": position_in_batch,
    "independent of batch size": batch_statistics,
    "mask source": lambda predict, batch: Prediction(masks=predict(batch).masks),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_is_found_and_has_a_remedy(name: str) -> None:
    checks = {check.name: check for check in check_model(Changed(MISTAKES[name]))}
    assert list(checks) == list(MISTAKES)
    assert checks[name].passed is False and checks[name].remedy and "\n" not in checks[name].detail


def test_without_a_usable_prediction_the_rest_is_skipped() -> None:
    checks = check_model(Changed(MISTAKES["fields and shapes"]))
    assert [check.passed for check in checks] == [True, False, *[None] * 6]


def test_label_maps_are_checked_too() -> None:
    class Labels(SlotModel):
        def predict(self, batch: Batch) -> Prediction:
            return Prediction(masks=super().predict(batch).masks.argmax(1), mask_source="clusters")

    assert failed(Labels()) == []


def test_synthetic_images() -> None:
    images, truth = synthetic_images(4, 32)
    assert images.shape == (4, 3, 32, 32) and images.min() >= 0 and images.max() <= 1
    assert len({tuple(labels.ravel()) for labels in truth}) == 4 and all(labels.max() == 3 for labels in truth)
