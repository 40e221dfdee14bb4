"""Semantic segmentation of a whole set: every metric is computed from one confusion matrix.

A confusion matrix is (C, K) int64: pixels with truth class c and predicted class or cluster k. Pixels without a truth
class count on neither side, as in mmsegmentation. The matrices of bootstrap resamples are weighted sums of the stored
cells of single images; the matching of clusters to classes is redone for each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core.errors import UsageError
from .ignored import IgnoreIndex, with_void

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

MAX_BYTES = 8_000_000
"""Memory that the matrices of some bootstrap resamples may take at a time."""


class Areas(NamedTuple):
    """Pixels of each class, all that the metrics read of a confusion matrix: (..., C) float64 of whole numbers.

    Attributes:
        matched: pixels that have the class in truth and prediction.
        truth: pixels of the class in the truth.
        predicted: pixels of the class in the prediction.
    """

    matched: NDArray[np.float64]
    truth: NDArray[np.float64]
    predicted: NDArray[np.float64]

    @classmethod
    def of(cls, matrix: NDArray[np.number]) -> Areas:
        """The areas of matrices (..., C, C)."""
        parts = np.diagonal(matrix, axis1=-2, axis2=-1), matrix.sum(-1), matrix.sum(-2)
        # In C order, so that the sums over classes do not depend on the memory layout of the matrices.
        return cls(*(part.astype(np.float64, order="C") for part in parts))

    @property
    def union(self) -> NDArray[np.float64]:
        """Pixels of the class on either side."""
        return self.truth + self.predicted - self.matched

    def miou_sem(self, counted: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        """`miou_sem` of the matrices."""
        union = self.union
        shares = self.matched / np.maximum(union, 1)
        valid = union > 0 if counted is None else np.broadcast_to(counted, union.shape)
        number = valid.sum(-1)
        return np.where(number > 0, (shares * valid).sum(-1) / np.maximum(number, 1), np.nan)

    def pixel_acc(self) -> NDArray[np.float64]:
        """`pixel_acc` of the matrices."""
        total = self.truth.sum(-1)
        return np.where(total > 0, self.matched.sum(-1) / np.maximum(total, 1), np.nan)


def confusion(
    truth: np.ndarray,
    prediction: np.ndarray,
    classes: int,
    clusters: int | None = None,
    *,
    ignore_index: IgnoreIndex = "auto",
) -> NDArray[np.int64]:
    """Pixel counts (classes, clusters) of label maps of any equal shape.

    Args:
        truth: integer class of each pixel; negative values are void.
        prediction: integer class or cluster of each pixel, of the same shape.
        classes: number of classes.
        clusters: number of predicted ids, by default `classes`.
        ignore_index: class that also means void, see `ocl_bench.metrics.ignored`; all pixels count as one map.

    Raises:
        UsageError: for other shapes, and for ids out of range.

    Example:
        >>> truth, prediction = np.array([[0, 0, 1], [1, 1, -1]]), np.array([[0, 1, 1], [1, 1, 0]])
        >>> confusion(truth, prediction, classes=2).tolist()
        [[1, 1], [0, 3]]
    """
    clusters = classes if clusters is None else clusters
    if truth.shape != prediction.shape:
        raise UsageError(f"prediction: shape {prediction.shape} differs from the truth's {truth.shape}")
    truth = with_void(truth[None], ignore_index)[0]
    known = truth >= 0
    actual, named = truth[known].astype(np.int64), prediction[known].astype(np.int64)
    if actual.size and (actual.max() >= classes):
        raise UsageError(f"truth: class {actual.max()} of {classes} classes; does the card's `classes` fit the data?")
    if named.size and (named.min() < 0 or named.max() >= clusters):
        worst = named.min() if named.min() < 0 else named.max()
        raise UsageError(f"prediction: class {worst} is outside 0..{clusters - 1}")
    return np.bincount(actual * clusters + named, minlength=classes * clusters).reshape(classes, clusters)


def miou_sem(matrix: NDArray[np.number], counted: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """Mean IoU (...,) of matrices (..., C, C). Classes that occur on neither side are left out; NaN when none occurs.

    Args:
        matrix: (..., C, C) pixel counts.
        counted: (C,) bool, the classes that count; by default those that occur. A bootstrap fixes it to the classes of
            the full set: a class that a resample happens to miss counts as 0, and the number of classes stays.

    Example:
        >>> miou_sem(np.array([[1, 1], [0, 3]]))  # (1/2 + 3/4) / 2
        array(0.625)
    """
    return Areas.of(matrix).miou_sem(counted)


def pixel_acc(matrix: NDArray[np.number]) -> NDArray[np.float64]:
    """Share of correct pixels (...,) of matrices (..., C, C); NaN without pixels.

    Example:
        >>> pixel_acc(np.array([[1, 1], [0, 3]]))
        array(0.8)
    """
    return Areas.of(matrix).pixel_acc()


def occurring(matrix: NDArray[np.number]) -> NDArray[np.bool_]:
    """(C,) bool: classes of a square matrix that are in the truth or in the prediction."""
    return Areas.of(matrix).union > 0


def match_clusters(matrix: NDArray[np.number]) -> NDArray[np.number]:
    """A matrix (C, C) from (C, K): Hungarian matching names each cluster after one class, for most correct pixels.

    There is one matching on the counts of the whole set, as in PiCIE (Cho et al., arXiv:2103.17070). With K < C some
    classes get no cluster.

    Raises:
        UsageError: for K > C, where clusters would be left over; use `majority` there.

    Example:
        >>> match_clusters(np.array([[1, 9], [8, 2]])).tolist()  # cluster 1 is class 0
        [[9, 1], [2, 8]]
    """
    from scipy.optimize import linear_sum_assignment  # slow to import, and processes that only read need it never

    classes, clusters = matrix.shape
    if clusters > classes:
        raise UsageError(f"{clusters} clusters cannot be matched one to one to {classes} classes")
    rows, columns = linear_sum_assignment(np.asarray(matrix, dtype=np.float64), maximize=True)
    named = np.zeros((classes, classes), dtype=matrix.dtype)
    named[:, rows] = matrix[:, columns]
    return named


def majority(matrix: NDArray[np.number]) -> NDArray[np.number]:
    """A matrix (C, C) from (C, K): each cluster is named after the class with most pixels in it.

    Example:
        >>> majority(np.array([[3, 0, 1], [0, 2, 4]])).tolist()  # clusters 1 and 2 are both class 1
        [[3, 1], [0, 6]]
    """
    named = np.zeros((len(matrix), len(matrix)), dtype=matrix.dtype)
    np.add.at(named.T, matrix.argmax(0), matrix.T)
    return named


@dataclass(frozen=True)
class ConfusionCells:
    """The confusion matrices of n images as a sparse (n, C K) matrix of counts."""

    counts: csr_matrix
    shape: tuple[int, int]

    @classmethod
    def of(
        cls,
        codes: Sequence[np.ndarray],
        counts: Sequence[np.ndarray],
        images: Sequence[int],
        n: int,
        shape: tuple[int, int],
    ) -> ConfusionCells:
        """The matrices of images from the cells that their rows store.

        Args:
            codes: for each row, the codes c K + k of its cells.
            counts: for each row, the pixels of its cells.
            images: for each row, the image 0..n-1 that it belongs to; several rows may share one.
            n: number of images.
            shape: (C, K) of the matrices.
        """
        from scipy.sparse import csr_matrix

        lengths = [len(code) for code in codes]
        rows = np.repeat(np.asarray(images, dtype=np.int64), lengths)
        flat = (
            np.concatenate([*map(np.asarray, parts), np.zeros(0, np.int64)]).astype(np.int64)
            for parts in (codes, counts)
        )
        columns, values = flat
        return cls(csr_matrix((values, (rows, columns)), shape=(n, shape[0] * shape[1])), shape)

    def matrices(self, weights: NDArray[np.int64]) -> NDArray[np.int64]:
        """Confusion matrices (R, C, K) when image j is drawn weights[r, j] times."""
        product = self.counts.T @ np.asarray(weights, dtype=np.int64).T
        # A view: copying (C K, R) into (R, C K) takes twice as long as the product itself.
        return np.moveaxis(product.reshape(*self.shape, len(weights)), -1, 0)

    def areas(self) -> Areas:
        """Areas (n, C) of each image, for matrices whose columns are classes."""
        from scipy.sparse import coo_matrix

        classes, _ = self.shape
        cells = self.counts.tocoo()
        truth, named = np.divmod(cells.col, classes)
        hit = truth == named
        parts = (
            (cells.row[hit], truth[hit], cells.data[hit]),
            (cells.row, truth, cells.data),
            (cells.row, named, cells.data),
        )
        shape = (self.counts.shape[0], classes)
        return Areas(
            *(coo_matrix((data, (rows, columns)), shape, np.float64).toarray() for rows, columns, data in parts)
        )

    def batches(self, weights: NDArray[np.int64]) -> list[slice]:
        """Slices of the rows of `weights` whose matrices stay below the memory limit."""
        step = max(1, MAX_BYTES // (8 * 3 * self.shape[0] * self.shape[1]))
        return [slice(start, start + step) for start in range(0, len(weights), step)]


def cells(matrix: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Codes and counts of the cells of a matrix (C, K) that are not empty, as the row of an image stores them.

    Example:
        >>> cells(np.array([[1, 1], [0, 3]]))
        (array([0, 1, 3], dtype=int32), array([1, 1, 3], dtype=int32))
    """
    codes = np.flatnonzero(matrix)
    return codes.astype(np.int32), matrix.reshape(-1)[codes].astype(np.int32)
