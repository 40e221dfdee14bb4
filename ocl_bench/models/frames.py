"""An image model as a video model: every frame alone, then the slots of neighbouring frames linked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.errors import SampleError, UsageError
from ..core.types import Batch, Prediction
from .linking import Tracks, link_labels, link_masks, link_slots

_NUMBERED = ("prototypes", "truth")
"""Mask sources whose slot k means the same in every frame already."""


class FrameByFrame:
    """Predicts clips of one video with a model of images. `state` of batch and prediction are the tracks so far.

    All frames have the id of their video, so that slot noise is the same in each: the same start, the same slot.
    """

    reads_video = True

    def __init__(self, model: Any) -> None:
        self.model = model

    def predict(self, batch: Batch, *truth: Any) -> Prediction:
        """Masks (1, T, K, h, w) or label maps (1, T, H, W), slot k (or label k) being the same track in all frames.

        `link` says by what they were linked. Raises UsageError for a batch of several videos, SampleError for slots
        that are not finite.
        """
        if batch.video is None or len(batch) != 1:
            raise UsageError("frame by frame means one video at a time: batch.video must be (1, T, 3, H, W)")
        frames = batch.video[0]
        images = Batch(batch.ids * len(frames), frames, noise_seed=batch.noise_seed)
        found: Prediction = self.model.predict(images, *truth)
        if _linkable(found, len(frames)):
            found = _linked(found, batch.state, batch.ids[0])
        return _as_clip(found)


def video_model(model: Any) -> Any:
    """The model itself if it reads videos, else the model frame by frame."""
    return model if getattr(model, "reads_video", False) else FrameByFrame(model)


def _linkable(found: Any, frames: int) -> bool:
    """Whether these are masks of that many frames with slots to be numbered; what is wrong the adapter says."""
    masks = getattr(found, "masks", None)
    if not isinstance(masks, Tensor) or found.mask_source in _NUMBERED or len(masks) != frames or 0 in masks.shape:
        return False
    if masks.is_floating_point():
        return masks.ndim == 4
    return masks.ndim == 3 and not masks.is_complex() and int(masks.min()) >= 0


def _linked(found: Prediction, tracks: Tracks | None, video_id: str) -> Prediction:
    """The prediction for T frames with slots, masks or labels in the order of the tracks."""
    masks, slots = found.masks, found.slots
    assert masks is not None
    if not masks.is_floating_point():
        labels, after = link_labels(masks.long(), tracks)
        return replace(found, masks=labels, slots=None, state=after, link="masks")
    if slots is not None and slots.shape[:2] == masks.shape[:2]:
        if not slots.isfinite().all():
            raise SampleError(video_id, "Prediction.slots are not finite, so that they cannot be linked over time")
        order, after = link_slots(slots, tracks)
        slots = F.pad(slots, (0, 0, 0, order.shape[1] - slots.shape[1]))
        return replace(
            found, masks=_reorder(_padded(masks, order), order), slots=_reorder(slots, order), state=after, link="slots"
        )
    last = -1 if tracks is None or tracks.labels is None else int(tracks.labels.max())
    order, after = link_masks(masks.argmax(1), max(masks.shape[1], last + 1), tracks)
    return replace(found, masks=_reorder(_padded(masks, order), order), slots=None, state=after, link="masks")


def _padded(masks: Tensor, order: Tensor) -> Tensor:
    """Masks (T, K, h, w) with as many slots as there are tracks; those that are added win nowhere."""
    missing = order.shape[1] - masks.shape[1]
    return F.pad(masks, (0, 0, 0, 0, 0, missing), value=float(masks.min()) - 1) if missing else masks


def _reorder(values: Tensor, order: Tensor) -> Tensor:
    """Rows (T, K, ...) in the order (T, K)."""
    frames = torch.arange(len(order), device=values.device)[:, None]
    return values[frames, order.to(values.device)]


def _as_clip(found: Prediction) -> Prediction:
    """A prediction for T images as one for a clip of T frames; whatever is no prediction stays as it is."""
    if not isinstance(found, Prediction):
        return found
    masks, slots, tokens = (
        value[None] if isinstance(value, Tensor) else value for value in (found.masks, found.slots, found.tokens)
    )
    return replace(found, masks=masks, slots=slots, tokens=tokens)
