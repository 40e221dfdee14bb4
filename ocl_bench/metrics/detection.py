"""COCO's average precision and recall, for boxes and masks, from statistics of single images.

`match_images` matches detections to truth, one image at a time, by the greedy rule of `pycocotools` (Lin et al., ECCV
2014, arXiv:1405.0312; area range `all`, crowds ignored). What is left of an image are a few short arrays, `Matches`,
which are stored. `average_precision` and `average_recall` accumulate them over a set in which every image counts
`weights` times: with ones they are the numbers of `pycocotools` and `faster-coco-eval`, with the counts of a bootstrap
resample those of the resample. The C++ of `faster-coco-eval` does not hand out the matches, hence the matching here:
one integer holds the 10 thresholds of a pair as bits, so that all of them are matched at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core.errors import UsageError
from ..core.types import Instance, Truth

if TYPE_CHECKING:
    import pandas

    from .statistics import Statistic

Kind: TypeAlias = Literal["mask", "box"]
KINDS: tuple[Kind, ...] = ("mask", "box")

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""IoU thresholds, computed as `pycocotools` does."""
RECALLS = np.linspace(0.0, 1.0, 101)
"""Recall levels at which precision is read off, computed as `pycocotools` does."""

_EVERY_BIT = (1 << len(THRESHOLDS)) - 1


@dataclass(frozen=True)
class Detections:
    """What a model found in one image, in pixels of the whole image.

    boxes: (N, 4) float64, x0, y0, x1, y1 with exclusive right and lower edge. scores: (N,) float64. labels: (N,) int64
    category ids, zeros where the model names none. masks: N COCO run-length codes, or None for boxes alone.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: tuple[dict[str, Any], ...] | None

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class Matches:
    """Statistics of one image: D detections, best first in each category, and the truth of C categories.

    scores: (D,) float64. categories: (D,) int32, 0 when classes do not matter. matched, ignored: (D,) uint16, bit t is
    set where the detection meets an object, or a crowd, at `THRESHOLDS[t]`. truth_categories: (C,) int32, sorted.
    truth_counts: (C,) int32, objects that are not crowds.
    """

    scores: np.ndarray
    categories: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    truth_categories: np.ndarray
    truth_counts: np.ndarray


FIELDS: dict[str, type] = {
    "scores": np.float64,
    "categories": np.int32,
    "matched": np.uint16,
    "ignored": np.uint16,
    "truth_categories": np.int32,
    "truth_counts": np.int32,
}
"""Fields of `Matches` and their types, as they are stored."""


def to_columns(matches: Matches | None, kind: Kind) -> dict[str, np.ndarray | None]:
    """Columns `mask_scores`, `mask_categories`, .. of an image's row; None without matches."""
    return {f"{kind}_{name}": None if matches is None else getattr(matches, name) for name in FIELDS}


def from_columns(columns: pandas.DataFrame, kind: Kind) -> list[Matches | None]:
    """Matches of each row of a table that has the columns of `to_columns`."""
    rows = zip(*(columns[f"{kind}_{name}"] for name in FIELDS), strict=True)
    return [
        None if row[0] is None else Matches(*(np.asarray(v, t) for v, t in zip(row, FIELDS.values(), strict=True)))
        for row in rows
    ]


def match_images(
    truth: Sequence[Truth],
    detections: Sequence[Detections],
    kind: Kind,
    *,
    class_agnostic: bool = True,
    max_detections: int = 100,
) -> list[Matches | None]:
    """Match the detections of each image to its `Truth.instances`; a pure function.

    kind: IoU of masks or of boxes. class_agnostic: every object and detection has category 0. max_detections: the best
    of an image and category. Of equal scores the earlier detection comes first, as in `pycocotools`.

    None for an image whose detections have no masks, or none of whose objects has, when masks are compared; a single
    object without a mask is left out there. Raises UsageError for
    run-length codes of another size than the truth's.
    """
    return [
        _match_image(one, found, kind, class_agnostic, max_detections)
        for one, found in zip(truth, detections, strict=True)
    ]


