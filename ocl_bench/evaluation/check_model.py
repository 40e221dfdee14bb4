"""Will my model work? A few predictions on synthetic images, in seconds, before any data set is opened.

For a task on videos the images are the frames of one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..cards.names import get_task
from ..cards.task import TaskSpec
from ..core.errors import OclBenchError, UsageError
from ..core.types import Batch, Prediction, Truth
from ..families import find_family, get_adapter
from ..families.base import Adapter
from ..models.frames import video_model
from ..models.loading import LoadedModel, get_model

BATCH = 4
TOLERANCE = 1e-5
_FIELDS = ("masks", "tokens", "classes", "slots", "embedding", "boxes")
LABEL_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Check:
    """One thing that was tried. passed is None when it was skipped because an earlier check failed."""

    name: str
    passed: bool | None
    detail: str
    remedy: str = ""


def check_model(
    model: Any,
    task: str | Path | TaskSpec = "clevrtex",
    *,
    checkpoint: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    device: str = "cpu",
) -> list[Check]:
    """Try a model on 4 synthetic images: fields, shapes, finiteness, determinism, order and batch invariance.

    On a task of videos these are 4 frames of one, and two clips must say what one says.

    model: as in `evaluate`. Raises UsageError only for a wrong name; what a model does wrong becomes a failed check.
    """
    spec = get_task(task)
    loaded = get_model(model, checkpoint=checkpoint, options=options, device=device)
    kind = _VideoSession if find_family(spec.family).unit == "videos" else _Session
    session = kind(loaded, spec, get_adapter(spec, loaded), device)
    checks: list[Check] = []
    for name, step, remedy in session.steps():
        if any(check.passed is False for check in checks[:3]):  # without a usable prediction the rest means nothing
            checks.append(Check(name, None, "skipped"))
            continue
        try:
            checks.append(Check(name, True, step()))
        except OclBenchError as error:
            checks.append(Check(name, False, str(error), remedy))
    return checks


class _Session:
    """The model, four images, and what it said about them."""

    def __init__(self, loaded: LoadedModel, task: TaskSpec, adapter: Adapter, device: str) -> None:
        self.loaded, self.task, self.adapter, self.device = loaded, task, adapter, device
        own = getattr(loaded.model, "input_size", None) or loaded.card.input
        self.size = int(own or task.protocol.input)
        self.images, self.truth = synthetic_images(BATCH, self.size)
        self.first: Prediction | None = None

    def steps(self) -> list[tuple[str, Callable[[], str], str]]:
        """Name, function that returns a detail or raises OclBenchError, remedy."""
        return [
            ("predicts", self.predicts, "make predict(batch) work on batch.image (B,3,H,W) float32 in [0,1]"),
            ("fields and shapes", self.fields, "return a Prediction with one entry per image of the batch"),
            ("finite values", self.finite, "look for a division by zero or a logarithm of 0"),
            ("input unchanged", self.unchanged, "do not write into batch.image; use image = batch.image.clone()"),
            (
                "deterministic",
                self.deterministic,
                "draw noise with batch.noise(...); switch dropout off",
            ),
            ("independent of order", self.order, "treat every image alone; draw noise with batch.noise(...)"),
            ("independent of batch size", self.batch_size, "no statistics over the batch (batch norm in eval mode?)"),
            ("mask source", self.mask_source, "set mask_source to decoder, attention or clusters"),
        ]

    def predict(self, chosen: list[int], image: Tensor | None = None) -> Any:
        """The model's raw answer for some of the images."""
        image = self.images[chosen].clone() if image is None else image
        boxes = None
        if self.task.protocol.grants == "attention":
            boxes = tuple(torch.tensor([[0.0, 0.0, self.size / 2, self.size]]) for _ in chosen)
        batch = Batch(tuple(f"image-{i}" for i in chosen), image, boxes=boxes)
        return self._ask(self.loaded.model, batch, [Truth(self.truth[i], label=i) for i in chosen])

    def _ask(self, model: Any, batch: Batch, truth: list[Truth]) -> Any:
        try:
            with torch.inference_mode():
                return model.predict(batch, *((truth,) if self.loaded.needs_truth else ()))
        except OclBenchError:
            raise
        except (Exception, SystemExit) as error:  # a model that calls sys.exit must not end the run in silence
            reason = str(error).splitlines()[0][:200] if str(error) else ""
            raise UsageError(f"predict raised {type(error).__name__}: {reason}") from error

    def predicts(self) -> str:
        everything = list(range(BATCH))
        self.first = self.predict(everything)
        return f"{BATCH} images of {self.size}x{self.size}"

    def fields(self) -> str:
        prediction = self.adapter.check(self.first, BATCH, self.loaded.name)
        values = {field: getattr(prediction, field) for field in _FIELDS}
        return ", ".join(
            f"{field} {tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
            for field, value in values.items()
            if value is not None
        )

    def finite(self) -> str:
        assert self.first is not None
        fine = self.adapter.finite(self.first)
        if not fine.all():
            raise UsageError(f"{self._field()}: NaN or infinity in {int((~fine).sum())} of {BATCH} images")
        return "no NaN, no infinity"

    def unchanged(self) -> str:
        image = self.images.clone()
        self.predict(list(range(BATCH)), image)
        if not torch.equal(image.cpu(), self.images.cpu()):
            raise UsageError("predict changed batch.image")
        return "batch.image is as it was"

    def deterministic(self) -> str:
        largest = self._difference(self._masks(list(range(BATCH))), self._first_masks())
        if largest > 0:
            raise UsageError(f"two runs on one batch differ ({self._measure()} {largest:.2g})")
        return "two runs are equal"

    def order(self) -> str:
        backwards = list(range(BATCH))[::-1]
        return self._close(self._masks(backwards).flip(0), "reversed batch")

    def batch_size(self) -> str:
        single = [self._masks([i]) for i in range(BATCH)]
        if single[0].ndim == 4:
            slots = max(masks.shape[1] for masks in [*single, self._first_masks()])
            single = [_with_slots(masks, slots) for masks in single]
        return self._close(torch.cat(single), "batches of 1 and 4")

    def mask_source(self) -> str:
        assert self.first is not None
        source = self.first.mask_source
        if self.first.masks is None:
            return "no masks"
        if source == "none" and self.loaded.card.role == "model":
            raise UsageError("Prediction.mask_source is not set; it is printed beside every number")
        return str(source)

    def _field(self) -> str:
        """The field that is compared between runs: the first of those that tell most that the model has."""
        return next(field for field in _FIELDS if getattr(self.first, field) is not None)

    def _first_masks(self) -> Tensor:
        return getattr(self.first, self._field()).detach().cpu()

    def _masks(self, chosen: list[int]) -> Tensor:
        prediction = self.adapter.check(self.predict(chosen), len(chosen), self.loaded.name)
        return getattr(prediction, self._field()).detach().cpu()

    def _measure(self) -> str:
        return "largest difference" if self._first_masks().is_floating_point() else "share of pixels"

    def _difference(self, masks: Tensor, expected: Tensor) -> float:
        if masks.ndim == 4 and expected.ndim == 4:  # empty slots may be added to fill a batch up
            slots = max(masks.shape[1], expected.shape[1])
            masks, expected = _with_slots(masks, slots), _with_slots(expected, slots)
        if masks.shape != expected.shape:
            raise UsageError(f"shapes differ: {tuple(masks.shape)} and {tuple(expected.shape)}")
        if masks.is_floating_point():
            absent = masks.isnan() & expected.isnan()  # NaN boxes are none, in both
            gap = (masks.double() - expected.double()).abs().masked_fill(absent, 0)
            return float(gap.max()) if gap.numel() else 0.0
        return float((masks != expected).double().mean())

    def _close(self, masks: Tensor, what: str) -> str:
        largest = self._difference(masks, self._first_masks())
        allowed = TOLERANCE if masks.is_floating_point() else LABEL_TOLERANCE
        if not largest <= allowed:
            raise UsageError(f"{what}: {self._measure()} {largest:.2g} is above {allowed:g}")
        return f"{self._measure()} {largest:.1g}"


