"""Agreement of two partitions: adjusted Rand index, its foreground variants, and variation of information.

Every function takes a `Contingency` and returns `(value, valid)`, both (B,), float64 and bool. A value counts only
where `valid` is True.
"""

from __future__ import annotations

import numpy as np

from .contingency import Contingency, exact_sum
from .metric import Scores


def ari(counts: Contingency, background: int | None = 0) -> Scores:
    """Adjusted Rand index over all annotated pixels, in -1..1; background is one more segment.

    0 is chance, negative values are kept. Invalid without annotated pixels. Two equal partitions score 1 even where
    the index is 0/0 (one segment on both sides). Hubert and Arabie, Comparing Partitions, 1985.
    """
    del background  # a segment like any other
    return _adjusted_rand(counts.table)


def fg_ari(counts: Contingency, background: int | None = 0) -> Scores:
    """ARI over the pixels of truth objects only, in -1..1. Slots that leak into the background cost nothing.

    Invalid without objects. With one object it is 1 when a single slot covers it and 0 when one pixel differs; report
    the share of such images beside it, or use `fg_ari_multi`. Greff et al., IODINE, arXiv:1903.00450.
    """
    return _adjusted_rand(_foreground(counts, background))


def fg_ari_multi(counts: Contingency, background: int | None = 0) -> Scores:
    """`fg_ari` over the images with two objects or more, where it is not all or nothing."""
    value, valid = fg_ari(counts, background)
    return value, valid & (counts.objects(background).sum(1) >= 2)


def vi(counts: Contingency, background: int | None = 0) -> Scores:
    """Variation of information in nats, H(truth | prediction) + H(prediction | truth), over all annotated pixels.

    0 is perfect, log(pixels) the worst; lower is better. Invalid without annotated pixels.
    Meila, Comparing Clusterings, 2007.
    """
    del background  # a segment like any other
    pixels = counts.table.sum((1, 2))
    joint, truth, predicted = (
        _entropy(areas / np.maximum(pixels, 1)[:, None])
        for areas in (_cells(counts.table), counts.table.sum(2), counts.table.sum(1))
    )
    value = 2 * joint - truth - predicted
    return np.maximum(value, 0.0), pixels > 0


def ari_int64_legacy(counts: Contingency, background: int | None = 0) -> Scores:
    """`ari` as the DIAS code family computes it, only to reproduce published numbers; it can exceed 1.

    Two sums of the order of pixels^2 are multiplied in int64, which wraps around once one segment on each side covers
    about 84 % of a 256 x 256 image; everything after the product is float32. The value is then too high: a single slot
    for everything can score .9 instead of 0. Read from Genera1Z/DIAS, `object_centric_bench/learn/metric.py`.
    """
    del background  # a segment like any other
    table = counts.table
    truth, predicted = table.sum(2), table.sum(1)
    pixels = truth.sum(1)
    both, of_truth, of_predicted = _ordered_pairs(_cells(table)), _ordered_pairs(truth), _ordered_pairs(predicted)
    single = np.float32
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        wrapped = of_truth * of_predicted
        expected = wrapped.astype(single) / np.maximum(pixels * (pixels - 1), 1).astype(single)
        largest = (of_truth + of_predicted).astype(single) / single(2)
        denominator = largest - expected
        value = (both.astype(single) - expected) / denominator
    return np.where(denominator == 0, 1.0, value.astype(np.float64)), pixels > 0


def _foreground(counts: Contingency, background: int | None) -> np.ndarray:
    return counts.table[:, np.arange(counts.table.shape[1]) != background]


def _cells(table: np.ndarray) -> np.ndarray:
    return table.reshape(len(table), table.shape[1] * table.shape[2])


def _ordered_pairs(areas: np.ndarray) -> np.ndarray:
    """Sum of n (n - 1) over the last axis, (B,) int64: below 2^46 for 24 x 518 x 518 pixels."""
    return (areas * (areas - 1)).sum(-1)


def _adjusted_rand(table: np.ndarray) -> Scores:
    """Exact integer arithmetic, one correctly rounded division: no overflow and no cancellation at any size."""
    truth, predicted = table.sum(2), table.sum(1)
    pixels = truth.sum(1)
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
    """(index - expected) / (maximum - expected) in Python integers, with all terms multiplied by 2 * everything."""
    chance = of_truth * of_predicted
    denominator = (of_truth + of_predicted) * everything - 2 * chance
    if denominator == 0:
        return 1.0
    return 2 * (both * everything - chance) / denominator


def _entropy(share: np.ndarray) -> np.ndarray:
    """(B,) entropy in nats of (B, N) shares; empty segments add nothing."""
    return -exact_sum(share * np.log(np.where(share > 0, share, 1.0)))
