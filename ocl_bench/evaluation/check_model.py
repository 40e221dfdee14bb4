"""Checks of a model by a few predictions on synthetic images, in seconds, before any data set is opened.

For a task on videos, the images are the frames of one video. A failed check says what to change: the remedy of its
error, or what further predictions show to be the reason.
"""

from __future__ import annotations

import time
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
from ..core.machine import choose_device, peak_memory_mb, synchronise
from ..core.types import Batch, Prediction, Truth
from ..families import find_family, get_adapter
from ..families.base import Adapter
from ..models.frames import video_model
from ..models.loading import LoadedModel, get_model
from ..models.plain_module import MasksFrom, WithMasks
from ..models.user_code import own_errors
from .loop import input_size
from .model_diagnosis import generators_used, in_mode, in_training_mode, left_as_found, plain_tensors, torch_parts

BATCH = 4
ALL = list(range(BATCH))
TOLERANCE = 1e-5
"""Largest difference of soft values between orders or batch sizes: kernels may round differently."""
LABEL_TOLERANCE = 1e-3
"""Largest share of pixels whose label may differ: rounding decides between slots that are almost equal."""
_ONE_SIZE = "give an image the same number of rows, columns and slots in every batch, by padding or resizing"
_FIELDS = ("masks", "tokens", "classes", "slots", "embedding", "boxes")
"""Fields of a prediction. The first one that a model has is compared between runs."""


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes:
        name: what was checked.
        passed: None when it was skipped because an earlier check failed.
        detail: what was seen.
        remedy: what to change, where it failed.
    """

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
    masks_from: MasksFrom | None = None,
) -> list[Check]:
    """Check a model on 4 synthetic images of the size that it gets in the task.

    Its fields, shapes, values and determinism are checked, whether order or batch size change what it predicts, its
    evaluation mode and devices; speed and memory are measured. For a task on videos the images are 4 frames of one
    video, and two clips must give the same as one.

    Args:
        model, checkpoint, options, masks_from: as in `evaluate`.
        task: its family decides which fields are needed.
        device: of the model.

    Returns:
        The checks in order. An error of the model is a failed check.

    Raises:
        UsageError: for a name, checkpoint or option that cannot be used.
    """
    spec = get_task(task)
    device = choose_device(device)
    model = model if masks_from is None else WithMasks(model, masks_from)
    with left_as_found(model):
        loaded = get_model(model, checkpoint=checkpoint, options=options, device=device)
        adapter = get_adapter(spec, loaded)
        session_class = _VideoSession if find_family(spec.family).by_clips(adapter) else _ImageSession
        session = session_class(loaded, spec, adapter, device)
        checks: list[Check] = []
        for name, step, remedy in session.steps():
            if any(check.passed is False for check in checks[:3]):  # the other checks need a usable prediction
                checks.append(Check(name, None, "skipped"))
                continue
            try:
                checks.append(Check(name, True, step()))
            except OclBenchError as error:
                checks.append(Check(name, False, error.problem, error.remedy or remedy))
    return checks


class _ImageSession:
    """The model, four images, and its first prediction for them."""

    _one_image_a_sample = True

    def __init__(self, loaded: LoadedModel, task: TaskSpec, adapter: Adapter, device: str) -> None:
        self.loaded, self.task, self.adapter, self.device = loaded, task, adapter, device
        self.size = input_size(loaded, task)
        images, self.truth = synthetic_images(BATCH, self.size)
        # As in an evaluation: a model that cannot be moved gets its images on the CPU.
        self.images = images.to(device) if callable(getattr(loaded.model, "to", None)) else images
        self.parts = torch_parts(loaded.model)
        self.first: Prediction | None = None

    def steps(self) -> list[tuple[str, Callable[[], str], str]]:
        """The checks in order: name, function that returns a detail or raises OclBenchError, remedy."""
        return [
            ("predicts", self.predicts, "make predict(batch) work on batch.image (B,3,H,W) float32 in [0,1]"),
            (
                "fields and shapes",
                self.fields,
                "give what the message expects (docs/add-a-model.md, 'What goes out')",
            ),
            ("finite values", self.finite, "look for a division by zero or a logarithm of 0"),
            ("input unchanged", self.unchanged, "do not write into batch.image; use image = batch.image.clone()"),
            (
                "deterministic",
                self.deterministic,
                "let nothing stay behind from one call to the next; draw noise with batch.noise(...)",
            ),
            ("independent of order", self.order, _ONE_SIZE),
            ("independent of batch size", self.batch_size, _ONE_SIZE),
            ("mask source", self.mask_source, "set mask_source to decoder, attention or clusters"),
            ("evaluation mode", self.evaluation_mode, "call .eval() where the model is built"),
            ("device", self.device_handling, "give tensors on the device of batch.image"),
            ("speed and memory", self.cost, "look at what predict does in a second call"),
        ]

    def predict(self, chosen: list[int], image: Tensor | None = None) -> Any:
        """The model's answer for some of the images, unchecked. image: in place of a copy of those images."""
        image = self.images[chosen].clone() if image is None else image
        boxes = None
        if self.task.protocol.grants == "attention":
            # One box for each image, the left half.
            boxes = tuple(image.new_tensor([[0.0, 0.0, self.size / 2, self.size]]) for _ in chosen)
        batch = Batch(tuple(f"image-{i}" for i in chosen), image, boxes=boxes)
        return self._ask(self.loaded.model, batch, [Truth(self.truth[i], label=i) for i in chosen])

    def _ask(self, model: Any, batch: Batch, truth: list[Truth]) -> Any:
        """The model's answer. Raises UsageError when it fails; only ceilings are given the truth."""
        with own_errors("predict failed"), torch.inference_mode():
            return model.predict(batch, *((truth,) if self.loaded.needs_truth else ()))

    def predicts(self) -> str:
        """Makes the prediction with which all others are compared."""
        self.first = self.predict(ALL)
        return f"{BATCH} images of {self.size}x{self.size}"

    def fields(self) -> str:
        """The adapter of the task accepts the prediction, as in an evaluation; logits are weights from here on."""
        self.first = prediction = self.adapter.check(self.first, BATCH, self.loaded.name)
        values = {field: getattr(prediction, field) for field in _FIELDS}
        return ", ".join(
            f"{field} {tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
            for field, value in values.items()
            if value is not None
        )

    def finite(self) -> str:
        """The needed fields hold neither NaN nor infinity."""
        assert self.first is not None
        fine = self.adapter.finite(self.first)
        if not fine.all():
            raise UsageError(f"{self._field()}: NaN or infinity in {int((~fine).sum())} of {BATCH} images")
        return "no NaN, no infinity"

    def unchanged(self) -> str:
        """A model that writes into its input would change what comes after it."""
        image = self.images.clone()
        self.predict(ALL, image)
        if not torch.equal(image.cpu(), self.images.cpu()):
            raise UsageError("predict changed batch.image")
        return "batch.image is as it was"

    def deterministic(self) -> str:
        """Two runs on the same batch are equal in every bit."""
        largest = self._apart_from_first(ALL)
        if largest > 0:  # no tolerance: equal batches take equal kernels
            used = generators_used(lambda: self.predict(ALL))
            remedy = f"it draws from the global generator of {' and '.join(used)}; use batch.noise(...)" if used else ""
            if used and (training := in_training_mode(self.parts)):
                remedy = f"call {training[0]}.eval(), which switches dropout off, or draw noise with batch.noise(...)"
            raise UsageError(f"two runs on one batch differ ({self._measure()} {largest:.2g})", remedy)
        return "two runs are equal"

    def order(self) -> str:
        """Images in reversed order give the same, up to rounding."""
        return self._close(self._values(ALL[::-1]).flip(0), "reversed batch", self._why_company_matters)

    def batch_size(self) -> str:
        """Images one by one give the same as together, up to rounding."""
        single = [self._values([i]) for i in range(BATCH)]
        if single[0].ndim == 4:  # the number of slots may depend on the image
            slots = max(values.shape[1] for values in [*single, self._first_values()])
            single = [_pad_slots(values, slots) for values in single]
        return self._close(torch.cat(single), "batches of 1 and 4", self._why_company_matters)

    def _why_company_matters(self) -> str:
        """What to change in a model that predicts an image differently in another batch: its reason, by trials."""
        if self._apart_from_first(ALL) > 0:
            return "make two runs on one batch equal first, see 'deterministic'"
        if any(map(self._others_matter, ALL)):
            return "treat every image alone: no maximum or mean over the batch, no batch norm in training mode"
        if self._difference(self._values(ALL[::-1]).flip(0), self._first_values()) > self._allowed():
            return "draw noise with batch.noise(...), which follows the image and not its place in the batch"
        return (
            "other images do not matter, but rounding differs with the number of images, and a choice (argmax, nearest "
            "centre) depends on it: compute that step in float64, or image by image"
        )

    def _others_matter(self, kept: int) -> bool:
        """Whether the prediction for an image changes when all others are inverted, in a batch of the same size."""
        images = 1 - self.images
        images[kept] = self.images[kept]
        row = slice(kept, kept + 1)
        return self._difference(self._values(ALL, images)[row], self._first_values()[row]) > 0

    def mask_source(self) -> str:
        """A model names the source of its masks; floors and ceilings need not."""
        assert self.first is not None
        source = self.first.mask_source
        if self.first.masks is None:
            return "no masks"
        if source == "none" and self.loaded.card.role == "model":
            raise UsageError("Prediction.mask_source is not set, and is printed beside every number")
        return str(source)

    def evaluation_mode(self) -> str:
        """No part that matters is left in training mode; whether `.eval()` changes what is predicted."""
        left = in_training_mode(self.parts)
        if not self.parts:
            return "no torch module"
        if self._apart_from_first(ALL) > 0:
            return "not known, as two runs differ"
        try:
            with in_mode(self.parts, training=not left):
                changed = self._apart_from_first(ALL) > 0
        except OclBenchError:  # not every model can predict while it is trained
            return ".eval() is needed, and the suite calls it"
        if left and changed:
            text = f"{' and '.join(left)} is in training mode, and .eval() changes what is predicted"
            raise UsageError(text, f"call {left[0]}.eval() where the model is built, or give the model a method eval()")
        return f".eval() changes {'what is predicted, and the suite calls it' if changed else 'nothing'}"

    def device_handling(self) -> str:
        """The prediction is on the device of the batch; what will not follow the model to another device."""
        assert self.first is not None
        found = getattr(self.first, self._field()).device
        if found.type != self.images.device.type:
            raise UsageError(f"Prediction.{self._field()} is on {found}, and batch.image on {self.images.device}")
        texts = [f"{self._field()} on {found}"]
        if not callable(getattr(self.loaded.model, "to", None)):
            texts.append("no method to(device): it gets its images on the CPU, also with --device cuda")
        if plain := plain_tensors(self.parts):
            texts.append(f"{', '.join(plain)}: no buffer, so .to(device) does not move it; use register_buffer")
        return "; ".join(texts)

    def cost(self) -> str:
        """Images a second, what that means for the task, and the largest memory so far."""
        start = time.perf_counter()
        self.predict(ALL)
        synchronise(self.images.device)
        speed = BATCH / max(time.perf_counter() - start, 1e-9)
        of_task = ""
        if (stand_in := self.task.data.stand_in) and self._one_image_a_sample:
            number = stand_in.samples * len(self.task.noise_seeds)
            of_task = f", {number} embedded images in {number / speed / 60:.1f} min"
        on_gpu = self.images.device.type == "cuda"
        memory = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else peak_memory_mb()
        place = "the GPU" if on_gpu else "this process"
        return f"{speed:.3g} images/s at {self.size}x{self.size}{of_task}; at most {memory:.0f} MB in {place}"

    def _field(self) -> str:
        """The field that is compared between runs: the first of `_FIELDS` that the model has."""
        return next(field for field in _FIELDS if getattr(self.first, field) is not None)

    def _first_values(self) -> Tensor:
        """The compared field of the first prediction."""
        return getattr(self.first, self._field()).detach().cpu()

    def _apart_from_first(self, chosen: list[int]) -> float:
        """How far a new prediction for these images, in their order, is from the first one."""
        return self._difference(self._values(chosen), self._first_values())

    def _values(self, chosen: list[int], image: Tensor | None = None) -> Tensor:
        """The compared field of a new prediction for these images. image: as for `predict`."""
        prediction = self.adapter.check(self.predict(chosen, image), len(chosen), self.loaded.name)
        return getattr(prediction, self._field()).detach().cpu()

    def _measure(self) -> str:
        """What `_difference` returns, in words."""
        return "largest difference" if self._first_values().is_floating_point() else "share of pixels"

    def _difference(self, values: Tensor, expected: Tensor) -> float:
        """The largest absolute difference, or for label maps the share of pixels that differ."""
        if values.ndim == 4 and expected.ndim == 4:  # a model may add empty slots to fill a batch up
            slots = max(values.shape[1], expected.shape[1])
            values, expected = _pad_slots(values, slots), _pad_slots(expected, slots)
        if values.shape != expected.shape:
            raise UsageError(f"shapes differ: {tuple(values.shape)} and {tuple(expected.shape)}", _ONE_SIZE)
        if values.is_floating_point():
            absent = values.isnan() & expected.isnan()  # a box of NaN stands for no box, which is equal in both
            gap = (values.double() - expected.double()).abs().masked_fill(absent, 0)
            return float(gap.max()) if gap.numel() else 0.0
        return float((values != expected).double().mean())

    def _allowed(self) -> float:
        """The largest difference that is rounding."""
        return TOLERANCE if self._first_values().is_floating_point() else LABEL_TOLERANCE

    def _close(self, values: Tensor, what: str, remedy: Callable[[], str] = str) -> str:
        """A detail when values are equal to the first ones up to rounding. Raises UsageError when they are not.

        what: how they were predicted, for the message. remedy: finds what to change where they differ.
        """
        largest = self._difference(values, self._first_values())
        if not largest <= self._allowed():  # written this way, NaN fails
            raise UsageError(f"{what}: {self._measure()} {largest:.2g} is above {self._allowed():g}", remedy())
        return f"{self._measure()} {largest:.1g}"


