"""Mask metrics, each a pure function of one contingency table, each with a value and a validity per image.

`METRICS` lists them, `compute` evaluates any of them on label maps, `ocl_bench.metrics.torchmetrics.MaskMetric` turns
any of them into a `torchmetrics.Metric`. The definitions and where other code disagrees: `docs/why-numbers-differ.md`.
Metrics of other families stand beside them in `catalogue.CATALOGUE`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np

from ..core.errors import UsageError
from .catalogue import CATALOGUE, find_metric, is_metric, metric_names
from .contingency import Contingency, LabelMaps, OverlapRule, VoidRule, contingency
from .metric import Metric, Scores
from .overlap import Categories

__all__ = [
    "CATALOGUE",
    "METRICS",
    "Contingency",
    "Metric",
    "compute",
    "contingency",
    "evaluate_table",
    "find_metric",
    "is_metric",
    "mask_metric",
    "metric_names",
]

EmptyRule = Literal["skip", "one"]

METRICS: dict[str, Metric] = {name: metric for name, metric in CATALOGUE.items() if metric.function is not None}
"""Metrics of label maps, which `compute` evaluates."""


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
    function = metric.function
    if function is None:
        raise UsageError(f"metric '{metric.name}' is not a function of one table; these are: {', '.join(METRICS)}")
    if metric.by_category:
        value, valid = function(counts, background, truth_categories)
    else:
        value, valid = function(counts, background)
    if empty == "one" and not metric.selects:
        return np.where(valid, value, metric.best), np.ones_like(valid)
    return np.where(valid, value, np.nan), valid


def mask_metric(name: str) -> Metric:
    """A metric of label maps. Raises UsageError for others."""
    found = METRICS.get(name) or find_metric(name)
    if found.function is None:
        raise UsageError(f"metric '{name}' is one of a whole set; these score label maps: {', '.join(METRICS)}")
    return found
