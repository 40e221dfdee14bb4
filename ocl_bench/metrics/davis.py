"""Region similarity J and boundary measure F of videos, by the rules of DAVIS 2017 Unsupervised.

J is the intersection over union of a truth object and a proposal in one frame. F is the harmonic mean of precision and
recall of their boundary pixels. A boundary pixel is met when a boundary pixel of the other mask lies within a disk of
0.8 % of the image diagonal. All frames count, including the first and the last.

Sources: Perazzi et al., A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation, CVPR 2016;
Caelles et al., The 2019 DAVIS Challenge, arXiv:1905.00737; the code of davisvideochallenge/davis2017-evaluation.

All pairs of a frame are scored at once, see `boundaries`. Frames are added one by one, and only small tables are kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..core.errors import UsageError
from .boundaries import edges_met, edges_of, parts_of
from .contingency import LabelMaps, as_array, check_frames, contingency
from .ignored import IgnoreIndex, with_void

BOUND_TH = 0.008
"""Official tolerance of boundaries, as a share of the image diagonal."""

MAX_PROPOSALS = 20
"""Most segments per video that the official evaluation accepts."""

_COLUMNS = 512
"""Predicted ids below this are columns of the table of a frame; larger ids are renumbered first."""


@dataclass(frozen=True)
class FrameOverlap:
    """Pixel counts of one frame with G truth objects and P proposals, all int64. No count contains void pixels.

    Attributes:
        objects: (G,) truth labels that are in the frame.
        proposals: (P,) predicted ids that are in the frame.
        shared: (G, P) pixels in both.
        truth_area: (G,) pixels of each object.
        predicted_area: (P,) pixels of each proposal.
        truth_edge: (G,) boundary pixels of each object.
        predicted_edge: (P,) boundary pixels of each proposal.
        truth_met: (G, P) boundary pixels of the object within the tolerance of the boundary of the proposal.
        predicted_met: (G, P) boundary pixels of the proposal within the tolerance of the boundary of the object.
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
class PairScores:
    """J and F of all pairs of truth objects and proposals of a video.

    Attributes:
        ids: (P,) predicted id of each proposal; -1 stands for the empty masks that fill up to P >= G.
        j: (T, G, P) float64 region similarity of each frame and pair.
        f: (T, G, P) float64 boundary measure of each frame and pair.
    """

    ids: np.ndarray
    j: np.ndarray
    f: np.ndarray


@dataclass(frozen=True)
class ObjectScores:
    """Scores of the G truth objects of a video, (G,) each. DAVIS reports their mean over all objects of a data set.

    Attributes:
        proposal: predicted id that the object is matched with, -1 for none.
        j_mean: mean of J over the frames; `f_mean` likewise.
        j_recall: share of frames with J above 0.5; `f_recall` likewise.
        j_decay: mean J of the first quarter of the frames minus that of the last; `f_decay` likewise.
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
    """The counts of one video, added chunk by chunk. The size of a chunk does not change the result.

    Example:
        >>> video, maps = VideoObjects(), np.array([[[0, 1, 1], [0, 1, 1]], [[0, 1, 1], [0, 0, 1]]])
        >>> video.add(maps, np.array([[[0, 3, 3], [0, 3, 3]], [[0, 3, 3], [0, 3, 3]]]))
        >>> video.scores().proposal, video.scores().j_mean  # (1 + 3/4) / 2
        (array([3]), array([0.875]))
    """

    def __init__(self, bound_th: float = BOUND_TH) -> None:
        """Start an empty video. bound_th: tolerance of boundaries, see `tolerance`."""
        self._bound_th = bound_th
        self._frames: list[FrameOverlap] = []

    def __len__(self) -> int:
        """Number of frames that were added."""
        return len(self._frames)

    def add(self, truth: LabelMaps, prediction: LabelMaps, *, ignore_index: IgnoreIndex = "auto") -> None:
        """Count the next frames. truth, prediction: (T, H, W) label maps; the rest as in `frame_overlap`."""
        check_frames(truth, prediction)
        frames = zip(as_array(truth), as_array(prediction), strict=True)
        self._frames.extend([frame_overlap(*frame, self._bound_th, ignore_index=ignore_index) for frame in frames])

    def pairs(self, objects: int | None = None, max_proposals: int = MAX_PROPOSALS) -> PairScores:
        """J and F of all pairs in all frames.

        Args:
            objects: number G of truth objects, labels 1..G; None takes the labels that occur in the video. An object
                that is absent from a frame is an empty mask there, as in the official evaluation.
            max_proposals: when a video has more segments, only those with the largest area over the video are used.
                The official evaluation refuses such videos. Segments of background count like any other in both. An id
                without a pixel in the whole video is not a proposal; officially, an id that is skipped is an empty one.

        Raises:
            UsageError: for a truth label above `objects`, and for a video without frames.
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
            rows, largest = np.searchsorted(labels, frame.objects), np.isin(frame.proposals, ids)
            places = np.searchsorted(ids, frame.proposals[largest])
            cells = (number, rows[:, None], places[None, :])
            shared[cells] = frame.shared[:, largest]
            truth_met[cells], predicted_met[cells] = frame.truth_met[:, largest], frame.predicted_met[:, largest]
            truth_area[number, rows, 0], truth_edge[number, rows, 0] = frame.truth_area, frame.truth_edge
            predicted_area[number, 0, places] = frame.predicted_area[largest]
            predicted_edge[number, 0, places] = frame.predicted_edge[largest]
        return PairScores(
            np.concatenate([ids, np.full(columns - len(ids), -1, np.int64)]),
            region_similarity(shared, truth_area, predicted_area),
            boundary_measure(truth_met, predicted_met, truth_edge, predicted_edge),
        )

    def scores(self, objects: int | None = None, max_proposals: int = MAX_PROPOSALS) -> ObjectScores:
        """J and F of the truth objects after one matching per video; arguments as in `pairs`."""
        pairs = self.pairs(objects, max_proposals)
        columns = match(pairs.j, pairs.f)
        rows = np.arange(len(columns))
        of_j, of_f = (statistics(values[:, rows, columns].T) for values in (pairs.j, pairs.f))
        return ObjectScores(pairs.ids[columns], *of_j, *of_f)

    def _largest_proposals(self, number: int) -> np.ndarray:
        """Predicted ids of the `number` largest segments of the video, ascending; equal areas prefer the smaller id."""
        frames = self._frames
        ids, index = np.unique(np.concatenate([frame.proposals for frame in frames]), return_inverse=True)
        area = np.zeros(len(ids), np.int64)
        np.add.at(area, index, np.concatenate([frame.predicted_area for frame in frames]))
        return np.sort(ids[np.argsort(-area, kind="stable")[:number]])


