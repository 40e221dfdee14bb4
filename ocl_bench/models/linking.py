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

from ..core.errors import UsageError

MAX_SEGMENTS = 2048
"""Most segments of a frame that are linked: the time of the matching grows with their cube."""


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

    An empty slot (all zero) is like no track, and leaves the slot that its track remembers alone. Where tracks and
    slots are not equally many, empty ones are added, so that K is the larger number of the two.
    """
    slots = slots.detach().float().cpu()
    remembered = slots.new_zeros(0, slots.shape[2]) if tracks is None or tracks.slots is None else tracks.slots
    started = len(remembered) > 0
    missing = slots.shape[1] - len(remembered)
    remembered, slots = F.pad(remembered, (0, 0, 0, max(missing, 0))), F.pad(slots, (0, 0, 0, max(-missing, 0)))
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

    Pairs have the largest sum of intersection over union with the frame before, whose tracks are below `count`, too.
    """
    labels = labels.detach().cpu()
    before = tracks.labels if tracks is not None else None
    order = torch.empty(len(labels), count, dtype=torch.int64)
    for now, row in zip(labels, order, strict=True):
        row[:] = torch.arange(count) if before is None else torch.from_numpy(_best_pairs(before, now, count, count)[1])
        before = torch.argsort(row)[now]
    return order, Tracks(labels=before)


def link_labels(labels: Tensor, tracks: Tracks | None) -> tuple[Tensor, Tracks]:
    """Label maps (T, h, w) int64 >= 0 of consecutive frames, the labels replaced by numbers of tracks.

    Labels may be sparse. Pairs as in `link_masks`; a segment without one takes the smallest number that is free in its
    frame, as a new track or as one that was not seen in the frame before. Raises UsageError for more than
    `MAX_SEGMENTS` segments in a frame.
    """
    before = tracks.labels if tracks is not None else None
    linked = []
    for now in labels.detach().cpu():
        names, places = now.unique(return_inverse=True)
        if len(names) > MAX_SEGMENTS:
            raise UsageError(
                f"Prediction.masks: {len(names)} segments in a frame, at most {MAX_SEGMENTS} are linked over time; "
                "predict fewer, or number them yourself as a model with reads_video"
            )
        before = _numbers(before, places, len(names))[places]
        linked.append(before)
    return torch.stack(linked).to(labels.device), Tracks(labels=before)


def _numbers(before: Tensor | None, places: Tensor, count: int) -> Tensor:
    """The track (count,) of each segment 0 .. count - 1 of a frame."""
    if before is None:
        return torch.arange(count)
    known, old = before.unique(return_inverse=True)
    pairs = _best_pairs(old, places, len(known), count)
    numbers = torch.full((count,), -1)
    numbers[torch.from_numpy(pairs[1])] = known[torch.from_numpy(pairs[0])]
    alone = numbers < 0
    free = torch.from_numpy(np.setdiff1d(np.arange(len(known) + count), known.numpy()))
    numbers[alone] = free[: int(alone.sum())]
    return numbers


def _best_pairs(before: Tensor, now: Tensor, tracks: int, segments: int) -> tuple[np.ndarray, np.ndarray]:
    """Tracks and the segments that continue them."""
    code = before.flatten() * segments + now.flatten()
    shared = torch.bincount(code, minlength=tracks * segments).view(tracks, segments).double().numpy()
    union = shared.sum(1, keepdims=True) + shared.sum(0, keepdims=True) - shared
    found, continued = linear_sum_assignment(shared / np.maximum(union, 1), maximize=True)
    return found, continued
