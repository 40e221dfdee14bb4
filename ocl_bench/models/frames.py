"""Make an image model a video model: predict every frame alone, then link the slots of neighbouring frames."""

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
"""Mask sources in which slot k already means the same in every frame; they need no linking."""

EMPTY = 1e-6
"""How far the weights of an added slot are below all others."""


class FrameByFrame:
    """A model of images that predicts clips of one video; `state` of batch and prediction holds the tracks so far."""

    reads_video = True

    def __init__(self, model: Any) -> None:
        self.model = model

    def predict(self, batch: Batch, *truth: Any) -> Prediction:
        """Predict the frames of one video.

        Returns:
            Masks (1, T, K, h, w) or label maps (1, T, H, W), in which slot k (or label k) is the same track in all
            frames. `link` says whether slots or masks were matched.

        Raises:
            UsageError: the batch does not hold exactly one video.
            SampleError: the slots are not finite.
        """
        if batch.video is None or len(batch) != 1:
            raise UsageError("frame by frame means one video at a time: batch.video must be (1, T, 3, H, W)")
        frames = batch.video[0]
        # All frames have the id of their video, so all get the same slot noise: slots that start alike are more
        # likely to end on the same object.
        images = Batch(batch.ids * len(frames), frames, noise_seed=batch.noise_seed)
        prediction: Prediction = self.model.predict(images, *truth)
        if isinstance(prediction, Prediction):  # before the linking, which compares weights and adds empty slots
            prediction = prediction.with_weights()
        if _linkable(prediction, len(frames)):
            prediction = _linked(prediction, batch.state, batch.ids[0])
        return _as_clip(prediction)


def video_model(model: Any) -> Any:
    """Return the model itself if it reads videos, otherwise the model frame by frame."""
    return model if getattr(model, "reads_video", False) else FrameByFrame(model)


def _linkable(prediction: Any, frames: int) -> bool:
    """Whether a prediction has masks of that many frames whose slots need to be linked."""
    masks = getattr(prediction, "masks", None)
    # Malformed predictions pass through unlinked; the task's family checks them and has the better error message.
    if not isinstance(masks, Tensor) or prediction.mask_source in _NUMBERED or len(masks) != frames or 0 in masks.shape:
        return False
    if masks.is_floating_point():
        return masks.ndim == 4
    return masks.ndim == 3 and not masks.is_complex() and int(masks.min()) >= 0


def _linked(prediction: Prediction, tracks: Tracks | None, video_id: str) -> Prediction:
    """Reorder the slots, masks or labels of T frames so that they follow the tracks."""
    masks, slots = prediction.masks, prediction.slots
    assert masks is not None
    if not masks.is_floating_point():
        labels, after = link_labels(masks.long(), tracks)
        return replace(prediction, masks=labels, slots=None, state=after, link="masks")
    if slots is not None and slots.shape[:2] == masks.shape[:2]:
        if not slots.isfinite().all():
            raise SampleError(video_id, "Prediction.slots are not finite; they must be, to be linked over time")
        order, after = link_slots(slots, tracks)
        slots = F.pad(slots, (0, 0, 0, order.shape[1] - slots.shape[1]))
        masks, slots = _reorder(_padded(masks, order), order), _reorder(slots, order)
        return replace(prediction, masks=masks, slots=slots, state=after, link="slots")
    # An earlier piece of the video may have had more slots than this one; its tracks keep their numbers.
    last = -1 if tracks is None or tracks.labels is None else int(tracks.labels.max())
    order, after = link_masks(masks.argmax(1), max(masks.shape[1], last + 1), tracks)
    return replace(prediction, masks=_reorder(_padded(masks, order), order), slots=None, state=after, link="masks")


def _padded(masks: Tensor, order: Tensor) -> Tensor:
    """Pad masks (T, K, h, w) to as many slots as there are tracks; the added slots win no pixel.

    They are below all others, also where these are 0, and not further below 0 than rounding explains.
    """
    missing = order.shape[1] - masks.shape[1]
    return F.pad(masks, (0, 0, 0, 0, 0, missing), value=min(float(masks.min()), 0) - EMPTY) if missing else masks


def _reorder(values: Tensor, order: Tensor) -> Tensor:
    """Reorder the slots of values (T, K, ...) by indices (T, K)."""
    frames = torch.arange(len(order), device=values.device)[:, None]
    return values[frames, order.to(values.device)]


def _as_clip(prediction: Prediction) -> Prediction:
    """Turn a prediction for T images into one for a clip of T frames."""
    if not isinstance(prediction, Prediction):
        return prediction  # a user's mistake, which the task's family reports
    fields = (prediction.masks, prediction.slots, prediction.tokens)
    masks, slots, tokens = (value[None] if isinstance(value, Tensor) else value for value in fields)
    return replace(prediction, masks=masks, slots=slots, tokens=tokens)
