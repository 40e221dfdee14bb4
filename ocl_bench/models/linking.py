"""Linking of segments over time, for models that see each frame alone.

Segments of neighbouring frames are matched one to one (Hungarian matching) by the cosine of their slots, or by the
overlap of their masks if there are no slots. A track that is not seen keeps its last slot, so an object that comes
back can continue it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.errors import UsageError

MAX_SEGMENTS = 2048
"""Largest number of segments in a frame that are linked; the matching takes time proportional to their cube."""


@dataclass(frozen=True)
class Tracks:
    """State of K tracks after some frames of one video.

    Attributes:
        slots: (K, C) float32, the last slot of each track, zero for one that was never seen; None without slots.
        labels: (h, w) int64, the track of each cell of the last frame; None with slots.
    """

    slots: Tensor | None = None
    labels: Tensor | None = None


def link_slots(slots: Tensor, tracks: Tracks | None) -> tuple[Tensor, Tracks]:
    """Link the slots of consecutive frames by their cosine.

    Args:
        slots: (T, K, C). An empty slot (all zero) resembles no track and does not overwrite its track's slot.
        tracks: state after the frames before; None at the beginning of a video.

    Returns:
        The order (T, K'), in which slot `order[t, k]` of frame t continues track k, and the new state. K' is the
        larger of the numbers of slots and tracks; empty ones fill up the smaller number.
    """
    from scipy.optimize import linear_sum_assignment  # slow to import, and models of images need it never

    slots = slots.detach().float().cpu()
    remembered = slots.new_zeros(0, slots.shape[2]) if tracks is None or tracks.slots is None else tracks.slots
    started = len(remembered) > 0
    missing = slots.shape[1] - len(remembered)
    remembered, slots = F.pad(remembered, (0, 0, 0, max(missing, 0))), F.pad(slots, (0, 0, 0, max(-missing, 0)))
    order = torch.empty(slots.shape[:2], dtype=torch.int64)
    for frame, row in zip(slots, order, strict=True):  # `row` is a view: writing to it fills `order`
        if started:
            similarity = F.normalize(remembered, dim=1) @ F.normalize(frame, dim=1).T
            row[:] = torch.from_numpy(linear_sum_assignment(similarity.numpy(), maximize=True)[1])
        else:
            row[:] = torch.arange(len(frame))
            started = True
        continued = frame[row]
        remembered = torch.where(continued.abs().amax(1, keepdim=True) > 0, continued, remembered)
    return order, Tracks(slots=remembered)


def link_masks(labels: Tensor, count: int, tracks: Tracks | None) -> tuple[Tensor, Tracks]:
    """Link the segments of consecutive frames by the overlap of their masks.

    Args:
        labels: (T, h, w) int64, label maps with labels below `count`.
        count: number of segments and tracks.
        tracks: state after the frames before, with labels below `count`; None at the beginning of a video.

    Returns:
        The order (T, count), as in `link_slots`, and the new state. The pairs of neighbouring frames have the largest
        possible sum of intersections over unions.
    """
    labels = labels.detach().cpu()
    before = tracks.labels if tracks is not None else None
    order = torch.empty(len(labels), count, dtype=torch.int64)
    for frame, row in zip(labels, order, strict=True):
        if before is None:
            row[:] = torch.arange(count)
        else:
            row[:] = torch.from_numpy(_best_pairs(before, frame, count, count)[1])
        before = torch.argsort(row)[frame]  # the inverse permutation: from segments to tracks
    return order, Tracks(labels=before)


def link_labels(labels: Tensor, tracks: Tracks | None) -> tuple[Tensor, Tracks]:
    """Replace the labels of consecutive frames by numbers of tracks.

    Args:
        labels: (T, h, w) int64 >= 0, label maps; labels may be sparse.
        tracks: state after the frames before; None at the beginning of a video.

    Returns:
        The label maps (T, h, w) and the new state. Pairs are those of `link_masks`. A segment without a partner takes
        the smallest number that is free in its frame, as a new track or one that was not seen in the frame before.

    Raises:
        UsageError: a frame has more than `MAX_SEGMENTS` segments.
    """
    before = tracks.labels if tracks is not None else None
    linked = []
    for frame in labels.detach().cpu():
        names, places = frame.unique(return_inverse=True)
        if len(names) > MAX_SEGMENTS:
            raise UsageError(
                f"Prediction.masks: {len(names)} segments in a frame, at most {MAX_SEGMENTS} are linked over time; "
                "predict fewer, or number them yourself as a model with reads_video"
            )
        before = _numbers(before, places, len(names))[places]
        linked.append(before)
    return torch.stack(linked).to(labels.device), Tracks(labels=before)


def _numbers(before: Tensor | None, places: Tensor, count: int) -> Tensor:
    """Return the track (count,) of each segment 0 .. count - 1 of a frame, whose label map is `places`."""
    if before is None:
        return torch.arange(count)
    tracks, old_places = before.unique(return_inverse=True)
    pairs = _best_pairs(old_places, places, len(tracks), count)
    numbers = torch.full((count,), -1)
    numbers[torch.from_numpy(pairs[1])] = tracks[torch.from_numpy(pairs[0])]
    new = numbers < 0
    free = torch.from_numpy(np.setdiff1d(np.arange(len(tracks) + count), tracks.numpy()))
    numbers[new] = free[: int(new.sum())]
    return numbers


def _best_pairs(before: Tensor, now: Tensor, tracks: int, segments: int) -> tuple[np.ndarray, np.ndarray]:
    """Match tracks and segments by intersection over union; return the matched tracks and their segments."""
    from scipy.optimize import linear_sum_assignment  # slow to import, and models of images need it never

    # One code for each pair of labels: counting the codes gives the table of intersections in one pass.
    code = before.flatten() * segments + now.flatten()
    shared = torch.bincount(code, minlength=tracks * segments).view(tracks, segments).double().numpy()
    union = shared.sum(1, keepdims=True) + shared.sum(0, keepdims=True) - shared
    matched_tracks, matched_segments = linear_sum_assignment(shared / np.maximum(union, 1), maximize=True)
    return matched_tracks, matched_segments
