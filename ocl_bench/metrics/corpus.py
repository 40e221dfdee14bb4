"""Metrics of a whole set of images: names, ranges and meaning. Their arithmetic is in `detection.py` and `semantic.py`.

They are no means of per-image values: each bootstrap resample redoes the matching or the accumulation on its images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class CorpusMetric:
    """One number per set of images. direction: +1 when higher is better. low, high: range of the value."""

    name: str
    direction: Literal[1, -1]
    low: float
    high: float
    describe: str


_MATCHED = "one cluster per class (Hungarian on the counts of the whole set)"
_MAJORITY = "each cluster named after the class that it hits most"

CORPUS_METRICS: dict[str, CorpusMetric] = {
    name: CorpusMetric(name, 1, 0.0, high, describe)
    for name, high, describe in (
        ("ar100_mask", 1.0, "class-agnostic average recall of at most 100 masks, IoU .50:.05:.95"),
        ("ar100_box", 1.0, "class-agnostic average recall of at most 100 boxes, IoU .50:.05:.95"),
        ("ap_mask", 1.0, "class-agnostic COCO average precision of masks"),
        ("ap_box", 1.0, "class-agnostic COCO average precision of boxes"),
        ("probe_ap_box", 1.0, "COCO average precision of boxes, classes from a head on the frozen model"),
        ("probe_ap_mask", 1.0, "COCO average precision of masks, classes from a head on the frozen model"),
        ("miou_sem", 1.0, "IoU per class over all pixels of the set, mean over classes; without a head: " + _MATCHED),
        ("pixel_acc", 1.0, "share of correct pixels of the set; without a head: " + _MATCHED),
        ("miou_sem_kmeans", 1.0, "miou_sem of k-means clusters of the tokens, " + _MATCHED),
        ("pixel_acc_kmeans", 1.0, "pixel_acc of k-means clusters of the tokens, " + _MATCHED),
        ("miou_sem_majority", 1.0, "miou_sem, " + _MAJORITY),
        ("pixel_acc_majority", 1.0, "pixel_acc, " + _MAJORITY),
        ("top1_all", 1.0, "objects found and named / all truth objects"),
        ("top1", 1.0, "objects named / objects matched to a slot"),
        ("top3", 1.0, "objects with the right name among three / objects matched to a slot"),
        ("box_iou", 1.0, "mean IoU of the predicted boxes of matched objects"),
        ("n_matched", float("inf"), "number of truth objects that a slot was matched to"),
    )
}
