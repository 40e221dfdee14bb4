"""Mask metrics, each a pure function of one contingency table, each with a value and a validity per image.

`METRICS` lists them, `compute` evaluates any of them on label maps, `ocl_bench.metrics.torchmetrics.MaskMetric` turns
any of them into a `torchmetrics.Metric`. The definitions and where other code disagrees: `docs/why-numbers-differ.md`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..core.errors import UsageError
from .catalogue import CORPUS_METRICS, ROW_METRICS, CorpusMetric, RowMetric, knn_metric
from .clustering import Scores, ari, ari_int64_legacy, fg_ari, fg_ari_multi, vi
from .contingency import Contingency, LabelMaps, OverlapRule, VoidRule, contingency
from .overlap import Categories, mbo_all, mbo_class, mbo_fg, miou_all, miou_clevrtex, miou_fg

__all__ = [
    "CORPUS_METRICS",
    "METRICS",
    "ROW_METRICS",
    "Contingency",
    "CorpusMetric",
    "Metric",
    "RowMetric",
    "compute",
    "contingency",
    "evaluate_table",
    "find_metric",
    "mask_metric",
    "metric_names",
]

EmptyRule = Literal["skip", "one"]


@dataclass(frozen=True)
class Metric:
    """One number per image.

    direction: +1 when higher is better, -1 when lower is. low, high: range of the value. best: of a perfect prediction.
    function: `(contingency, background) -> (value, valid)`, both (B,).
    by_category: the function also takes the categories of the truth objects.
    selects: the metric leaves images out on purpose, so that `empty` does not bring them back.
    """

    name: str
    direction: Literal[1, -1]
    low: float
    high: float
    describe: str
    function: Callable[..., Scores]
    by_category: bool = False
    selects: bool = False
    best: float = 1.0


def _listed(*metrics: Metric) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}


METRICS: dict[str, Metric] = _listed(
    Metric("ari", 1, -1, 1, "adjusted Rand index, all annotated pixels", ari),
    Metric("fg_ari", 1, -1, 1, "adjusted Rand index, pixels of truth objects", fg_ari),
    Metric("fg_ari_multi", 1, -1, 1, "fg_ari, images with >= 2 objects", fg_ari_multi, selects=True),
    Metric("mbo_fg", 1, 0, 1, "mean best IoU over truth objects (mBO_i)", mbo_fg),
    Metric("mbo_class", 1, 0, 1, "mean best IoU over categories (mBO_c)", mbo_class, by_category=True),
    Metric("mbo_all", 1, 0, 1, "mean best IoU, background is an object", mbo_all),
    Metric("miou_fg", 1, 0, 1, "Hungarian IoU / number of truth objects", miou_fg),
    Metric("miou_all", 1, 0, 1, "Hungarian IoU, background is an object", miou_all),
    Metric("miou_clevrtex", 1, 0, 1, "mIoU of the official CLEVRTEX evaluator", miou_clevrtex),
    Metric("vi", -1, 0, math.inf, "variation of information in nats, all annotated pixels", vi, best=0.0),
    Metric("ari_int64_legacy", 1, -math.inf, math.inf, "ari with the int64 wrap of DIAS", ari_int64_legacy),
)


def compute(
    names: Iterable[str],
    truth: LabelMaps,
    prediction: LabelMaps,
    *,
    background: int | None = 0,
    void: VoidRule = "drop",
    overlap: OverlapRule = "drop",
    empty: EmptyRule = "skip",
    truth_categories: Categories | None = None,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Evaluate metrics on a batch of label maps, with one count of the pixels.

    names: keys of `METRICS`. truth, prediction, void, overlap: see `contingency`.
    background: truth label that is no object, or None when every label is an object.
    empty: "skip" leaves images where a metric is undefined invalid; "one" counts them as perfect (OCLF, slotcontrast
        and scikit-learn do so for FG-ARI), except for metrics that select images on purpose (`fg_ari_multi`).
    truth_categories: per image, the category of object label i at index i - 1; only `mbo_class` needs it.

    Returns name -> (value (B,) float64, valid (B,) bool), in the order of `names`; NaN where not valid.
    Raises UsageError for unknown names or rules and for maps that are not label maps.
    """
    chosen = [mask_metric(name) for name in names]
    counts = contingency(truth, prediction, void=void, overlap=overlap)
    return {m.name: evaluate_table(m, counts, background, empty, truth_categories) for m in chosen}


def evaluate_table(
    metric: Metric,
    counts: Contingency,
    background: int | None = 0,
    empty: EmptyRule = "skip",
    truth_categories: Categories | None = None,
) -> Scores:
    """Evaluate one metric on a table that is already counted; arguments and result as in `compute`."""
    if empty not in ("skip", "one"):
        raise UsageError(f"empty: '{empty}' is not a rule; use one of skip, one")
    if metric.by_category:
        value, valid = metric.function(counts, background, truth_categories)
    else:
        value, valid = metric.function(counts, background)
    if empty == "one" and not metric.selects:
        return np.where(valid, value, metric.best), np.ones_like(valid)
    return np.where(valid, value, np.nan), valid


def find_metric(name: str) -> Metric | CorpusMetric | RowMetric:
    """The metric of that name, of single images or videos or of a whole set, or a UsageError that suggests one."""
    known = METRICS | CORPUS_METRICS | ROW_METRICS
    found = known.get(name) or knn_metric(name)
    if found is not None:
        return found
    names = (*known, "knn_top1", "knn_top5")
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"did you mean '{close[0]}'?" if close else f"known are {', '.join(names)}"
    raise UsageError(f"metric '{name}' is unknown; {hint}")


def metric_names() -> list[str]:
    """All names, sorted; of the metrics of nearest neighbours those that the bundled cards use."""
    neighbours = [f"knn_top{top}{k}" for top in (1, 5) for k in ("", "_k10", "_k100", "_k200")]
    return sorted([*METRICS, *CORPUS_METRICS, *ROW_METRICS, *neighbours, "knn_top5_dino", "knn_top5_ibot"])


def mask_metric(name: str) -> Metric:
    """A metric of label maps. Raises UsageError for others."""
    found = find_metric(name)
    if not isinstance(found, Metric):
        raise UsageError(f"metric '{name}' is one of a whole set; these score label maps: {', '.join(METRICS)}")
    return found
