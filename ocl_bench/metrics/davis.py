"""Region similarity J and boundary measure F of videos, by the rules of DAVIS 2017 Unsupervised.

J is the intersection over union of a truth object and a proposal in one frame. F is the harmonic mean of precision and
recall of their boundary pixels, where a boundary pixel is met when one of the other mask lies within a disk of 0.8 % of
the image diagonal. Perazzi et al., A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation, CVPR
2016; Caelles et al., The 2019 DAVIS Challenge, arXiv:1905.00737. All frames count, the first and the last too. The
definitions are those of davisvideochallenge/davis2017-evaluation.

All pairs of a frame are scored at once: each label is one bit of a word per pixel, so that boundaries and dilations of
all labels are a few bit operations on the frame. Frames are added one by one and only small tables are kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..core.errors import UsageError
from .contingency import LabelMaps, contingency

BOUND_TH = 0.008
"""Official tolerance of boundaries, as a share of the image diagonal."""

MAX_PROPOSALS = 20
"""Most segments per video that the official evaluation accepts."""

_WORD = 64
"""Labels whose boundaries are computed together, one bit each."""

_ROWS = 2**16
"""Boundary pixels that are unpacked into bits at a time."""

_COLUMNS = 512
"""Predicted ids up to here are used as columns of the table of a frame; beyond they are renumbered first."""


@dataclass(frozen=True)
class FrameOverlap:
    """Pixel counts of one frame with G truth objects and P proposals, all int64. Void pixels are in none of them.

    objects: (G,) truth labels that are in the frame. proposals: (P,) predicted ids that are in the frame.
    shared: (G, P) pixels in both. truth_area: (G,), predicted_area: (P,).
    truth_edge: (G,), predicted_edge: (P,) boundary pixels. truth_met, predicted_met: (G, P) boundary pixels of the
        object (of the proposal) within the tolerance of the boundary of the other.
    """

    objects: np.ndarray
    proposals: np.ndarray
    shared: np.ndarray
    truth_area: np.ndarray
    predicted_area: np.ndarray
    truth_edge: np.ndarray
    predicted_edge: np.ndarray
    truth_met: np.ndarray
    predicted_met: np.ndarray


@dataclass(frozen=True)
class Pairs:
    """J and F of all pairs of truth objects and proposals of a video, (T, G, P) float64 each, P >= G.

    ids: (P,) predicted id of each proposal, -1 for the empty masks that fill up to G.
    """

    ids: np.ndarray
    j: np.ndarray
    f: np.ndarray


@dataclass(frozen=True)
class ObjectScores:
    """What DAVIS reports of the G truth objects of a video, (G,) each; a data set has the mean over all its objects.

    proposal: predicted id that the object is matched with, -1 for none. Means, recalls (share of frames above 0.5) and
    decays (mean of the first quarter minus mean of the last) of J and F over the frames.
    """

    proposal: np.ndarray
    j_mean: np.ndarray
    j_recall: np.ndarray
    j_decay: np.ndarray
    f_mean: np.ndarray
    f_recall: np.ndarray
    f_decay: np.ndarray

    def __len__(self) -> int:
        return len(self.proposal)


class VideoObjects:
    """The counts of one video, added chunk by chunk; the size of a chunk changes no result."""

    def __init__(self, bound_th: float = BOUND_TH) -> None:
        """bound_th: tolerance of boundaries, see `tolerance`."""
        self._bound_th = bound_th
        self._frames: list[FrameOverlap] = []

    def __len__(self) -> int:
        """Number of frames so far."""
        return len(self._frames)

    def add(self, truth: LabelMaps, prediction: LabelMaps) -> None:
        """Count the next frames: (T, H, W) label maps each, see `frame_overlap`."""
        if truth.ndim != 3 or tuple(truth.shape) != tuple(prediction.shape):
            raise UsageError(
                f"truth and prediction: shapes {tuple(truth.shape)} and {tuple(prediction.shape)} are not those of the "
                "same frames; pass (T, H, W) label maps for both"
            )
        frames = zip(_array(truth), _array(prediction), strict=True)
        self._frames.extend([frame_overlap(*frame, self._bound_th) for frame in frames])

    def pairs(self, objects: int | None = None, max_proposals: int = MAX_PROPOSALS) -> Pairs:
        """J and F of all pairs in all frames.

        objects: number G of truth objects, labels 1..G; None takes the labels that occur in the video. An object that
            is absent from a frame is an empty mask there, as in the official evaluation.
        max_proposals: where a video has more segments, those with the largest area over the video are taken. The
            official evaluation refuses such videos; segments of background count as any other in either. A segment
            without a pixel in the whole video is no proposal (officially, an id that is skipped is an empty one).
        Raises UsageError for a truth label beyond `objects` and for a video without frames.
        """
        if not self._frames:
            raise UsageError("frames: a video without frames has no J and F; leave it out")
        labels = np.unique(np.concatenate([frame.objects for frame in self._frames]))
        if objects is not None:
            if labels.max(initial=0) > objects:
                raise UsageError(f"truth: label {labels.max()} in a video of {objects} objects; number them from 1")
            labels = np.arange(1, objects + 1)
        ids = self._largest_proposals(max_proposals)
        columns = max(len(ids), len(labels))
        shared, truth_met, predicted_met = np.zeros((3, len(self), len(labels), columns), np.int64)
        truth_area, truth_edge = np.zeros((2, len(self), len(labels), 1), np.int64)
        predicted_area, predicted_edge = np.zeros((2, len(self), 1, columns), np.int64)
        for number, frame in enumerate(self._frames):
            rows, kept = np.searchsorted(labels, frame.objects), np.isin(frame.proposals, ids)
            at = np.searchsorted(ids, frame.proposals[kept])
            cells = (number, rows[:, None], at[None, :])
            shared[cells] = frame.shared[:, kept]
            truth_met[cells], predicted_met[cells] = frame.truth_met[:, kept], frame.predicted_met[:, kept]
            truth_area[number, rows, 0], truth_edge[number, rows, 0] = frame.truth_area, frame.truth_edge
            predicted_area[number, 0, at] = frame.predicted_area[kept]
            predicted_edge[number, 0, at] = frame.predicted_edge[kept]
        return Pairs(
            np.concatenate([ids, np.full(columns - len(ids), -1, np.int64)]),
            region_similarity(shared, truth_area, predicted_area),
            boundary_measure(truth_met, predicted_met, truth_edge, predicted_edge),
        )

    def scores(self, objects: int | None = None, max_proposals: int = MAX_PROPOSALS) -> ObjectScores:
        """J and F of the truth objects after one matching per video; arguments as in `pairs`."""
        pairs = self.pairs(objects, max_proposals)
        chosen = match(pairs.j, pairs.f)
        rows = np.arange(len(chosen))
        of_j, of_f = (statistics(values[:, rows, chosen].T) for values in (pairs.j, pairs.f))
        return ObjectScores(pairs.ids[chosen], *of_j, *of_f)

    def _largest_proposals(self, number: int) -> np.ndarray:
        """Predicted ids of the `number` largest segments of the video, ascending; of equal ones the smaller id."""
        frames = self._frames
        ids, index = np.unique(np.concatenate([frame.proposals for frame in frames]), return_inverse=True)
        area = np.zeros(len(ids), np.int64)
        np.add.at(area, index, np.concatenate([frame.predicted_area for frame in frames]))
        return np.sort(ids[np.argsort(-area, kind="stable")[:number]])


def frame_overlap(truth: np.ndarray, prediction: np.ndarray, bound_th: float = BOUND_TH) -> FrameOverlap:
    """Count what J and F of all pairs of one frame need.

    truth: (H, W) integers, 0 unlabelled, 1.. objects, VOID (-1) and OVERLAP (-2) of `core.types` are removed from
        truth and prediction before anything else.
    prediction: (H, W) integers, every id >= 0 is a proposal, background slots too; pixels with -1 belong to none.
    Raises UsageError for maps that are no labels or differ in shape, and for a negative tolerance.
    """
    if truth.ndim != 2 or prediction.dtype.kind not in "iu" or prediction.size == 0:
        raise UsageError(
            f"prediction: {prediction.dtype} values of shape {prediction.shape} for a truth of shape {truth.shape}; "
            "pass (H, W) label maps for both"
        )
    if prediction.min() < -1:
        raise UsageError(f"prediction: label {prediction.min()} is below -1; -1 stands for no proposal")
    radius = tolerance((truth.shape[0], truth.shape[1]), bound_th)
    ids, columns = _columns(prediction)
    counts = contingency(truth[None], columns[None])
    rows = np.flatnonzero(counts.objects(0)[0])
    kept = np.flatnonzero((counts.predicted[0] > 0) & (ids >= 0))
    void = truth < 0
    of_truth = [_edges(np.where(void, 0, truth), part, void, radius) for part in _parts(rows)]
    of_prediction = [_edges(columns, part, void, radius) for part in _parts(kept)]
    met = [[(_met(g, p), _met(p, g).T) for p in of_prediction] for g in of_truth]
    truth_met, predicted_met = (np.block([[pair[side] for pair in line] for line in met]) for side in range(2))
    return FrameOverlap(
        objects=rows,
        proposals=ids[kept],
        shared=counts.table[0][rows[:, None], kept],
        truth_area=counts.truth[0, rows],
        predicted_area=counts.predicted[0, kept],
        truth_edge=np.concatenate([part.pixels() for part in of_truth]),
        predicted_edge=np.concatenate([part.pixels() for part in of_prediction]),
        truth_met=truth_met,
        predicted_met=predicted_met,
    )


def tolerance(shape: tuple[int, int], bound_th: float = BOUND_TH) -> int:
    """Radius in pixels of the disk within which boundaries meet.

    bound_th: share of the diagonal of (height, width), rounded up; from 1 on it is whole pixels.
    Raises UsageError for negative values and for fractions of pixels.
    """
    if bound_th < 0 or (bound_th >= 1 and bound_th != int(bound_th)):
        raise UsageError(f"bound_th: {bound_th} is neither a share of the diagonal below 1 nor whole pixels")
    return int(bound_th) if bound_th >= 1 else math.ceil(bound_th * math.sqrt(shape[0] ** 2 + shape[1] ** 2))


def boundary_map(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool boundary of a binary (H, W) mask, one pixel wide and half a pixel towards the origin.

    A pixel is boundary where it, its right, lower and lower right neighbour are not all equal; beyond the frame the
    last row and column repeat, so a mask that fills the frame has no boundary.
    """
    return _mixed(mask.astype(bool)).astype(bool)


