"""Whether a user's model predicts the same twice. Otherwise its numbers change from run to run, and nobody would know.

Two predictions of the first batch, or of the first clip of a video, are compared with the seed of the noise unchanged.
Bundled models are tested instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import OclBenchError
from ..core.log import logger
from ..core.machine import fixed_arithmetic
from ..results.record import NOT_DETERMINISTIC
from .loop import Runner
from .video_loop import VideoRunner

if TYPE_CHECKING:
    from .plan import Plan

TOLERANCE = 1e-5
"""Largest difference of soft values, relative to the largest of them: kernels of a GPU may add in any order."""

_FIELDS = ("masks", "slots", "tokens", "embedding", "boxes", "scores", "labels", "classes")
"""Fields of `Prediction` that families score."""


def is_deterministic(plan: Plan) -> bool | None:
    """Whether two predictions of the first batch agree; None where that is not tried or the batch cannot be predicted.

    A warning says when they do not. The cost is that of two batches.
    """
    if plan.model.bundled or not getattr(plan.model.model, "sees_images", True):
        return None
    predict = _first_clip if plan.family.by_clips else _first_batch
    try:
        with fixed_arithmetic(plan.threads):
            first, second = predict(plan), predict(plan)
    except OclBenchError:
        return None  # the evaluation itself reports what fails
    if first is None or second is None:
        return None
    agree = same(first, second)
    if not agree:
        remedy = "draw noise with batch.noise(...), switch dropout off"
        logger.warning("model %s: %s; %s", plan.model.name, NOT_DETERMINISTIC, remedy)
    return agree


def _first_batch(plan: Plan) -> list[Any] | None:
    runner = Runner(plan)
    items, _ = runner.read(range(min(plan.batch_size, len(plan.data.ids))))
    predicted, _ = runner.predict(items, plan.noise_seeds[0])
    return [getattr(prediction, name) for _, prediction in predicted for name in _FIELDS] or None


def _first_clip(plan: Plan) -> list[Any] | None:
    clips = VideoRunner(plan).clips(plan.data.reader[0], plan.noise_seeds[0])
    _, _, outputs = next(clips, (None, None, None))
    return outputs


def same(first: Any, second: Any) -> bool:
    """Whether two outputs agree: soft values up to rounding, labels and everything else exactly."""
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(same, first, second))
    if not isinstance(first, Tensor | np.ndarray) or not isinstance(second, Tensor | np.ndarray):
        return bool(first is second or first == second)
    one, other = (torch.as_tensor(value).detach().cpu() for value in (first, second))
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not one.is_floating_point():
        return torch.equal(one, other)
    scale = float(one.nan_to_num(0.0, 0.0, 0.0).abs().max()) if one.numel() else 0.0
    return torch.allclose(one, other, rtol=0.0, atol=TOLERANCE * scale, equal_nan=True)
