"""Metrics that are no function of the contingency table of one image: names, ranges and meaning.

`CORPUS_METRICS` are those of a whole set of images or videos: no means of per-image values, so that each bootstrap
resample redoes the matching or the accumulation on its images. `ROW_METRICS` are means of what each image or video has.
Their arithmetic is in `detection.py`, `semantic.py`, `video.py`, `davis.py` and `knn.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..core.errors import UsageError
from .knn import Mode, parse_metric


@dataclass(frozen=True)
class NamedMetric:
    """direction: +1 when higher is better. low, high: range of the value."""

    name: str
    direction: Literal[1, -1]
    low: float
    high: float
    describe: str


@dataclass(frozen=True)
class CorpusMetric(NamedMetric):
    """One number per set of images."""


@dataclass(frozen=True)
class RowMetric(NamedMetric):
    """One number per image or video that no contingency table gives."""


HIGHER: Literal[1] = 1
LOWER: Literal[-1] = -1

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
        ("mbo_frame", 1.0, "mean best IoU over truth objects of single frames, mean over all frames"),
        ("jf", 1.0, "DAVIS: mean of J and F, one matching per video, mean over all objects"),
        ("j", 1.0, "DAVIS: region similarity (IoU), mean over frames, then over all objects"),
        ("f", 1.0, "DAVIS: boundary measure, mean over frames, then over all objects"),
        ("j_recall", 1.0, "DAVIS: share of frames with J above 0.5, mean over all objects"),
        ("f_recall", 1.0, "DAVIS: share of frames with F above 0.5, mean over all objects"),
    )
} | {
    name: CorpusMetric(name, direction, -1.0, 1.0, describe)
    for name, direction, describe in (
        ("fg_ari_frame", HIGHER, "FG-ARI of single frames, mean over all frames"),
        ("j_decay", LOWER, "DAVIS: J of the first quarter of the frames minus the last, mean over all objects"),
        ("f_decay", LOWER, "DAVIS: F of the first quarter of the frames minus the last, mean over all objects"),
    )
}

ROW_METRICS: dict[str, RowMetric] = {
    "fg_ari_video": RowMetric("fg_ari_video", 1, -1.0, 1.0, "FG-ARI of tubes: one partition of all frames of a video"),
    "mbo_video": RowMetric("mbo_video", 1, 0.0, 1.0, "mean best IoU over the tubes of truth objects"),
}
"""Those of nearest neighbours have a pattern instead: see `knn_metric`."""

_TIES: dict[Mode, str] = {
    "strict": "a class without a vote never hits",
    "dino": "the first min(5, k) classes count, voted for or not, as DINO's code does",
    "ibot": "the first 5 classes count, voted for or not, as iBOT's code does",
}


def knn_metric(name: str) -> RowMetric | None:
    """The metric of nearest neighbours of that name (see `parse_metric`), or None."""
    try:
        top, k, mode = parse_metric(name)
    except UsageError:
        return None
    ties = f"; {_TIES[mode]}" if top == 5 else ""
    return RowMetric(name, 1, 0.0, 1.0, f"top-{top} of weighted {k}-NN{ties}")
