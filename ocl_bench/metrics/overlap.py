"""Intersection over union of truth segments and slots: mean best overlap and Hungarian mIoU.

Every function takes a `Contingency` and returns `(value, valid)`, both (B,), float64 and bool. A value counts only
where `valid` is True. The union holds the whole predicted segment, background pixels included. The examples use
`from ocl_bench.metrics import contingency`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..core.errors import UsageError
from .contingency import Contingency, exact_sum
from .metric import Scores

Categories = Sequence[Sequence[int]]
"""Per image, the category of object label i at index i - 1."""


def mbo_fg(counts: Contingency, background: int | None = 0) -> Scores:
    """Mean best overlap of the objects (mBO_i): best IoU over the slots, mean over truth objects, in 0..1.

    A slot may be the best of several objects. Source: Pont-Tuset et al., TPAMI 2017, arXiv:1503.00848.

    Args:
        counts: the table of a batch of images.
        background: truth label that is not an object; None when every label is an object.

    Returns:
        Value and validity of each image; invalid without objects.

    Example:
        >>> truth, slots = np.array([[[0, 1, 1], [0, 2, 2]]]), np.array([[[0, 1, 1], [1, 2, 2]]])
        >>> value, valid = mbo_fg(contingency(truth, slots))  # (2/3 + 1) / 2
        >>> value.round(3), valid
        (array([0.833]), array([ True]))
    """
    return _mean_best(iou(counts), counts.objects(background))


def mbo_all(counts: Contingency, background: int | None = 0) -> Scores:
    """Mean best overlap with the background counted as an object, as in the code of DIAS and VQ-VFM-OCL, in 0..1.

    Result as in `mbo_fg`; `background` is ignored. Invalid without annotated pixels.

    Example:
        >>> truth, slots = np.array([[[0, 1, 1], [0, 2, 2]]]), np.array([[[0, 1, 1], [1, 2, 2]]])
        >>> value, valid = mbo_all(contingency(truth, slots))  # (1/2 + 2/3 + 1) / 3
        >>> value.round(3), valid
        (array([0.722]), array([ True]))
    """
    del background  # an object like any other
    return _mean_best(iou(counts), counts.objects(None))


def mbo_class(counts: Contingency, background: int | None = 0, categories: Categories | None = None) -> Scores:
    """Mean best overlap of the categories (mBO_c): objects of one category are united first, in 0..1.

    Source: Seitzer et al., DINOSAUR, arXiv:2209.14860.

    Args:
        counts: the table of a batch of images.
        background: truth label that is not an object; None when every label is an object.
        categories: for each image, the category of object label i at index i - 1.

    Returns:
        Value and validity of each image; invalid without objects.

    Raises:
        UsageError: without categories, or where an object has none.

    Example:
        >>> truth, slots = np.array([[[0, 1, 1], [0, 2, 2]]]), np.array([[[0, 1, 1], [1, 2, 2]]])
        >>> mbo_class(contingency(truth, slots), categories=[(7, 7)])  # both objects are one segment of 4 pixels
        (array([0.5]), array([ True]))
    """
    if categories is None:
        raise UsageError("mbo_class: needs truth_categories, one category per object; this truth has none")
    if len(categories) != len(counts):
        raise UsageError(f"mbo_class: truth_categories has {len(categories)} entries for {len(counts)} images")
    objects = counts.objects(background)
    merged = [_merge(*image) for image in zip(counts.table, objects, categories, range(len(counts)), strict=True)]
    # Images differ in their number of categories: rows of zeros, which are not objects, fill up the batch.
    height = max([1, *map(len, merged)])
    table = np.stack([np.pad(rows, ((0, height - len(rows)), (0, 0))) for rows in merged]) if merged else counts.table
    united = Contingency(table, counts.predicted, counts.n_overlap)
    return _mean_best(iou(united), united.objects(None))


def miou_fg(counts: Contingency, background: int | None = 0) -> Scores:
    """Hungarian IoU of the objects, divided by the number of truth objects, in 0..1.

    Each slot serves one object. An object without a slot counts as 0; a slot without an object costs nothing.

    Args:
        counts: the table of a batch of images.
        background: truth label that is not an object; None when every label is an object.

    Returns:
        Value and validity of each image; invalid without objects.

    Example:
        >>> truth, slots = np.array([[[0, 1, 1], [0, 2, 2]]]), np.array([[[0, 1, 1], [0, 1, 1]]])
        >>> miou_fg(contingency(truth, slots))  # slot 1 serves one of the two objects; mbo_fg would be 0.5
        (array([0.25]), array([ True]))
    """
    return _matched(counts, counts.objects(background))


def miou_all(counts: Contingency, background: int | None = 0) -> Scores:
    """`miou_fg` with the background counted as an object, as in the code of DIAS and VQ-VFM-OCL, in 0..1.

    Result as in `miou_fg`; `background` is ignored. Invalid without annotated pixels.

    Example:
        >>> truth, slots = np.array([[[0, 1, 1], [0, 2, 2]]]), np.array([[[0, 1, 1], [0, 1, 1]]])
        >>> miou_all(contingency(truth, slots))  # (1 + 1/2 + 0) / 3
        (array([0.5]), array([ True]))
    """
    del background  # an object like any other
    return _matched(counts, counts.objects(None))


def miou_clevrtex(counts: Contingency, background: int | None = 0) -> Scores:
    """The `mIoU` of the official CLEVRTEX evaluator, in 0..1: the background is matched, spare slots count as 0.

    It is the Hungarian IoU over all truth segments and all non-empty slots, divided by the number of pairs with at
    least one side that is not empty. The official pairing of slots that touch no unmatched segment depends on their
    order. Here as many as possible are paired: the divisor is the larger of the two numbers of segments. Source: the
    code of karazijal/clevrtex, `ool/clevrtex_eval.py`. Result as in `miou_fg`; invalid without annotated pixels.

    Example:
        >>> truth, slots = np.array([[[0, 0, 1, 1]]]), np.array([[[0, 2, 1, 1]]])
        >>> miou_clevrtex(contingency(truth, slots))  # (1/2 + 1) / 3, for slot 2 is spare; miou_all is 0.75
        (array([0.5]), array([ True]))
    """
    del background  # matched like an object
    segments, slots = counts.objects(None), counts.predicted > 0
    pairs = np.maximum(segments.sum(1), slots.sum(1))
    return _matched_sum(counts, segments) / np.maximum(pairs, 1), segments.sum(1) > 0


def iou(counts: Contingency) -> np.ndarray:
    """(B, G, P) float64 intersection over union of each truth segment and slot; 0 where both are empty."""
    union = counts.truth[:, :, None] + counts.predicted[:, None, :] - counts.table
    return counts.table / np.maximum(union, 1)


def _mean_best(overlap: np.ndarray, segments: np.ndarray) -> Scores:
    """Mean over `segments` (B, G) bool of the best of (B, G, P) overlaps."""
    number = segments.sum(1)
    return exact_sum(overlap.max(2) * segments) / np.maximum(number, 1), number > 0


def _matched(counts: Contingency, segments: np.ndarray) -> Scores:
    """Hungarian IoU divided by the number of `segments` (B, G) bool."""
    number = segments.sum(1)
    return _matched_sum(counts, segments) / np.maximum(number, 1), number > 0


def _matched_sum(counts: Contingency, segments: np.ndarray) -> np.ndarray:
    """(B,) largest sum of IoU over one-to-one pairings of segments and slots that are not empty."""
    from scipy.optimize import linear_sum_assignment  # slow to import, and processes that only read need it never

    total = np.zeros(len(counts))
    for index, image in enumerate(zip(iou(counts), segments, counts.predicted > 0, strict=True)):
        overlap, rows, columns = image
        # Empty rows and columns are padding of the batch; without them the matching is that of the image alone.
        gain = overlap[rows][:, columns]
        total[index] = math.fsum(gain[linear_sum_assignment(gain, maximize=True)].tolist())
    return total


def _merge(table: np.ndarray, objects: np.ndarray, categories: Sequence[int], index: int) -> np.ndarray:
    """(C, P) counts of one image with the rows of equal category added."""
    labels = np.flatnonzero(objects)
    outside = [label for label in labels.tolist() if not 1 <= label <= len(categories)]
    if outside:
        raise UsageError(
            f"mbo_class: object {outside[0]} of image {index} of the batch has no category; truth_categories lists "
            f"{len(categories)}, one per object label 1, 2, ..."
        )
    kinds, row = np.unique(np.asarray(categories, np.int64)[labels - 1], return_inverse=True)
    merged = np.zeros((len(kinds), table.shape[1]), np.int64)
    np.add.at(merged, row, table[labels])
    return merged
