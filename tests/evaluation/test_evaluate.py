"""`evaluate` of live modules in any mode, and of modules that know nothing of the suite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from clevrtex_tree import write_scenes
from tiny_evaluation import SlotModel
from torch import Tensor, nn

from ocl_bench import check_model, evaluate
from ocl_bench.core.errors import DataMissingError, UsageError
from ocl_bench.core.types import Batch, Prediction
from ocl_bench.evaluation.model_diagnosis import left_as_found


@pytest.fixture
def limited(tmp_path: Path) -> dict[str, Any]:
    """Arguments of an evaluation that takes a second."""
    write_scenes(tmp_path / "data", 2)
    return {"results": tmp_path, "data_root": tmp_path / "data", "batch_size": 2, "device": "cpu", "progress": False}


class Holder:
    """No module itself; one part is frozen, as in a training."""

    def __init__(self) -> None:
        self.net = nn.Sequential(SlotModel(), nn.Dropout(0.5))
        self.net[1].eval()

    def eval(self) -> None:
        self.net.eval()

    def predict(self, batch: Batch) -> Prediction:
        prediction: Prediction = self.net[0].predict(batch)
        return prediction


def modes(model: Any) -> list[bool]:
    return [module.training for module in (model.net if isinstance(model, Holder) else model).modules()]


@pytest.mark.parametrize("build", [SlotModel, Holder])
def test_a_live_model_is_left_in_its_modes(build: Callable[[], Any], limited: dict[str, Any]) -> None:
    model = build()
    before = modes(model)
    assert any(before)
    evaluate(model, "clevrtex", **limited)
    assert modes(model) == before
    check_model(model)
    assert modes(model) == before


def test_modes_come_back_after_an_error(limited: dict[str, Any]) -> None:
    model = SlotModel()
    with pytest.raises(DataMissingError):
        evaluate(model, "clevrtex", **{**limited, "data_root": "/no/such/folder"})
    assert model.training and all(modes(model))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_live_model_is_left_on_its_device() -> None:
    model = nn.Sequential(SlotModel(), nn.BatchNorm2d(3))
    parameters = list(model.parameters())
    with left_as_found(model):
        model.to("cuda")
        assert {tensor.device.type for tensor in model.state_dict().values()} == {"cuda"}
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"cpu"}
    assert all(one is other for one, other in zip(parameters, model.parameters(), strict=True))


@dataclass
class Output:
    masks: Tensor


class Net(nn.Module):
    """A module that knows nothing of this suite: what it returns is up to `wrap`."""

    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.wrap = wrap
        self.shift = nn.Parameter(torch.tensor(0.1))

    def forward(self, images: Tensor) -> Any:
        first = (images.mean(1) + self.shift).clamp(0, 1)
        return self.wrap(torch.stack([first, 1 - first], 1))


@pytest.mark.parametrize(
    ("wrap", "masks_from"),
    [
        (lambda masks: {"masks": masks}, "masks"),
        (lambda masks: Output(masks), "masks"),
        (lambda masks: (None, masks), 1),
        (lambda masks: {"decoder": [Output(masks)]}, "decoder.-1.masks"),
        (lambda masks: masks.log(), lambda output: output.exp()),
    ],
)
def test_masks_of_a_plain_module_are_found(wrap: Any, masks_from: Any, limited: dict[str, Any]) -> None:
    net = Net(wrap)

    class Same:
        def predict(self, batch: Batch) -> Prediction:
            return Prediction(masks=Net(lambda masks: masks)(batch.image))

    found = evaluate(net, "clevrtex", masks_from=masks_from, name="plain", **limited)
    expected = evaluate(Same(), "clevrtex", **limited)
    assert found.value("ari") == pytest.approx(expected.value("ari"), abs=1e-6)
    assert found.model.parameters == 1 and found.model.name == "plain"
    assert net.training and all(
        check.passed is not False or check.name == "mask source" for check in check_model(net, masks_from=masks_from)
    )


def test_a_plain_module_goes_by_its_own_name_and_code(limited: dict[str, Any]) -> None:
    net = Net(lambda masks: {"masks": masks})
    plain = evaluate(net, "clevrtex", masks_from="masks", **limited)
    wrapped = evaluate(SlotModel(), "clevrtex", **limited)
    assert plain.model.name == "net"
    assert plain.model.code_sha256 != wrapped.model.code_sha256 != ""


@pytest.mark.parametrize(
    ("wrap", "masks_from", "message"),
    [
        (lambda masks: {"mask": masks, "slots": 0}, "masks", "keys are mask, slots"),
        (lambda masks: (masks,), 1, "has 1 entries, counted from 0"),
        (lambda masks: masks, "masks", "Tensor, has no 'masks'"),
    ],
)
def test_masks_that_are_not_there_are_named(wrap: Any, masks_from: Any, message: str, limited: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=message):
        evaluate(Net(wrap), "clevrtex", masks_from=masks_from, **limited)


def test_a_plain_module_without_masks_from_gets_the_remedy(limited: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="masks_from="):
        evaluate(Net(lambda masks: masks), "clevrtex", **limited)
    with pytest.raises(UsageError, match="leave it out"):
        evaluate("grid", "clevrtex", masks_from="masks", **limited)
