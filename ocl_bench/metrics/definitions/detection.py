"""Metrics of detection: COCO's average precision and recall, accumulated over the whole set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from ..metric import Metric
from ..of_set import Accumulated

if TYPE_CHECKING:
    import pandas

    from ..detection import Kind
    from ..statistics import Statistic

_FAMILY = ("detection",)
_COCO = "Lin et al., Microsoft COCO, ECCV 2014, arXiv:1405.0312; equal to pycocotools"
_PRECISION = "mean over IoU thresholds .50:.05:.95 (and over categories, if any) of precision at 101 recalls"
_RECALL = "mean over IoU thresholds .50:.05:.95 of the share of objects that one of at most 100 detections covers"
_NONE = "not defined without an object in the set, or without any detection"


def kind_of(name: str) -> Kind:
    """What a metric of detection compares: `mask` or `box`, the last word of its name."""
    return cast("Kind", name.rpartition("_")[2])


def _accumulate(rows: pandas.DataFrame, name: str, protocol: Any) -> Statistic:
    from ..accumulation import precision_statistic, recall_statistic
    from ..detection import from_columns

    build = recall_statistic if name.startswith("ar100_") else precision_statistic
    return build(from_columns(rows, kind_of(name)))


def _has_detections(rows: pandas.DataFrame, name: str) -> pandas.Series:
    return rows[f"{kind_of(name)}_scores"].notna()


_SET = Accumulated(_accumulate, _has_detections)

DEFINITIONS = (
    *(
        Metric(
            f"ar100_{kind}",
            _FAMILY,
            f"class-agnostic average recall of at most 100 {words}, IoU .50:.05:.95",
            formula=f"{_RECALL}; IoU of {words}",
            edge_cases=_NONE,
            source=_COCO,
            of_set=_SET,
            head=False,
        )
        for kind, words in (("mask", "masks"), ("box", "boxes"))
    ),
    *(
        Metric(
            f"ap_{kind}",
            _FAMILY,
            f"class-agnostic COCO average precision of {words}",
            formula=f"{_PRECISION}; all objects are of one category; IoU of {words}",
            edge_cases=_NONE,
            source=_COCO,
            of_set=_SET,
            head=False,
        )
        for kind, words in (("mask", "masks"), ("box", "boxes"))
    ),
    *(
        Metric(
            f"probe_ap_{kind}",
            _FAMILY,
            f"COCO average precision of {words}, classes from a head on the frozen model",
            formula=f"{_PRECISION}; IoU of {words}",
            edge_cases=_NONE,
            source=f"{_COCO}; the head is ours",
            of_set=_SET,
            head=True,
        )
        for kind, words in (("box", "boxes"), ("mask", "masks"))
    ),
)