def frame_overlap(
    truth: np.ndarray, prediction: np.ndarray, bound_th: float = BOUND_TH, *, ignore_index: IgnoreIndex = "auto"
) -> FrameOverlap:
    """Count the pixels that J and F of all pairs of one frame need.

    Args:
        truth: (H, W) integers: 0 unlabelled, 1, 2, ... objects. VOID (-1) and OVERLAP (-2) of `core.types` are removed
            from truth and prediction before anything else.
        prediction: (H, W) integers: every id >= 0 is a proposal, background slots included; -1 belongs to none.
        bound_th: tolerance of boundaries, see `tolerance`.
        ignore_index: truth label that also means VOID, see `ocl_bench.metrics.ignored`.

    Raises:
        UsageError: for maps that are not labels or differ in shape, and for a negative tolerance.

    Example:
        >>> frame = frame_overlap(np.array([[0, 1, 1], [0, 1, 1]]), np.array([[0, 5, 5], [0, 0, 5]]))
        >>> frame.objects, frame.proposals, frame.shared
        (array([1]), array([0, 5]), array([[1, 3]]))
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
    truth = with_void(truth[None], ignore_index)[0]
    counts = contingency(truth[None], columns[None], ignore_index=None)
    objects = np.flatnonzero(counts.objects(0)[0])
    segments = np.flatnonzero((counts.predicted[0] > 0) & (ids >= 0))
    void = truth < 0
    of_truth = [edges_of(np.where(void, 0, truth), part, void, radius) for part in parts_of(objects)]
    of_prediction = [edges_of(columns, part, void, radius) for part in parts_of(segments)]
    # A word holds 64 labels: a frame with more is a grid of blocks, which `np.block` puts together.
    met = [[(edges_met(g, p), edges_met(p, g).T) for p in of_prediction] for g in of_truth]
    truth_met, predicted_met = (np.block([[pair[side] for pair in line] for line in met]) for side in range(2))
    return FrameOverlap(
        objects=objects,
        proposals=ids[segments],
        shared=counts.table[0][objects[:, None], segments],
        truth_area=counts.truth[0, objects],
        predicted_area=counts.predicted[0, segments],
        truth_edge=np.concatenate([part.pixels() for part in of_truth]),
        predicted_edge=np.concatenate([part.pixels() for part in of_prediction]),
        truth_met=truth_met,
        predicted_met=predicted_met,
    )


def tolerance(shape: tuple[int, int], bound_th: float = BOUND_TH) -> int:
    """Radius in pixels of the disk within which boundaries meet.

    Args:
        shape: height and width of the frame in pixels.
        bound_th: below 1 a share of the diagonal, rounded up to pixels; from 1 on a number of pixels.

    Raises:
        UsageError: for negative values and for fractions of pixels.

    Example:
        >>> tolerance((480, 854)), tolerance((480, 854), 3)
        (8, 3)
    """
    if bound_th < 0 or (bound_th >= 1 and bound_th != int(bound_th)):
        raise UsageError(f"bound_th: {bound_th} is neither a share of the diagonal below 1 nor whole pixels")
    return int(bound_th) if bound_th >= 1 else math.ceil(bound_th * math.sqrt(shape[0] ** 2 + shape[1] ** 2))


def region_similarity(shared: np.ndarray, truth_area: np.ndarray, predicted_area: np.ndarray) -> np.ndarray:
    """J (...,) from pixel counts that broadcast; 1 where both masks are empty.

    Example:
        >>> region_similarity(np.array([3, 0]), np.array([4, 0]), np.array([3, 0]))
        array([0.75, 1.  ])
    """
    union = truth_area + predicted_area - shared
    return np.where(union == 0, 1.0, shared / np.maximum(union, 1))


def boundary_measure(
    truth_met: np.ndarray, predicted_met: np.ndarray, truth_edge: np.ndarray, predicted_edge: np.ndarray
) -> np.ndarray:
    """F (...,) from counts of boundary pixels that broadcast; 1 where neither mask has any, 0 where only one has.

    Args:
        truth_met: boundary pixels of the object that are near the boundary of the proposal.
        predicted_met: boundary pixels of the proposal that are near the boundary of the object.
        truth_edge: all boundary pixels of the object.
        predicted_edge: all boundary pixels of the proposal.

    Example:
        >>> boundary_measure(np.array([6, 0]), np.array([4, 0]), np.array([12, 8]), np.array([4, 0])).round(3)
        array([0.667, 0.   ])
    """
    precision = predicted_met / np.maximum(predicted_edge, 1)
    recall = truth_met / np.maximum(truth_edge, 1)
    total = precision + recall
    value = 2 * precision * recall / np.where(total == 0, 1.0, total)
    return np.where((truth_edge == 0) & (predicted_edge == 0), 1.0, value)


def match(j: np.ndarray, f: np.ndarray) -> np.ndarray:
    """(G,) proposal of each truth object: one Hungarian matching per video, on the mean over frames of (J + F) / 2.

    Args:
        j: (T, G, P) region similarity of all pairs; P >= G, as `VideoObjects.pairs` fills them up.
        f: (T, G, P) boundary measure of all pairs.

    Raises:
        UsageError: for fewer proposals than objects.
    """
    from scipy.optimize import linear_sum_assignment  # slow to import, and processes that only read need it never

    if j.shape[2] < j.shape[1]:
        raise UsageError(f"proposals: {j.shape[2]} for {j.shape[1]} objects; fill up with empty masks first")
    gain = (j.mean(0) + f.mean(0)).T / 2  # (P, G) like the official table: equal gains are matched alike
    proposals, objects = linear_sum_assignment(gain, maximize=True)
    columns = np.zeros(j.shape[1], np.int64)
    columns[objects] = proposals
    return columns


def statistics(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, recall and decay over the last axis of (..., T) values of frames.

    Recall is the share of frames above 0.5. Decay is the mean of the first quarter of the frames minus that of the
    last; neighbouring quarters share a frame. NaN frames are left out of means and count as misses in the recall.

    Example:
        >>> mean, recall, decay = statistics(np.array([1.0, 1.0, 0.8, 0.4, 0.2]))
        >>> round(float(mean), 2), float(recall), round(float(decay), 2)
        (0.68, 0.6, 0.7)
    """
    # The official code keeps these borders in uint8, which breaks the decay beyond 255 frames; that is not copied.
    borders = np.round(np.linspace(1, values.shape[-1], 5) + 1e-10).astype(np.int64) - 1
    first, last = (values[..., borders[quarter] : borders[quarter + 1] + 1] for quarter in (0, 3))
    return _mean(values), (values > 0.5).mean(-1), _mean(first) - _mean(last)


def _columns(prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(P,) ids, and the prediction with each id replaced by its place in them. Some ids may not occur."""
    high = int(prediction.max())
    if high < _COLUMNS - 1:
        return np.arange(-1, high + 1), prediction.astype(np.int16) + 1
    ids, places = np.unique(prediction, return_inverse=True)
    return ids.astype(np.int64), places.reshape(prediction.shape)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis without NaN; NaN where nothing is left (`np.nanmean` would warn)."""
    valid = ~np.isnan(values)
    number = valid.sum(-1)
    return np.where(number > 0, np.where(valid, values, 0.0).sum(-1) / np.maximum(number, 1), np.nan)
