"""An image model as a video model: every frame alone, then the slots of neighbouring frames linked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..errors import UsageError
from ..types import Batch, Prediction
from .linking import Tracks, link_masks, link_slots

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

        `link` says by what they were linked. Raises UsageError for a batch of several videos.
        """
        if batch.video is None or len(batch) != 1:
            raise UsageError("frame by frame means one video at a time: batch.video must be (1, T, 3, H, W)")
        frames = batch.video[0]
        images = Batch(batch.ids * len(frames), frames, noise_seed=batch.noise_seed)
        found: Prediction = self.model.predict(images, *truth)
        if isinstance(getattr(found, "masks", None), Tensor) and found.mask_source not in _NUMBERED:
            found = _linked(found, batch.state)
        return _as_clip(found)


def video_model(model: Any) -> Any:
    """The model itself if it reads videos, else the model frame by frame."""
    return model if getattr(model, "reads_video", False) else FrameByFrame(model)


def _linked(found: Prediction, tracks: Tracks | None) -> Prediction:
    """The prediction for T frames with slots, masks or labels in the order of the tracks."""
    masks = found.masks
    assert masks is not None
    soft = masks.is_floating_point()
    slots = found.slots
    if soft and slots is not None and slots.shape[:2] == masks.shape[:2] and _known(slots, tracks):
        order, after = link_slots(slots, tracks)
        return replace(found, masks=_reorder(masks, order), slots=_reorder(slots, order), state=after, link="slots")
    labels = masks.argmax(1) if soft else masks.long()
    last = -1 if tracks is None or tracks.labels is None else int(tracks.labels.max())
    count = masks.shape[1] if soft else max(int(labels.max()), last) + 1
    order, after = link_masks(labels, count, tracks)
    if soft:
        own = slots if slots is not None and slots.shape[:2] == order.shape else None
        own = None if own is None else _reorder(own, order)
        return replace(found, masks=_reorder(masks, order), slots=own, state=after, link="masks")
    names = torch.argsort(order, dim=1).to(labels.device)
    renamed = torch.stack([row[frame] for row, frame in zip(names, labels, strict=True)])
    return replace(found, masks=renamed, slots=None, state=after, link="masks")


def _known(slots: Tensor, tracks: Tracks | None) -> bool:
    return tracks is None or tracks.slots is None or tracks.slots.shape == slots.shape[1:]


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
