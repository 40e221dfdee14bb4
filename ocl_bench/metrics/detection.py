"""Matching of detections to truth by COCO's rule, for boxes and masks, one image at a time.

`match_images` matches detections to truth, one image at a time, by the greedy rule of `pycocotools` (Lin et al., ECCV
2014, arXiv:1405.0312; area range `all`, crowds ignored). It returns a few short arrays for each image, `Matches`, which
are stored. `average_precision` and `average_recall` (see `accumulation`) accumulate them over a set in which every
image counts `weights` times. With ones they are the numbers of `pycocotools` and `faster-coco-eval`; with the counts of
a bootstrap resample they are those of the resample. The C++ of `faster-coco-eval` does not return the matches,
therefore they are made here: one integer holds the 10 thresholds of a pair as bits, and all are matched at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..core.errors import UsageError
from ..core.types import Instance, Truth

if TYPE_CHECKING:
    import pandas

Kind: TypeAlias = Literal["mask", "box"]
KINDS: tuple[Kind, ...] = ("mask", "box")

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""IoU thresholds, computed as `pycocotools` does."""

_EVERY_BIT = (1 << len(THRESHOLDS)) - 1


@dataclass(frozen=True)
class Detections:
    """The detections of a model in one image, in pixels of the whole image.

    Attributes:
        boxes: (N, 4) float64, x0, y0, x1, y1 with exclusive right and lower edge.
        scores: (N,) float64.
        labels: (N,) int64 category ids; zeros when the model does not name categories.
        masks: N COCO run-length codes, or None for boxes without masks.
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

    Attributes:
        scores: (D,) float64.
        categories: (D,) int32; 0 when classes do not matter.
        matched: (D,) uint16; bit t is set when the detection meets an object at `THRESHOLDS[t]`.
        ignored: (D,) uint16; bit t is set when it meets a crowd instead: it then counts neither as right nor as wrong.
        truth_categories: (C,) int32, sorted.
        truth_counts: (C,) int32, objects of each category that are not crowds.
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
    """Columns `mask_scores`, `mask_categories`, ... of the row of an image; their values are None without matches."""
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

    Args:
        truth: one for each image.
        detections: one for each image.
        kind: whether IoU is that of masks or of boxes.
        class_agnostic: whether every object and detection gets category 0.
        max_detections: number of best detections of an image and category that take part. Of equal scores the earlier
            detection comes first, as in `pycocotools`.

    Returns:
        The matches of each image. When masks are compared, None for an image whose detections have no masks, or whose
        objects all have none; a single object without a mask is left out.

    Raises:
        UsageError: for run-length codes of another size than those of the truth.

    Example:
        >>> truth = Truth(np.zeros((8, 8), np.int16), instances=(Instance(1, (0, 0, 4, 4), None, 16.0),))
        >>> found = Detections(np.array([[0, 0, 4, 3.0]]), np.array([0.9]), np.array([1]), None)  # IoU 0.75
        >>> bin(match_images([truth], [found], "box")[0].matched[0])  # a hit at the 6 thresholds .50:.05:.75
        '0b111111'
    """
    return [_match_image(*image, kind, class_agnostic, max_detections) for image in zip(truth, detections, strict=True)]