def region_similarity(shared: np.ndarray, truth_area: np.ndarray, predicted_area: np.ndarray) -> np.ndarray:
    """J from pixel counts that broadcast; 1 where both masks are empty."""
    union = truth_area + predicted_area - shared
    return np.where(union == 0, 1.0, shared / np.maximum(union, 1))


def boundary_measure(
    truth_met: np.ndarray, predicted_met: np.ndarray, truth_edge: np.ndarray, predicted_edge: np.ndarray
) -> np.ndarray:
    """F from counts of boundary pixels that broadcast; 1 where neither mask has any, 0 where only one has."""
    precision = predicted_met / np.maximum(predicted_edge, 1)
    recall = truth_met / np.maximum(truth_edge, 1)
    total = precision + recall
    value = 2 * precision * recall / np.where(total == 0, 1.0, total)
    return np.where((truth_edge == 0) & (predicted_edge == 0), 1.0, value)


def match(j: np.ndarray, f: np.ndarray) -> np.ndarray:
    """(G,) proposal of each truth object: one matching per video, on the mean over frames of (J + F) / 2.

    j, f: (T, G, P) of all pairs with P >= G, as `VideoObjects.pairs` fills them up. Raises UsageError for fewer
    proposals than objects.
    """
    if j.shape[2] < j.shape[1]:
        raise UsageError(f"proposals: {j.shape[2]} for {j.shape[1]} objects; fill up with empty masks first")
    gain = (j.mean(0) + f.mean(0)).T / 2
    proposals, objects = linear_sum_assignment(gain, maximize=True)
    chosen = np.zeros(j.shape[1], np.int64)
    chosen[objects] = proposals
    return chosen


