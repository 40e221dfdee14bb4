"""`check-model` passes what works and names what does not, with a remedy."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from rich.console import Console
from tiny_evaluation import HERE, SlotModel

from ocl_bench.cards.names import model_names
from ocl_bench.cli.console import print_checks
from ocl_bench.core.errors import UsageError
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
    assert list(checks) == [*MISTAKES, "evaluation mode", "device", "speed and memory"]
    assert checks[name].passed is False and checks[name].remedy and "\n" not in checks[name].detail


def test_without_a_usable_prediction_the_rest_is_skipped() -> None:
    checks = check_model(Changed(MISTAKES["fields and shapes"]))
    assert [check.passed for check in checks] == [True, False, *[None] * 9]
    shown = io.StringIO()
    print_checks(Console(file=shown, width=500), "broken", checks)
    (line,) = [line for line in shown.getvalue().splitlines() if "finite values" in line]
    assert line.startswith("not run, because they need a usable prediction: finite values, input unchanged, ")
    assert "skipped" not in shown.getvalue()


def test_label_maps_are_checked_too() -> None:
    class Labels(SlotModel):
        def predict(self, batch: Batch) -> Prediction:
            return Prediction(masks=super().predict(batch).masks.argmax(1), mask_source="clusters")

    assert failed(Labels()) == []


def soft(batch: Batch) -> torch.Tensor:
    return torch.stack([batch.image[:, 0], 1 - batch.image[:, 0]], 1)


WRONG_ANSWERS: dict[str, tuple[Any, str]] = {
    "bool": (lambda batch: Prediction(masks=soft(batch) > 0.5), "give weights, masks.float()"),
    "numpy": (lambda batch: Prediction(masks=soft(batch).numpy()), "give torch.from_numpy(masks)"),
    "list": (lambda batch: Prediction(masks=list(soft(batch))), "give torch.stack(masks)"),  # type: ignore[arg-type]
    "list of arrays": (lambda batch: Prediction(masks=[m.numpy() for m in soft(batch)]), "np.stack(masks)"),  # type: ignore[arg-type]
    "list of sizes": (
        lambda batch: Prediction(masks=[m[:, : 9 + i] for i, m in enumerate(soft(batch))]),  # type: ignore[arg-type]
        "pad or resize them to one",
    ),
    "extra axis": (lambda batch: Prediction(masks=soft(batch)[:, :, None]), "masks.squeeze(2)"),
    "extra axis first": (lambda batch: Prediction(masks=soft(batch)[:, None]), "masks.squeeze(1)"),
    "labels with an axis": (lambda batch: Prediction(masks=soft(batch).argmax(1)[..., None]), "masks[..., 0]"),
    "slots last": (lambda batch: Prediction(masks=soft(batch).permute(0, 2, 3, 1)), "masks.permute(0, 3, 1, 2)"),
    "flattened": (lambda batch: Prediction(masks=soft(batch).flatten(2)), "masks.unflatten(-1, (128, 128))"),
    "one image": (lambda batch: Prediction(masks=soft(batch)[:1]), "each image of the batch"),
    "source": (lambda batch: Prediction(masks=soft(batch), mask_source="dec"), "where the masks come from"),  # type: ignore[arg-type]
    "a tensor": (soft, "give Prediction(masks=answer"),
    "a dict": (lambda batch: {"masks": soft(batch)}, "give Prediction(**answer)"),
    "a tuple": (lambda batch: (soft(batch), None), "name its parts"),
    "nothing": (lambda batch: None, "without a return"),
}


@pytest.mark.parametrize("name", WRONG_ANSWERS)
def test_the_remedy_is_that_of_the_mistake(name: str) -> None:
    answer, remedy = WRONG_ANSWERS[name]

    class Wrong:
        def predict(self, batch: Batch) -> Any:
            return answer(batch)

    (check,) = [check for check in check_model(Wrong()) if check.passed is False]
    assert check.name == "fields and shapes" and remedy in check.remedy and check.remedy not in check.detail


def choices_that_round(predict: Any, batch: Batch) -> Prediction:
    """Label maps of which some pixels depend on the number of images, as ties of k-means do."""
    labels = predict(batch).masks.argmax(1)
    labels[:, 0] = (labels[:, 0] + (len(batch) == 1)) % 2
    return Prediction(masks=labels, mask_source="clusters")


def noise_by_place(predict: Any, batch: Batch) -> Prediction:
    noise = torch.rand(len(batch), 2, 8, 8, generator=torch.Generator().manual_seed(0))
    return Prediction(masks=noise, mask_source="decoder")


@pytest.mark.parametrize(
    ("change", "name", "remedy"),
    [
        (choices_that_round, "independent of batch size", "in float64, or image by image"),
        (batch_statistics, "independent of batch size", "treat every image alone"),
        (noise_by_place, "independent of order", "follows the image and not its place"),
        (noise_by_place, "independent of batch size", "follows the image and not its place"),
        (global_noise, "deterministic", "the global generator of torch"),
        (global_noise, "independent of order", "see 'deterministic'"),
    ],
)
def test_the_remedy_names_the_reason(change: Any, name: str, remedy: str) -> None:
    checks = {check.name: check for check in check_model(Changed(change))}
    assert checks[name].passed is False and remedy in checks[name].remedy


class Wrapper:
    """A model that is no module and holds one, so that nobody calls its `.eval()`."""

    def __init__(self, layer: torch.nn.Module) -> None:
        self.net = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), layer).requires_grad_(False)

    def predict(self, batch: Batch) -> Prediction:
        return Prediction(masks=self.net(batch.image).softmax(1), mask_source="decoder")


def test_a_part_in_training_mode_is_named() -> None:
    model = Wrapper(torch.nn.BatchNorm2d(2, momentum=0.0))
    checks = {check.name: check for check in check_model(model)}
    assert checks["evaluation mode"].passed is False and "call self.net.eval()" in checks["evaluation mode"].remedy
    assert model.net.training and model.net[1].running_mean.tolist() == [0, 0]  # all is as it was
    dropout = {check.name: check for check in check_model(Wrapper(torch.nn.Dropout(0.5)))}
    assert "call self.net.eval(), which switches dropout off" in dropout["deterministic"].remedy
    model.net.eval()
    assert failed(model) == []


def test_what_eval_changes_is_said() -> None:
    class Module(Wrapper, torch.nn.Module):
        def __init__(self, layer: torch.nn.Module) -> None:
            torch.nn.Module.__init__(self)
            Wrapper.__init__(self, layer)

    said = [
        next(check.detail for check in check_model(Module(layer)) if check.name == "evaluation mode")
        for layer in (torch.nn.Dropout(0.5), torch.nn.ReLU())
    ]
    assert said == [".eval() changes what is predicted, and the suite calls it", ".eval() changes nothing"]


def test_tensors_that_do_not_move_are_named() -> None:
    class Grid(SlotModel):
        def __init__(self) -> None:
            super().__init__()
            self.grid = torch.zeros(2)

    (check,) = [check for check in check_model(Grid()) if check.name == "device"]
    assert check.passed and "self.grid: no buffer" in check.detail and "register_buffer" in check.detail


def test_images_are_on_the_device_of_the_model() -> None:
    class Asks:
        def to(self, device: str) -> Asks:
            return self

        def predict(self, batch: Batch) -> Any:
            raise ValueError(f"on {batch.image.device}")

    assert "on meta" in check_model(Asks(), device="meta")[0].detail
    with pytest.raises(UsageError, match="device 'nonsense' is not available"):
        check_model(Asks(), device="nonsense")


def test_speed_and_memory_are_of_the_size_of_the_task() -> None:
    for task, side, number in (("clevrtex", 128, 512), ("voc-discovery", 224, None)):
        detail = check_model("grid", task)[-1].detail
        assert f"images/s at {side}x{side}" in detail and "MB in this process" in detail
        assert number is None or f", {number} embedded images in " in detail


def test_synthetic_images() -> None:
    images, truth = synthetic_images(4, 32)
    assert images.shape == (4, 3, 32, 32) and images.min() >= 0 and images.max() <= 1
    assert len({tuple(labels.ravel()) for labels in truth}) == 4 and all(labels.max() == 3 for labels in truth)
