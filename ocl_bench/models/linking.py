"""Which segment of this frame is which of the last one? For models that look at each frame alone.

Segments are paired one to one (Hungarian matching), by the cosine of their slots, or without slots by the overlap of
their masks. A track that is not seen keeps its last slot, so that an object that comes back can find it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor


@dataclass(frozen=True)
class Tracks:
    """What is known of K tracks after some frames of one video.

    slots: (K, C) float32, the last slot of each track, zero for one that was never seen; None without slots.
    labels: (h, w) int64, the track of each cell of the last frame; None with slots.
    """

    slots: Tensor | None = None
    labels: Tensor | None = None


def link_slots(slots: Tensor, tracks: Tracks | None) -> tuple[Tensor, Tracks]:
    """Order (T, K) of the slots (T, K, C) of consecutive frames: slot `order[t, k]` of frame t continues track k.

    An empty slot (all zero) is like no track, and leaves the slot that its track remembers alone.
    """
    slots = slots.detach().float().cpu()
    remembered = slots.new_zeros(slots.shape[1:]) if tracks is None or tracks.slots is None else tracks.slots
    started = tracks is not None and tracks.slots is not None
    order = torch.empty(slots.shape[:2], dtype=torch.int64)
    for now, row in zip(slots, order, strict=True):
        if started:
            similarity = F.normalize(remembered, dim=1) @ F.normalize(now, dim=1).T
            row[:] = torch.from_numpy(linear_sum_assignment(similarity.numpy(), maximize=True)[1])
        else:
            row[:] = torch.arange(len(now))
            started = True
        continued = now[row]
        remembered = torch.where(continued.abs().amax(1, keepdim=True) > 0, continued, remembered)
    return order, Tracks(slots=remembered)


def link_masks(labels: Tensor, count: int, tracks: Tracks | None) -> tuple[Tensor, Tracks]:
    """Order (T, count) of the segments of consecutive label maps (T, h, w) int64 with labels below `count`.

    Pairs have the largest sum of intersection over union with the frame before.
    """
    labels = labels.detach().cpu()
    before = tracks.labels if tracks is not None else None
    order = torch.empty(len(labels), count, dtype=torch.int64)
    for now, row in zip(labels, order, strict=True):
        row[:] = torch.arange(count) if before is None else _best_pairs(before, now, count)
        before = torch.argsort(row)[now]
    return order, Tracks(labels=before)


def _best_pairs(before: Tensor, now: Tensor, count: int) -> Tensor:
    code = before.flatten() * count + now.flatten()
    shared = torch.bincount(code, minlength=count * count).view(count, count).double().numpy()
    union = shared.sum(1, keepdims=True) + shared.sum(0, keepdims=True) - shared
    return torch.from_numpy(linear_sum_assignment(shared / np.maximum(union, 1), maximize=True)[1])