class _VideoSession(_Session):
    """The same with the images as frames of one video."""

    def steps(self) -> list[tuple[str, Callable[[], str], str]]:
        """As for images, but frames may depend on each other; a model must not depend on where clips end, though."""
        skipped = ("independent of order", "independent of batch size")
        steps = [step for step in super().steps() if step[0] not in skipped]
        if not getattr(video_model(self.loaded.model), "whole_video", False):
            remedy = "keep what is needed in Prediction.state; it comes back as Batch.state with the next frames"
            steps.insert(-1, ("independent of clips", self.clips, remedy))
        return steps

    def predict(self, chosen: list[int], image: Tensor | None = None) -> Any:
        """The model's raw answer for these frames as the first ones of a video."""
        return self._clip(chosen, self.images[chosen].clone() if image is None else image, 0, None)

    def _clip(self, chosen: list[int], frames: Tensor, start: int, state: Any) -> Any:
        batch = Batch(("video",), frames[:1], video=frames[None], start=start, state=state)
        return self._ask(video_model(self.loaded.model), batch, [Truth(self.truth[i]) for i in chosen])

    def clips(self) -> str:
        halves, state = [], None
        for chosen in (list(range(BATCH // 2)), list(range(BATCH // 2, BATCH))):
            found = self._clip(chosen, self.images[chosen].clone(), chosen[0], state)
            halves.append(self.adapter.check(found, len(chosen), self.loaded.name).masks)
            state = found.state
        return self._close(torch.cat([one.detach().cpu() for one in halves if one is not None]), "one clip and two")

    def _first_masks(self) -> Tensor:
        return super()._first_masks()[0]


def _with_slots(masks: Tensor, slots: int) -> Tensor:
    missing = slots - masks.shape[1]
    return torch.cat([masks, masks.new_zeros(len(masks), missing, *masks.shape[2:])], 1) if missing else masks


def synthetic_images(count: int, size: int, seed: int = 0) -> tuple[Tensor, list[np.ndarray]]:
    """Noisy images (count, 3, size, size) float32 in [0, 1] with three coloured discs, and their label maps."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    images, truth = [], []
    for _ in range(count):
        labels = np.zeros((size, size), np.int16)
        colours = generator.uniform(0.1, 0.9, (4, 3))
        for number in range(1, 4):
            centre, radius = generator.uniform(0.2, 0.8, 2), generator.uniform(0.1, 0.2)
            labels[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2] = number
        pixels = colours[labels] + generator.normal(0, 0.03, (size, size, 3))
        images.append(torch.from_numpy(pixels.clip(0, 1)).permute(2, 0, 1).float())
        truth.append(labels)
    return torch.stack(images), truth