def statistics(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, recall and decay over the last axis of (..., T) values of frames.

    Recall is the share of frames above 0.5. Decay is the mean of the first quarter of the frames minus that of the
    last; neighbouring quarters share a frame. NaN frames are left out of means and count as misses in the recall. The
    official code keeps the borders in uint8, which breaks the decay beyond 255 frames; that is not copied.
    """
    borders = np.round(np.linspace(1, values.shape[-1], 5) + 1e-10).astype(np.int64) - 1
    first, last = (values[..., borders[quarter] : borders[quarter + 1] + 1] for quarter in (0, 3))
    return _mean(values), (values > 0.5).mean(-1), _mean(first) - _mean(last)


@dataclass(frozen=True)
class _Edges:
    """Boundaries of up to 64 labels. words, near: (H, W) unsigned, bit k set on (near) the boundary of label k."""

    words: np.ndarray
    near: np.ndarray
    labels: int

    def pixels(self) -> np.ndarray:
        """(labels,) int64 number of boundary pixels."""
        total = np.zeros(self.labels, np.int64)
        for bits in _unpacked(self.words[self.words > 0], self.labels):
            total += bits.sum(0).astype(np.int64)
        return total


def _edges(labels: np.ndarray, chosen: np.ndarray, void: np.ndarray, radius: int) -> _Edges:
    """Boundaries of the chosen labels. labels: (H, W) integers >= 0. void: (H, W) bool, in no mask."""
    kind = next(k for k in (np.uint8, np.uint16, np.uint32, np.uint64) if len(chosen) <= np.iinfo(k).bits)
    bit_of = np.zeros(int(labels.max(initial=0)) + 1, kind)
    bit_of[chosen] = np.left_shift(np.ones(len(chosen), kind), np.arange(len(chosen), dtype=kind))
    masks = np.take(bit_of, labels)
    masks[void] = 0
    words = _mixed(masks)
    return _Edges(words, _dilated(words, radius), len(chosen))


def _mixed(masks: np.ndarray) -> np.ndarray:
    """Bits that are set in some but not in all of the four pixels from here to the lower right."""
    anywhere, everywhere = masks.copy(), masks.copy()
    for axis in (0, 1):
        here, there = (np.s_[:-1], np.s_[1:]) if axis == 0 else (np.s_[:, :-1], np.s_[:, 1:])
        anywhere[here] |= anywhere[there]
        everywhere[here] &= everywhere[there]
    return anywhere ^ everywhere


def _dilated(words: np.ndarray, radius: int) -> np.ndarray:
    """Bits of all pixels within a disk x^2 + y^2 <= radius^2, which is a stack of horizontal runs."""
    height, width = words.shape
    run, half = words.copy(), 0
    near = np.zeros_like(words)
    for y in range(radius, -1, -1):
        longest = math.isqrt(radius**2 - y**2)
        for x in range(half + 1, min(longest, width - 1) + 1):
            run[:, x:] |= words[:, :-x]
            run[:, :-x] |= words[:, x:]
        half = longest
        if y < height:
            near[y:] |= run[: height - y]
            near[: height - y] |= run[y:]
    return near


def _met(of: _Edges, other: _Edges) -> np.ndarray:
    """(labels of `of`, labels of `other`) int64 boundary pixels of the first near the boundary of the second."""
    at = np.flatnonzero(of.words)
    total = np.zeros((of.labels, other.labels), np.int64)
    pairs = zip(
        _unpacked(of.words.ravel()[at], of.labels), _unpacked(other.near.ravel()[at], other.labels), strict=True
    )
    for mine, theirs in pairs:
        total += (mine.T @ theirs).astype(np.int64)
    return total


def _unpacked(words: np.ndarray, labels: int) -> Iterator[np.ndarray]:
    """(rows, labels) float32 bits of (N,) words, a block of rows at a time: products of two blocks are exact."""
    for start in range(0, len(words), _ROWS):
        octets = words[start : start + _ROWS, None].view(np.uint8)
        yield np.unpackbits(octets, axis=1, count=labels, bitorder="little").astype(np.float32)


def _parts(labels: np.ndarray) -> list[np.ndarray]:
    """The labels, 64 at a time; one empty part where there are none."""
    return [labels[start : start + _WORD] for start in range(0, max(len(labels), 1), _WORD)]


def _columns(prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(P,) ids and the prediction with the place of each id; ids that are not there may have a place, too."""
    high = int(prediction.max())
    if high < _COLUMNS - 1:
        return np.arange(-1, high + 1), prediction.astype(np.int16) + 1
    ids, places = np.unique(prediction, return_inverse=True)
    return ids.astype(np.int64), places.reshape(prediction.shape)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis without NaN; NaN where nothing is left."""
    there = ~np.isnan(values)
    number = there.sum(-1)
    return np.where(number > 0, np.where(there, values, 0.0).sum(-1) / np.maximum(number, 1), np.nan)


def _array(maps: LabelMaps) -> np.ndarray:
    return maps.numpy(force=True) if isinstance(maps, Tensor) else maps
