"""Metrics of detection: COCO's average precision and recall, accumulated over the whole set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from ..metric import Metric
from ..of_set import Accumulated

if TYPE_CHECKING:
    import pandas

    from ..detection import Kind
    from ..statistics_of_set import Statistic

_FAMILY = ("detection",)
_COCO = "Lin et al., Microsoft COCO, ECCV 2014, arXiv:1405.0312; equal to pycocotools"
_PRECISION = "mean over IoU thresholds .50:.05:.95 (and over categories, if any) of precision at 101 recalls"
_RECALL = "mean over IoU thresholds .50:.05:.95 of the share of objects that one of at most 100 detections covers"
_NONE = "0 when there are objects but no detection; not defined without an object in the set"


def kind_of(name: str) -> Kind:
    """Kind of region that a metric of detection compares: `mask` or `box`, the last word of its name."""
    return cast("Kind", name.rpartition("_")[2])


def _accumulate(rows: pandas.DataFrame, name: str, protocol: Any) -> Statistic:
    # Imported here: task cards list metrics without the cost of loading what computes them.
    from ..accumulation import precision_statistic, recall_statistic
    from ..detection import from_columns

    build = recall_statistic if name.removeprefix("class_").startswith("ar100_") else precision_statistic
    if "image_id" not in rows:
        return build(from_columns(rows, kind_of(name)))
    # pycocotools goes by the ids of the JSON file, and the first image wins a tie; weights stay in the order of `rows`.
    order = rows["image_id"].reset_index(drop=True).sort_values(kind="stable").index.to_numpy()
    statistic = build(from_columns(rows.iloc[order], kind_of(name)))
    return lambda weights: statistic(weights[:, order])


def _has_detections(rows: pandas.DataFrame, name: str) -> pandas.Series:
    return rows[f"{kind_of(name)}_scores"].notna()


_SET = Accumulated(_accumulate, _has_detections)


def _metric(name: str, meaning: str, formula: str, source: str = _COCO, head: bool = False) -> Metric:
    return Metric(name, _FAMILY, meaning, formula=formula, edge_cases=_NONE, source=source, of_set=_SET, head=head)


_WORDS = (("mask", "masks"), ("box", "boxes"))

DEFINITIONS = (
    *(
        _metric(
            f"ar100_{kind}",
            f"class-agnostic average recall of at most 100 {words}, IoU .50:.05:.95",
            f"{_RECALL}; IoU of {words}",
        )
        for kind, words in _WORDS
    ),
    *(
        _metric(
            f"ap_{kind}",
            f"class-agnostic COCO average precision of {words}",
            f"{_PRECISION}; all objects are of one category; IoU of {words}",
        )
        for kind, words in _WORDS
    ),
    *(
        _metric(
            f"class_ar100_{kind}",
            f"average recall of at most 100 {words} of each category, IoU .50:.05:.95, mean over categories",
            f"{_RECALL}; IoU of {words} of one category",
        )
        for kind, words in _WORDS
    ),
    *(
        _metric(
            f"class_ap_{kind}",
            f"COCO average precision of {words}, mean over categories",
            f"{_PRECISION}; IoU of {words} of one category",
        )
        for kind, words in _WORDS
    ),
    *(
        _metric(
            f"probe_ap_{kind}",
            f"COCO average precision of {words}, classes from a head on the frozen model",
            f"{_PRECISION}; IoU of {words}",
            f"{_COCO}; the head is ours",
            head=True,
        )
        for kind, words in reversed(_WORDS)
    ),
)
