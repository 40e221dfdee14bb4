"""Metrics of recognition: ratios of sums over all objects of the set."""

from __future__ import annotations

from ..metric import Metric
from ..of_set import OfSet, SumRatio, Total

_FAMILY = ("recognition",)
_SOURCE = "Zhao et al., SmoothSA and RandSF.Q, `obj_discov_recogn.py`; objects without a slot are our addition"
_NO_MATCH = "not defined where no object is matched to a slot (above protocol.matching_iou)"


def _metric(name: str, meaning: str, formula: str, edge_cases: str, of_set: OfSet, high: float = 1.0) -> Metric:
    return Metric(
        name,
        _FAMILY,
        meaning,
        high=high,
        formula=formula,
        edge_cases=edge_cases,
        source=_SOURCE,
        of_set=of_set,
        head=True,
        best=high,
    )


DEFINITIONS = (
    _metric(
        "top1_all",
        "objects found and named / all truth objects",
        "matched objects whose first category is right / all truth objects",
        "not defined without an object; an object that no slot was matched to counts as wrong",
        SumRatio("n_correct1", "n_objects"),
    ),
    _metric(
        "top1",
        "objects named / objects matched to a slot",
        "matched objects whose first category is right / matched objects",
        _NO_MATCH,
        SumRatio("n_correct1", "n_matched"),
    ),
    _metric(
        "top3",
        "objects with the right name among three / objects matched to a slot",
        "matched objects whose category is among the first three / matched objects",
        _NO_MATCH,
        SumRatio("n_correct3", "n_matched"),
    ),
    _metric(
        "box_iou",
        "mean IoU of the predicted boxes of matched objects",
        "sum of the IoU of predicted and true box / matched objects",
        _NO_MATCH,
        SumRatio("sum_box_iou", "n_matched"),
    ),
    _metric(
        "n_matched",
        "number of truth objects that a slot was matched to",
        "truth objects whose matched slot has an IoU above protocol.matching_iou",
        "0 without an object",
        Total(),
        high=float("inf"),
    ),
)