def _match_image(
    truth: Truth, found: Detections, kind: Kind, class_agnostic: bool, max_detections: int
) -> Matches | None:
    instances = sorted(truth.instances, key=lambda instance: instance.crowd)  # stable, crowds last
    if kind == "mask":
        masked = [instance for instance in instances if instance.mask is not None]
        if found.masks is None or (instances and not masked):
            return None
        instances = masked
    crowd = np.array([instance.crowd for instance in instances], bool)
    named = np.array([0 if class_agnostic else instance.category for instance in instances], np.int32)
    labels = np.zeros(len(found), np.int32) if class_agnostic else found.labels.astype(np.int32)
    order = _best(found.scores, labels, max_detections)
    matched, ignored = np.zeros(len(order), np.uint16), np.zeros(len(order), np.uint16)
    if len(order) and instances:
        overlap = _overlap(instances, found, order, kind)
        if not class_agnostic:
            overlap[labels[order][:, None] != named[None]] = 0
        _assign(overlap, crowd, matched, ignored)
    counts = dict(sorted(Counter(named[~crowd].tolist()).items()))  # np.unique costs more than the matching
    return Matches(
        found.scores[order].astype(np.float64),
        labels[order],
        matched,
        ignored,
        np.array(list(counts), np.int32),
        np.array(list(counts.values()), np.int32),
    )


