"""COCO's average precision and recall of a set of images, from the matches of single images (see `detection`).

Every image counts `weights` times. A bootstrap thus redoes sorting and interpolation for each resample, at a small part
of the cost of doing it from the detections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .detection import FIELDS, THRESHOLDS, Matches, bits_of
from .statistics import BLOCK_BYTES

if TYPE_CHECKING:
    from .statistics_of_set import Statistic

RECALLS = np.linspace(0.0, 1.0, 101)
"""Recall levels at which precision is read off, computed as `pycocotools` does."""


def average_precision(matches: Sequence[Matches | None], weights: ArrayLike | None = None) -> NDArray[np.float64]:
    """COCO average precision (R,) of a set of n images.

    Precision is read at 101 recalls. The mean is over thresholds and over the categories that have objects among the
    images drawn.

    Args:
        matches: of each image, in the order of the image ids: this order decides between equal scores.
        weights: (R, n) integers, how often each image counts in each of R resamples; None is one row of ones. A weight
            stands for copies of an image next to each other. If an image has equal scores itself, the copies of its
            first detection come first, then those of the second.

    Returns:
        (R,) values; NaN without objects. Objects without any detection are 0: none of them is found.

    Example:
        >>> from ocl_bench.core.types import Instance, Truth
        >>> from ocl_bench.metrics.detection import Detections, match_images
        >>> truth = Truth(np.zeros((8, 8), np.int16), instances=(Instance(1, (0, 0, 4, 4), None, 16.0),))
        >>> found = Detections(np.array([[0, 0, 4, 3.0]]), np.array([0.9]), np.array([1]), None)
        >>> average_precision(match_images([truth], [found], "box"))  # IoU 0.75: right at 6 of 10 thresholds
        array([0.6])
    """
    return precision_statistic(matches)(_rows(weights, len(matches)))


def average_recall(matches: Sequence[Matches | None], weights: ArrayLike | None = None) -> NDArray[np.float64]:
    """COCO average recall (R,) at the `max_detections` of `match_images`; arguments and NaN as in `average_precision`.

    Example:
        >>> from ocl_bench.core.types import Instance, Truth
        >>> from ocl_bench.metrics.detection import Detections, match_images
        >>> truth = Truth(np.zeros((8, 8), np.int16), instances=(Instance(1, (0, 0, 4, 4), None, 16.0),))
        >>> found = Detections(np.array([[0, 0, 4, 3.0]]), np.array([0.9]), np.array([1]), None)
        >>> average_recall(match_images([truth], [found], "box"))
        array([0.6])
    """
    return recall_statistic(matches)(_rows(weights, len(matches)))


def precision_statistic(matches: Sequence[Matches | None]) -> Statistic:
    """`average_precision` as a function of weights (R, n) alone. Detections are sorted once, not for each call."""
    corpus = _Corpus.of(matches)
    curves = _Curves.of(corpus)
    step = max(1, BLOCK_BYTES // (8 * (len(corpus.images) + 2 * len(curves.images) + 1)))

    def statistic(weights: NDArray[np.int64]) -> NDArray[np.float64]:
        blocks = [weights[start : start + step] for start in range(0, len(weights), step)]
        values = [curves.values(block, np.ascontiguousarray((corpus.truth @ block.T).T)) for block in blocks]
        return np.concatenate([np.zeros(0), *values])

    return statistic


def recall_statistic(matches: Sequence[Matches | None]) -> Statistic:
    """`average_recall` as a function of weights (R, n) alone."""
    corpus = _Corpus.of(matches)
    hits = _sparse(bits_of(corpus.matched).sum(1), corpus.categories, corpus.images, corpus.truth.shape)

    def statistic(weights: NDArray[np.int64]) -> NDArray[np.float64]:
        objects, matched = (np.asarray(table @ weights.T).T for table in (corpus.truth, hits))
        return _mean(matched / (np.maximum(objects, 1) * len(THRESHOLDS)), objects)

    return statistic


def _rows(weights: ArrayLike | None, n: int) -> NDArray[np.int64]:
    """Weights (R, n), checked; one row of ones for None."""
    rows = np.ones((1, n), np.int64) if weights is None else np.asarray(weights)
    if rows.ndim != 2 or rows.shape[1] != n:
        raise ValueError(f"weights have shape {rows.shape}, expected (R, {n}): one column for each image")
    return rows


def _mean(values: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Mean over the last axis, the categories that have objects; NaN without any."""
    counted = objects > 0
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN that is wanted
        return np.where(counted, values, 0).sum(-1) / np.float64(counted.sum(-1))


