"""Agreement of two partitions: adjusted Rand index, its foreground variants, and variation of information.

Every function takes a `Contingency` and returns `(value, valid)`, both (B,), float64 and bool. A value counts only
where `valid` is True. The examples use `from ocl_bench.metrics import contingency`.
"""

from __future__ import annotations

import numpy as np

from .contingency import Contingency, exact_sum
from .metric import Scores


def ari(counts: Contingency, background: int | None = 0) -> Scores:
    """Adjusted Rand index over all annotated pixels, in -1..1; the background is one more segment.

    0 is the level of chance; negative values are kept. Two equal partitions score 1 even where the index is 0/0 (one
    segment on both sides). Source: Hubert and Arabie, Comparing Partitions, Journal of Classification 1985.

    Args:
        counts: the table of a batch of images.
        background: accepted for the common signature of all metrics, and ignored.

    Returns:
        Value and validity of each image; invalid without annotated pixels.

    Example:
        >>> truth, slots = np.array([[[0, 1, 1], [0, 2, 2]]]), np.array([[[0, 1, 1], [1, 2, 2]]])
        >>> value, valid = ari(contingency(truth, slots))
        >>> value.round(3), valid
        (array([0.444]), array([ True]))
    """
    del background  # a segment like any other
    return _adjusted_rand(counts.table)


def fg_ari(counts: Contingency, background: int | None = 0) -> Scores:
    """ARI over the pixels of truth objects only, in -1..1. Slots that leak into the background cost nothing.

    With one object it is 1 when a single slot covers it and 0 when one pixel differs; report the share of such images
    beside it, or use `fg_ari_multi`. Source: Greff et al., IODINE, arXiv:1903.00450.

    Args:
        counts: the table of a batch of images.
        background: truth label that is not an object; None when every label is an object.

    Returns:
        Value and validity of each image; invalid without objects.

    Example:
        >>> truth, slots = np.array([[[0, 1, 1], [0, 2, 2]]]), np.array([[[0, 1, 1], [1, 2, 2]]])
        >>> fg_ari(contingency(truth, slots))  # the background pixel in slot 1 costs nothing
        (array([1.]), array([ True]))
    """
    return _adjusted_rand(_foreground(counts, background))


def fg_ari_multi(counts: Contingency, background: int | None = 0) -> Scores:
    """`fg_ari` over the images with two objects or more, where it is not all or nothing.

    Arguments and result are those of `fg_ari`; invalid with fewer than two objects.

    Example:
        >>> truth, slots = np.array([[[0, 1, 1]], [[0, 1, 2]]]), np.array([[[0, 1, 1]], [[0, 1, 2]]])
        >>> fg_ari_multi(contingency(truth, slots))  # the first image has one object
        (array([1., 1.]), array([False,  True]))
    """
    value, valid = fg_ari(counts, background)
    return value, valid & (counts.objects(background).sum(1) >= 2)


def vi(counts: Contingency, background: int | None = 0) -> Scores:
    """Variation of information in nats, H(truth | prediction) + H(prediction | truth), over all annotated pixels.

    0 is perfect, log(pixels) the worst; lower is better. Source: Meila, Comparing Clusterings, Journal of Multivariate
    Analysis 2007.

    Args:
        counts: the table of a batch of images.
        background: accepted for the common signature of all metrics, and ignored.

    Returns:
        Value and validity of each image; invalid without annotated pixels.

    Example:
        >>> truth, slots = np.array([[[0, 1, 1], [0, 2, 2]]]), np.array([[[0, 1, 1], [1, 2, 2]]])
        >>> value, valid = vi(contingency(truth, slots))
        >>> value.round(3), valid
        (array([0.549]), array([ True]))
    """
    del background  # a segment like any other
    pixels = counts.table.sum((1, 2))
    joint, truth, predicted = (
        _entropy(areas / np.maximum(pixels, 1)[:, None])
        for areas in (_cells(counts.table), counts.table.sum(2), counts.table.sum(1))
    )
    value = 2 * joint - truth - predicted
    return np.maximum(value, 0.0), pixels > 0  # rounding can leave a perfect value just below 0