def _match_image(
    truth: Truth, detections: Detections, kind: Kind, class_agnostic: bool, max_detections: int
) -> Matches | None:
    instances = sorted(truth.instances, key=lambda instance: instance.crowd)  # stable, crowds last
    if kind == "mask":
        masked = [instance for instance in instances if instance.mask is not None]
        if detections.masks is None or (instances and not masked):
            return None
        instances = masked
    crowd = np.array([instance.crowd for instance in instances], bool)
    categories = np.array([0 if class_agnostic else instance.category for instance in instances], np.int32)
    labels = np.zeros(len(detections), np.int32) if class_agnostic else detections.labels.astype(np.int32)
    order = _best(detections.scores, labels, max_detections)
    matched, ignored = np.zeros(len(order), np.uint16), np.zeros(len(order), np.uint16)
    if len(order) and instances:
        overlap = _overlap(instances, detections, order, kind)
        if not class_agnostic:
            overlap[labels[order][:, None] != categories[None]] = 0  # an IoU of 0 is below every threshold
        _assign(overlap, crowd, matched, ignored)
    counts = dict(sorted(Counter(categories[~crowd].tolist()).items()))  # np.unique costs more than the matching
    return Matches(
        detections.scores[order].astype(np.float64),
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


def _overlap(instances: Sequence[Instance], detections: Detections, order: np.ndarray, kind: Kind) -> np.ndarray:
    """(D, G) IoU of the detections in `order` and the objects; for a crowd the share of the detection that is in it."""
    from pycocotools import mask as coco_mask

    crowd = [int(instance.crowd) for instance in instances]
    if kind == "box":
        boxes = detections.boxes[order].astype(np.float64)
        true_boxes = np.array([instance.box for instance in instances], np.float64)
        for corners in (boxes, true_boxes):
            corners[:, 2:] -= corners[:, :2]  # x, y, width, height, as pycocotools wants them
        return coco_mask.iou(boxes, true_boxes, crowd)
    masks = [detections.masks[position] for position in order] if detections.masks is not None else []
    objects = [instance.mask for instance in instances if instance.mask is not None]
    sizes = {tuple(mask["size"]) for mask in (*masks, *objects)}
    if len(sizes) > 1:
        shown = " and ".join(f"{height} x {width}" for height, width in sorted(sizes))
        raise UsageError(f"masks of one image have sizes {shown} (height x width); encode them at the image's own size")
    return coco_mask.iou(masks, objects, crowd)


def _assign(overlap: np.ndarray, crowd: np.ndarray, matched: np.ndarray, ignored: np.ndarray) -> None:
    """Fill in the bits: best detection first, each takes its best object that is still free, else a crowd.

    At each threshold this is the loop of `pycocotools`; of equal IoUs the later object is taken, as there.

    Args:
        overlap: (D, G) IoU, detections in the order of their turns.
        crowd: (G,) bool.
        matched: (D,) bits to fill in, see `Matches`; `ignored` likewise.
    """
    rows, columns = np.nonzero(overlap >= THRESHOLDS[0])
    values = overlap[rows, columns]
    order = np.lexsort((-columns, -values, crowd[columns], rows))
    reached = (1 << np.searchsorted(THRESHOLDS, values[order], side="right")) - 1
    # Bit t of `free[g]`: object g is not taken at threshold t. Bit t of `left`: this detection has no object yet.
    free = [_EVERY_BIT] * overlap.shape[1]
    last, left = -1, 0
    for row, column, bits in zip(rows[order].tolist(), columns[order].tolist(), reached.tolist(), strict=True):
        if row != last:
            last, left = row, _EVERY_BIT
        hit = bits & left
        if crowd[column]:  # a crowd takes any number of detections
            ignored[row] |= hit
        else:
            hit &= free[column]
            free[column] &= ~hit
            matched[row] |= hit
        left &= ~hit


def image_recall(matches: Matches | None) -> float:
    """Average recall of one image over thresholds and its categories; NaN without objects.

    Example:
        >>> truth = Truth(np.zeros((8, 8), np.int16), instances=(Instance(1, (0, 0, 4, 4), None, 16.0),))
        >>> found = Detections(np.array([[0, 0, 4, 3.0]]), np.array([0.9]), np.array([1]), None)
        >>> image_recall(match_images([truth], [found], "box")[0])  # IoU 0.75: found at 6 of 10 thresholds
        0.6
    """
    if matches is None or not len(matches.truth_counts):
        return float("nan")
    hits = bits_of(matches.matched).sum(1).astype(np.float64)
    position = np.searchsorted(matches.truth_categories, matches.categories)
    known = np.isin(matches.categories, matches.truth_categories)
    per_category = np.bincount(position[known], hits[known], minlength=len(matches.truth_counts))
    return float((per_category / matches.truth_counts).mean() / len(THRESHOLDS))


def bits_of(bits: np.ndarray) -> NDArray[np.bool_]:
    """(D, T) bool, one column for each of `THRESHOLDS`, from (D,) integers of `Matches`."""
    return (bits[:, None] >> np.arange(len(THRESHOLDS), dtype=np.uint16)) & 1 == 1