def _sparse(values: np.ndarray, rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> Any:
    """Sparse matrix with the sums of int64 values that share a cell."""
    from scipy.sparse import csr_array

    return csr_array((values.astype(np.int64), (rows, columns)), shape=shape)


@dataclass(frozen=True)
class _Corpus:
    """Detections of n images, by category, then score, then image, then rank; only of the K categories with objects.

    Attributes:
        images: (N,) image of each detection.
        categories: (N,) category of each detection, numbered 0 .. K - 1.
        matched: (N,) bits as in `Matches`; `ignored` likewise.
        truth: sparse (K, n) counts of objects.
    """

    images: np.ndarray
    categories: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    truth: Any

    @classmethod
    def of(cls, matches: Sequence[Matches | None]) -> _Corpus:
        present = [(number, image) for number, image in enumerate(matches) if image is not None]
        numbers = [number for number, _ in present]
        scores, named, matched, ignored, truth_named, truth_counts = (
            np.concatenate([np.zeros(0, kind), *(getattr(image, field) for _, image in present)])
            for field, kind in FIELDS.items()
        )
        names, truth_categories = np.unique(truth_named, return_inverse=True)
        images, truth_images = (
            np.repeat(numbers, [len(getattr(image, field)) for _, image in present]).astype(np.int64)
            for field in ("scores", "truth_counts")
        )
        order = np.lexsort((-scores, named))  # stable: equal scores stay in the order of the images
        order = order[np.isin(named[order], names)]
        truth = _sparse(truth_counts, truth_categories, truth_images, (len(names), len(matches)))
        categories = np.searchsorted(names, named[order])
        return cls(images[order], categories, matched[order], ignored[order], truth)


@dataclass(frozen=True)
class _Curves:
    """Every true positive of every curve: curve t K + k is that of threshold t and category k, C curves in all.

    Precision only rises at true positives. The E true positives, by curve and then by score, are therefore all that the
    interpolation reads.

    Attributes:
        corpus: the detections.
        images: (E,) image of each true positive.
        places: (E,) number of detections of `_Corpus` up to and including it.
        bounds: (C + 1,) where the curves begin and end.
        bases: (C,) where the detections of a curve's category begin.
        crowd_images: (I,) images of the ignored detections, by curve and then by score.
        crowd_before: (E,) number of ignored detections before the true positive.
        crowd_bounds: (C,) number of ignored detections before the curve.
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
            np.nonzero(bits_of(bits).T) for bits in (corpus.matched, corpus.ignored)
        )
        # `nonzero` goes by threshold, then by place, and places are sorted by category: `curves` is ascending.
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

    def values(self, weights: np.ndarray, objects: np.ndarray) -> np.ndarray:
        """Average precision (R,) when image j counts weights[r, j] times and category k has objects[r, k] objects."""
        weights = weights.astype(np.float64)  # sums of integers are exact
        lengths = np.diff(self.bounds)
        true, everything = _running(weights, self.images), _running(weights, self.corpus.images)
        true_positives = true[:, 1:] - np.repeat(true[:, self.bounds[:-1]], lengths, axis=1)
        detections = np.take(everything, self.places, axis=1) - np.repeat(everything[:, self.bases], lengths, axis=1)
        if len(self.crowd_images):
            crowd = _running(weights, self.crowd_images)
            ignored = np.take(crowd, self.crowd_before, axis=1)
            detections -= ignored - np.repeat(crowd[:, self.crowd_bounds], lengths, axis=1)
        # The largest precision from here to the end of the curve. A later curve lies 2 lower than the one before it, so
        # one pass from the end serves all: no maximum crosses from one curve into another.
        height = np.repeat(-2.0 * np.arange(len(lengths)), lengths)
        # `np.spacing(1)` in the divisor is the one of pycocotools.
        detections += np.spacing(1)
        precision = true_positives / detections
        precision += height
        backwards = precision[:, ::-1]
        np.maximum.accumulate(backwards, axis=1, out=backwards)
        precision -= height
        read = self._at_recalls(precision, _levels(true_positives, self._repeated(objects)))
        by_category = read.mean(-1).reshape(len(weights), len(THRESHOLDS), -1).mean(1)
        return _mean(by_category, objects)

    def _repeated(self, objects: np.ndarray) -> np.ndarray:
        """(R, E) objects of the category of each true positive, from (R, K)."""
        return np.repeat(np.tile(objects, len(THRESHOLDS)), np.diff(self.bounds), axis=1)

    def _at_recalls(self, envelope: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """(R, C, 101) precision at each recall, 0 where a curve does not reach it.

        Args:
            envelope: (R, E) precision at each true positive.
            levels: (R, E) number of recalls that are reached there, as of `_levels`.
        """
        resamples, curves = len(envelope), len(self.bounds) - 1
        # Each curve gets one more place, with precision 0 for the recalls that it does not reach.
        places = np.arange(len(self.images)) + np.repeat(np.arange(curves), np.diff(self.bounds))
        ends = self.bounds[1:] + np.arange(curves)
        values = np.zeros((resamples, len(self.images) + curves))
        values[:, places] = envelope
        reached = np.full(values.shape, len(RECALLS))
        reached[:, places] = levels
        newly = np.diff(reached, axis=1, prepend=0)
        newly[:, ends[:-1] + 1] += len(RECALLS)  # a curve begins
        return np.repeat(values.reshape(-1), newly.reshape(-1)).reshape(resamples, curves, len(RECALLS))


def _levels(found: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Number of `RECALLS` that are at most the recall found / objects, in float64 as pycocotools compares them."""
    recall = found / np.maximum(objects, 1)
    np.minimum(recall, 1, out=recall)
    # Recalls are 0.01 apart: all below the nearest one are reached, and none above it.
    nearest = np.rint(recall * (len(RECALLS) - 1)).astype(np.int64)
    return nearest + (RECALLS[nearest] <= recall)


def _running(weights: np.ndarray, images: np.ndarray) -> np.ndarray:
    """(R, N + 1) sums of the weights (R, n) of the first 0, 1, ..., N of (N,) images."""
    total = np.zeros((len(weights), len(images) + 1))
    np.cumsum(np.take(weights, images, axis=1), axis=1, out=total[:, 1:])
    return total
