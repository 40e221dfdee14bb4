"""Metrics of semantic segmentation, computed from the confusion matrix of the whole set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..metric import Metric
from ..of_set import Accumulated

if TYPE_CHECKING:
    import pandas

    from ..statistics_of_set import Statistic

_FAMILY = ("segmentation",)
_MATCHED = "one cluster per class (Hungarian on the counts of the whole set)"
_MAJORITY = "each cluster named after the class that it hits most"
_IOU = "for each class with a pixel in truth or prediction: true positives / (union), over all pixels of the set; mean"
_ACCURACY = "right pixels / pixels with a class, over all pixels of the set"
_NONE = "pixels without a class count nowhere; not defined where the model gives no such map"
_PICIE = "Cho et al., PiCIE, CVPR 2021, arXiv:2103.17070"


def _accumulate(rows: pandas.DataFrame, name: str, protocol: Any) -> Statistic:
    from ..semantic_set import SemanticSet

    return SemanticSet(rows, name, protocol.classes)


def _has_pixels(rows: pandas.DataFrame, name: str) -> pandas.Series:
    if name.endswith("_kmeans"):
        return rows["id"].notna()
    return rows["counts"].map(len) > 0


_SET = Accumulated(_accumulate, _has_pixels)


def _metric(name: str, meaning: str, formula: str, source: str) -> Metric:
    return Metric(name, _FAMILY, meaning, formula=formula, edge_cases=_NONE, source=source, of_set=_SET, head=True)


DEFINITIONS = (
    _metric(
        "miou_sem",
        f"IoU per class over all pixels of the set, mean over classes; without a head: {_MATCHED}",
        _IOU,
        "Everingham et al., PASCAL VOC, IJCV 2010; classes as in mmsegmentation",
    ),
    _metric("pixel_acc", f"share of correct pixels of the set; without a head: {_MATCHED}", _ACCURACY, _PICIE),
    _metric("miou_sem_kmeans", f"miou_sem of k-means clusters of the tokens, {_MATCHED}", _IOU, _PICIE),
    _metric("pixel_acc_kmeans", f"pixel_acc of k-means clusters of the tokens, {_MATCHED}", _ACCURACY, _PICIE),
    _metric("miou_sem_majority", f"miou_sem, {_MAJORITY}", _IOU, "Van Gansbeke et al., MaskContrast, ICCV 2021"),
    _metric("pixel_acc_majority", f"pixel_acc, {_MAJORITY}", _ACCURACY, "Van Gansbeke et al., MaskContrast, ICCV 2021"),
)