def ari_int64_legacy(counts: Contingency, background: int | None = 0) -> Scores:
    """`ari` as the DIAS code family computes it, only to reproduce published numbers; it can exceed 1.

    Two sums of the order of pixels^2 are multiplied in int64, which wraps around once one segment on each side covers
    about 84 % of a 256 x 256 image; everything after the product is float32. The value is then too high: a single slot
    for everything can score .9 instead of 0. Source: the code of Genera1Z/DIAS,
    `object_centric_bench/learn/metric.py`. Arguments and result are those of `ari`.

    Example:
        >>> truth, slots = np.array([[[0, 1, 1], [0, 2, 2]]]), np.array([[[0, 1, 1], [1, 2, 2]]])
        >>> value, valid = ari_int64_legacy(contingency(truth, slots))  # small images: the same value as ari
        >>> value.round(3), valid
        (array([0.444]), array([ True]))
    """
    del background  # a segment like any other
    table = counts.table
    truth, predicted = table.sum(2), table.sum(1)
    pixels = truth.sum(1)
    both, of_truth, of_predicted = _ordered_pairs(_cells(table)), _ordered_pairs(truth), _ordered_pairs(predicted)
    single = np.float32
    # The overflow is the point of this function: the order and the types of these lines are those of the DIAS code.
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        wrapped = of_truth * of_predicted
        expected = wrapped.astype(single) / np.maximum(pixels * (pixels - 1), 1).astype(single)
        largest = (of_truth + of_predicted).astype(single) / single(2)
        denominator = largest - expected
        value = (both.astype(single) - expected) / denominator
    return np.where(denominator == 0, 1.0, value.astype(np.float64)), pixels > 0


def _foreground(counts: Contingency, background: int | None) -> np.ndarray:
    """The table without the row of the background; the whole table for None."""
    return counts.table[:, np.arange(counts.table.shape[1]) != background]


def _cells(table: np.ndarray) -> np.ndarray:
    """(B, G P) counts of a (B, G, P) table; `reshape(len(table), -1)` fails for an empty batch."""
    return table.reshape(len(table), table.shape[1] * table.shape[2])


def _ordered_pairs(areas: np.ndarray) -> np.ndarray:
    """Sum of n (n - 1) over the last axis, (B,) int64: below 2^46 for 24 x 518 x 518 pixels, so int64 is enough."""
    return (areas * (areas - 1)).sum(-1)


def _adjusted_rand(table: np.ndarray) -> Scores:
    """Adjusted Rand index of each (G, P) table of a batch, in exact integers and one correctly rounded division."""
    truth, predicted = table.sum(2), table.sum(1)
    pixels = truth.sum(1)
    # `tolist` gives Python integers, which cannot overflow: products of two pair counts reach pixels^4 below.
    together = zip(
        _ordered_pairs(_cells(table)).tolist(),
        _ordered_pairs(truth).tolist(),
        _ordered_pairs(predicted).tolist(),
        (pixels * (pixels - 1)).tolist(),
        strict=True,
    )
    value = [_adjusted(*pairs) for pairs in together]
    return np.array(value, np.float64), pixels > 0


def _adjusted(both: int, of_truth: int, of_predicted: int, everything: int) -> float:
    """(index - expected) / (maximum - expected) in Python integers, with all terms multiplied by 2 * everything.

    Args:
        both: ordered pairs of pixels that are together in truth and prediction (the index).
        of_truth: ordered pairs that are together in the truth; `of_predicted` likewise.
        everything: all ordered pairs of pixels. The expected index is of_truth * of_predicted / everything.
    """
    chance = of_truth * of_predicted
    denominator = (of_truth + of_predicted) * everything - 2 * chance
    if denominator == 0:  # one segment, or only segments of one pixel, on both sides: the partitions are equal
        return 1.0
    return 2 * (both * everything - chance) / denominator


def _entropy(share: np.ndarray) -> np.ndarray:
    """(B,) entropy in nats of (B, N) shares; empty segments add nothing."""
    return -exact_sum(share * np.log(np.where(share > 0, share, 1.0)))