def _best(scores: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Positions of the `count` best detections of each category, by category, then score, then position."""
    order = np.lexsort((-scores, labels))  # stable
    if len(order) <= count:
        return order
    first = np.searchsorted(labels[order], labels[order])
    return order[np.arange(len(order)) - first < count]


def _overlap(instances: Sequence[Instance], found: Detections, order: np.ndarray, kind: Kind) -> np.ndarray:
    """(D, G) IoU of the detections in `order` and the objects; of a crowd the share of the detection that is in it."""
    from pycocotools import mask as coco_mask

    crowd = [int(instance.crowd) for instance in instances]
    if kind == "box":
        ours = found.boxes[order].astype(np.float64)
        theirs = np.array([instance.box for instance in instances], np.float64)
        for corners in (ours, theirs):
            corners[:, 2:] -= corners[:, :2]  # x, y, width, height, as pycocotools wants them
        return coco_mask.iou(ours, theirs, crowd)
    masks = [found.masks[position] for position in order] if found.masks is not None else []
    objects = [instance.mask for instance in instances if instance.mask is not None]
    sizes = {tuple(mask["size"]) for mask in (*masks, *objects)}
    if len(sizes) > 1:
        shown = " and ".join(f"{height} x {width}" for height, width in sorted(sizes))
        raise UsageError(f"masks of one image have sizes {shown} (height x width); encode them at the image's own size")
    return coco_mask.iou(masks, objects, crowd)


def _assign(overlap: np.ndarray, crowd: np.ndarray, matched: np.ndarray, ignored: np.ndarray) -> None:
    """Fill in the bits: best detection first, each takes its best object that is still free, else a crowd.

    overlap: (D, G) IoU. At one threshold this is the loop of `pycocotools`; of equal IoUs the later object is taken.
    """
    rows, columns = np.nonzero(overlap >= THRESHOLDS[0])
    values = overlap[rows, columns]
    order = np.lexsort((-columns, -values, crowd[columns], rows))
    reached = (1 << np.searchsorted(THRESHOLDS, values[order], side="right")) - 1
    free = [_EVERY_BIT] * overlap.shape[1]
    last, left = -1, 0
    for row, column, bits in zip(rows[order].tolist(), columns[order].tolist(), reached.tolist(), strict=True):
        if row != last:
            last, left = row, _EVERY_BIT
        hit = bits & left
        if crowd[column]:
            ignored[row] |= hit
        else:
            hit &= free[column]
            free[column] &= ~hit
            matched[row] |= hit
        left &= ~hit


def image_recall(matches: Matches | None) -> float:
    """Average recall of one image over thresholds and its categories; NaN without objects."""
    if matches is None or not len(matches.truth_counts):
        return float("nan")
    found = _hits(matches.matched).sum(1).astype(np.float64)
    position = np.searchsorted(matches.truth_categories, matches.categories)
    known = np.isin(matches.categories, matches.truth_categories)
    per_category = np.bincount(position[known], found[known], minlength=len(matches.truth_counts))
    return float((per_category / matches.truth_counts).mean() / len(THRESHOLDS))


def _hits(bits: np.ndarray) -> NDArray[np.bool_]:
    """(D, T) bool from (D,) bit masks."""
    return (bits[:, None] >> np.arange(len(THRESHOLDS), dtype=np.uint16)) & 1 == 1


def average_precision(matches: Sequence[Matches | None], weights: ArrayLike | None = None) -> NDArray[np.float64]:
    """COCO average precision (R,) of a set of n images for each row of weights (R, n); None is one row of ones.

    Precision is read at 101 recalls, and the mean is over thresholds and over the categories with objects among the
    images drawn. NaN without objects, and when no image of the whole set has a detection. Images stand in the order of
    their ids: it decides between equal scores. Integer weights stand for copies of an image next to each other; where
    it has equal scores itself, the copies of its first detection come first, then those of the second.
    """
    return precision_statistic(matches)(_rows(weights, len(matches)))


def average_recall(matches: Sequence[Matches | None], weights: ArrayLike | None = None) -> NDArray[np.float64]:
    """COCO average recall (R,) at `max_detections`; arguments and NaN as in `average_precision`."""
    return recall_statistic(matches)(_rows(weights, len(matches)))


def precision_statistic(matches: Sequence[Matches | None]) -> Statistic:
    """`average_precision` as a function of weights (R, n) alone: everything is sorted once, here."""
    corpus = _Corpus.of(matches)
    curves = _Curves.of(corpus)

    def statistic(weights: NDArray[np.int64]) -> NDArray[np.float64]:
        objects = np.asarray(corpus.truth @ weights.T).T
        if corpus.empty:
            return np.full(len(weights), np.nan)
        return np.array([curves.value(row, count) for row, count in zip(weights, objects, strict=True)], np.float64)

    return statistic


def recall_statistic(matches: Sequence[Matches | None]) -> Statistic:
    """`average_recall` as a function of weights (R, n) alone."""
    corpus = _Corpus.of(matches)
    hits = _sparse(_hits(corpus.matched).sum(1), corpus.categories, corpus.images, corpus.truth.shape)

    def statistic(weights: NDArray[np.int64]) -> NDArray[np.float64]:
        objects, found = (np.asarray(table @ weights.T).T for table in (corpus.truth, hits))
        if corpus.empty:
            return np.full(len(weights), np.nan)
        return _mean(found / (np.maximum(objects, 1) * len(THRESHOLDS)), objects)

    return statistic


def _rows(weights: ArrayLike | None, n: int) -> NDArray[np.int64]:
    rows = np.ones((1, n), np.int64) if weights is None else np.asarray(weights)
    if rows.ndim != 2 or rows.shape[1] != n:
        raise ValueError(f"weights have shape {rows.shape}, expected (R, {n}): one column for each image")
    return rows


def _mean(values: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Mean over the last axis, the categories that have objects; NaN without any."""
    counted = objects > 0
    with np.errstate(invalid="ignore"):
        return np.where(counted, values, 0).sum(-1) / np.float64(counted.sum(-1))


def _sparse(values: np.ndarray, rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> Any:
    """Sparse matrix with the sums of int64 values that share a cell."""
    from scipy.sparse import csr_array

    return csr_array((values.astype(np.int64), (rows, columns)), shape=shape)


@dataclass(frozen=True)
class _Corpus:
    """Detections of n images, by category, then score, then image, then rank; only of the K categories with objects.

    images, categories, matched, ignored: (N,), categories numbered 0 .. K - 1. truth: sparse (K, n) counts of objects.
    empty: there was no detection at all.
    """

    images: np.ndarray
    categories: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    truth: Any
    empty: bool

    @classmethod
    def of(cls, matches: Sequence[Matches | None]) -> _Corpus:
        present = [(image, one) for image, one in enumerate(matches) if one is not None]
        scores, named, matched, ignored, truth_named, truth_counts = (
            np.concatenate([np.zeros(0, kind), *(getattr(one, field) for _, one in present)])
            for field, kind in FIELDS.items()
        )
        names, truth_categories = np.unique(truth_named, return_inverse=True)
        images, truth_images = (
            np.repeat([image for image, _ in present], [len(getattr(one, field)) for _, one in present]).astype(
                np.int64
            )
            for field in ("scores", "truth_counts")
        )
        order = np.lexsort((-scores, named))
        order = order[np.isin(named[order], names)]
        truth = _sparse(truth_counts, truth_categories, truth_images, (len(names), len(matches)))
        categories = np.searchsorted(names, named[order])
        return cls(images[order], categories, matched[order], ignored[order], truth, not len(scores))


@dataclass(frozen=True)
class _Curves:
    """Every true positive of every curve: curve t K + k is that of threshold t and category k, C curves in all.

    Precision only ever rises at a true positive, so the E true positives, by curve and then by score, hold all that
    the interpolation reads. images: (E,). places: (E,) how many detections of `_Corpus` there are up to it. bounds:
    (C + 1,) where the curves begin and end. bases: (C,) where the detections of a curve's category begin. crowd_images:
    (I,) images of the ignored detections, by curve and then by score; crowd_before: (E,) how many of them come before
    the true positive, crowd_bounds: (C,) and before the curve.
    """

    corpus: _Corpus
    images: np.ndarray
    places: np.ndarray
    bounds: np.ndarray
    bases: np.ndarray
    crowd_images: np.ndarray
    crowd_before: np.ndarray
    crowd_bounds: np.ndarray

    @classmethod
    def of(cls, corpus: _Corpus) -> _Curves:
        n_categories, n_places = corpus.truth.shape[0], len(corpus.images)
        every = np.arange(len(THRESHOLDS) * n_categories)
        (threshold, place), (crowd_threshold, crowd_place) = (
            np.nonzero(_hits(bits).T) for bits in (corpus.matched, corpus.ignored)
        )
        curves = threshold * n_categories + corpus.categories[place]
        crowd_keys = (crowd_threshold * n_categories + corpus.categories[crowd_place]) * n_places + crowd_place
        return cls(
            corpus,
            corpus.images[place],
            place + 1,
            np.append(np.searchsorted(curves, every), len(curves)),
            np.tile(np.searchsorted(corpus.categories, np.arange(n_categories)), len(THRESHOLDS)),
            corpus.images[crowd_place],
            np.searchsorted(crowd_keys, curves * n_places + place),
            np.searchsorted(crowd_keys, every * n_places),
        )

    def value(self, weights: np.ndarray, objects: np.ndarray) -> float:
        """Average precision when image j counts weights[j] times, (n,), and category k has objects[k], (K,)."""
        weights = weights.astype(np.float64)  # sums of integers are exact
        lengths = np.diff(self.bounds)
        true, everything = _running(weights[self.images]), _running(weights[self.corpus.images])
        true_positives = true[1:] - np.repeat(true[self.bounds[:-1]], lengths)
        detections = everything[self.places] - np.repeat(everything[self.bases], lengths)
        if len(self.crowd_images):
            crowd = _running(weights[self.crowd_images])
            detections -= crowd[self.crowd_before] - np.repeat(crowd[self.crowd_bounds], lengths)
        # The largest precision from here to the end of the curve. A later curve lies 2 lower than the one before it, so
        # that one pass from the end serves all.
        height = -2.0 * np.arange(len(lengths))
        precision = true_positives / (detections + np.spacing(1)) + np.repeat(height, lengths)
        envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
        needed = np.tile(_needed(objects), (len(THRESHOLDS), 1)) + true[self.bounds[:-1], None]
        reached = np.maximum(np.searchsorted(true[1:], needed), self.bounds[:-1, None])
        read = np.where(reached < self.bounds[1:, None], envelope[reached] - height[:, None], 0)
        return float(_mean(read.mean(1).reshape(len(THRESHOLDS), len(objects)).mean(0), objects))


def _needed(objects: np.ndarray) -> np.ndarray:
    """(K, 101) how many of (K,) objects must be found for a recall, in floats, of at least each of `RECALLS`."""
    total = np.maximum(objects, 1)[:, None].astype(np.float64)
    count = np.ceil(RECALLS * total)
    count = np.where((count - 1) / total >= RECALLS, count - 1, count)
    return np.where(count / total < RECALLS, count + 1, count)


def _running(values: np.ndarray) -> np.ndarray:
    """(N + 1,) sums of the first 0, 1, .. N values."""
    total = np.zeros(len(values) + 1, values.dtype)
    np.cumsum(values, out=total[1:])
    return total
