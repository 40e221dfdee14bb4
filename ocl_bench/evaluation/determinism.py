"""Whether a user's model predicts the same twice, and the same in other company.

A model that draws random numbers changes its results from run to run; one that depends on its batch, or on where clips
end, changes them with the batch size. Nobody would know. The first batch, or the first clip of a video, is predicted
twice with the seed of the noise unchanged, and a third time apart: in reversed order and in smaller batches, or in
shorter clips. Bundled models are tested instead.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import OclBenchError
from ..core.log import logger
from ..core.machine import fixed_arithmetic
from ..results.record import BATCH_DEPENDENT, NOT_DETERMINISTIC
from .loop import Runner
from .video_loop import VideoRunner

if TYPE_CHECKING:
    from .plan import Plan

TOLERANCE = 1e-5
"""Largest difference of soft values, relative to the largest of them: kernels of a GPU may add in any order."""
APART, LABELS_APART = 1e-3, 0.01
"""The same where batches have other sizes, for which kernels differ; and the share of labels that may differ."""

_FIELDS = ("masks", "slots", "tokens", "embedding", "boxes", "scores", "labels", "classes")
"""Fields of `Prediction` that families score."""

Fields = list[Any]
"""What was predicted for one sample: its part of each field."""


def agreement(plan: Plan) -> tuple[bool | None, bool | None]:
    """Whether two predictions of the first batch agree, and whether a third one, which is made apart, does.

    Each is None where that is not tried or the batch cannot be predicted; the second one also where the first is false.
    A warning says what does not agree. The cost is that of three batches.
    """
    if plan.model.bundled or not getattr(plan.model.model, "sees_images", True):
        return None, None
    predict = _first_clip if plan.by_clips else _first_batch
    try:
        with fixed_arithmetic(plan.threads):
            first, again, apart = predict(plan), predict(plan), predict(plan, apart=True)
    except OclBenchError:
        return None, None  # the evaluation itself reports what fails
    if not first or not again or not apart:
        return None, None
    if not same(list(first.values()), list(again.values())):
        _warn(plan, NOT_DETERMINISTIC, "draw noise with batch.noise(...), switch dropout off")
        return False, None
    independent = all(_alike(fields, apart[name]) for name, fields in first.items() if name in apart)
    if not independent:
        _warn(plan, BATCH_DEPENDENT, "switch batch statistics off (model.eval()), or compare at one --batch-size only")
    return True, independent


def _warn(plan: Plan, what: str, remedy: str) -> None:
    logger.warning("model %s: %s; %s", plan.model.name, what, remedy)


def _first_batch(plan: Plan, *, apart: bool = False) -> dict[str, Fields]:
    """The prediction of the first batch by sample. apart: in reversed order and in two batches, or in a larger one."""
    items, _ = Runner(plan).read(range(min(plan.batch_size, len(plan.data.ids))))
    size = _other_size(len(items)) if apart else plan.batch_size
    runner = Runner(replace(plan, batch_size=size))
    ordered = items[::-1] if apart else items
    found: dict[str, Fields] = {}
    for start in range(0, len(ordered), size):
        predicted, _ = runner.predict(ordered[start : start + size], plan.noise_seeds[0])
        for kept, prediction in predicted:
            fields = [getattr(prediction, name) for name in _FIELDS]
            for row, item in enumerate(kept):
                found[item.id] = [None if field is None else field[row] for field in fields]
    return {item.id: found[item.id] for item in items if item.id in found}


def _first_clip(plan: Plan, *, apart: bool = False) -> dict[str, Fields]:
    """The outputs of the frames of the first clip, by number. apart: in two clips, or in a longer one."""
    video = VideoRunner(plan).video(0)
    frames = min(plan.batch_size, len(video))
    runner = VideoRunner(replace(plan, batch_size=_other_size(frames)) if apart else plan)
    found: dict[str, Fields] = {}
    for start, _, outputs in runner.clips(video, plan.noise_seeds[0]):
        found |= {str(start + number): _parts(output) for number, output in enumerate(outputs)}
        if len(found) >= frames:
            break
    return found


def _parts(output: Any) -> Fields:
    """The fields of an output that has some, or the output alone."""
    if not is_dataclass(output):
        return [output]
    return [getattr(output, field.name) for field in fields(output)]


def _other_size(count: int) -> int:
    return count // 2 if count > 1 else 2


def same(first: Any, second: Any) -> bool:
    """Whether two outputs agree: soft values up to rounding, labels and everything else exactly."""
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(same, first, second))
    if not isinstance(first, Tensor | np.ndarray) or not isinstance(second, Tensor | np.ndarray):
        return bool(first is second or first == second)
    one, other = (torch.as_tensor(value).detach().cpu() for value in (first, second))
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(one, other) if not one.is_floating_point() else _close(one, other, TOLERANCE)


def _alike(first: Fields, second: Fields) -> bool:
    """Whether fields agree that were predicted in batches of other sizes."""
    for value, other in zip(first, second, strict=True):
        if not isinstance(value, Tensor | np.ndarray) or not isinstance(other, Tensor | np.ndarray):
            continue
        one, two = (torch.as_tensor(array).detach().cpu() for array in (value, other))
        if one.shape != two.shape:  # a model may add empty slots or boxes to fill a batch up
            shared = min(len(one), len(two))
            if one.shape[1:] != two.shape[1:]:
                return False
            one, two = one[:shared], two[:shared]
        if one.is_floating_point():
            if not _close(one, two, APART):
                return False
        elif one.numel() and float((one != two).double().mean()) > LABELS_APART:
            return False
    return True


def _close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    """Whether soft values agree up to a share of the largest of them; NaN equals NaN."""
    scale = float(one.nan_to_num(0.0, 0.0, 0.0).abs().max()) if one.numel() else 0.0
    return torch.allclose(one, other, rtol=0.0, atol=tolerance * scale, equal_nan=True)