class _VideoSession(_ImageSession):
    """The same checks with the images as frames of one video."""

    _one_image_a_sample = False

    def steps(self) -> list[tuple[str, Callable[[], str], str]]:
        """As for images, except that frames may depend on each other, but not on where clips end."""
        skipped = ("independent of order", "independent of batch size")
        steps = [step for step in super().steps() if step[0] not in skipped]
        if not getattr(video_model(self.loaded.model), "whole_video", False):  # such a model never gets a part
            remedy = "keep what is needed in Prediction.state; it comes back as Batch.state with the next frames"
            before = [name for name, _, _ in steps].index("mask source")
            steps.insert(before, ("independent of clips", self.clips, remedy))
        return steps

    def predict(self, chosen: list[int], image: Tensor | None = None) -> Any:
        """The model's answer for these frames as the first ones of a video, unchecked."""
        return self._clip(chosen, self.images[chosen].clone() if image is None else image, 0, None)

    def _clip(self, chosen: list[int], frames: Tensor, start: int, state: Any) -> Any:
        """The model's answer for one clip. start: its first frame. state: returned for the clip before."""
        batch = Batch(("video",), frames[:1], video=frames[None], start=start, state=state)
        return self._ask(video_model(self.loaded.model), batch, [Truth(self.truth[i]) for i in chosen])

    def clips(self) -> str:
        """Two clips of half the frames give the same as one, up to rounding."""
        halves, state = [], None
        for chosen in (list(range(BATCH // 2)), list(range(BATCH // 2, BATCH))):
            prediction = self._clip(chosen, self.images[chosen].clone(), chosen[0], state)
            halves.append(getattr(self.adapter.check(prediction, len(chosen), self.loaded.name), self._field()))
            state = prediction.state
        return self._close(torch.cat([half.detach().cpu() for half in halves]), "one clip and two")


def _pad_slots(masks: Tensor, slots: int) -> Tensor:
    """Masks (B, K, h, w) with empty ones added up to `slots` slots."""
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
