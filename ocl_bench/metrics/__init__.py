"""Mask metrics: pure functions of one contingency table that return a value and a validity for each image.

`METRICS` lists them, `compute` evaluates any of them on label maps, `ocl_bench.metrics.torchmetrics.MaskMetric` turns
any of them into a `torchmetrics.Metric`. `definitions/` says what each metric is, `docs/why-numbers-differ.md`
where other code disagrees. `catalogue.CATALOGUE` also has the metrics of the other families.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np

from ..core.errors import UsageError
from .catalogue import CATALOGUE, find_metric, is_metric, metric_names
from .contingency import Contingency, LabelMaps, OverlapRule, VoidRule, check_rule, contingency
from .ignored import IgnoreIndex
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
    ignore_index: IgnoreIndex = "auto",
    truth_categories: Categories | None = None,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Evaluate metrics on a batch of label maps, with one count of the pixels.

    Args:
        names: keys of `METRICS`.
        truth: (B, H, W) integer label maps, see `contingency`.
        prediction: (B, H, W) integer label maps of slots; take the argmax of soft masks first.
        background: truth label that is not an object; None when every label is an object.
        void: what happens to pixels without annotation, see `contingency`.
        overlap: what happens to pixels that several objects claim, see `contingency`.
        empty: "skip" leaves images where a metric is undefined invalid; "one" counts them as perfect (OCLF,
            slotcontrast and scikit-learn do so for FG-ARI), except for metrics that select images on purpose
            (`fg_ari_multi`).
        ignore_index: truth label that means void, by default 255 except in a map with larger labels; see `contingency`.
        truth_categories: for each image, the category of object label i at index i - 1; only `mbo_class` needs it.

    Returns:
        name -> (value (B,) float64, valid (B,) bool), in the order of `names`; NaN where not valid.

    Raises:
        UsageError: for unknown names or rules, and for maps that are not label maps.

    Example:
        >>> truth, slots = np.array([[[0, 1, 1], [0, 2, 2]]]), np.array([[[0, 1, 1], [1, 2, 2]]])
        >>> scores = compute(["fg_ari", "mbo_fg"], truth, slots)
        >>> {name: round(float(value[valid].mean()), 3) for name, (value, valid) in scores.items()}
        {'fg_ari': 1.0, 'mbo_fg': 0.833}
    """
    metrics = [mask_metric(name) for name in names]  # a wrong name is an error before any pixel is counted
    counts = contingency(truth, prediction, void=void, overlap=overlap, ignore_index=ignore_index)
    return {metric.name: evaluate_table(metric, counts, background, empty, truth_categories) for metric in metrics}


def evaluate_table(
    metric: Metric,
    counts: Contingency,
    background: int | None = 0,
    empty: EmptyRule = "skip",
    truth_categories: Categories | None = None,
) -> Scores:
    """Evaluate one metric on a table that is already counted; arguments and result as in `compute`.

    Example:
        >>> counts = contingency(np.array([[[0, 0, 0, 0]]]), np.array([[[0, 0, 0, 1]]]))
        >>> evaluate_table(find_metric("fg_ari"), counts)  # an image without an object
        (array([nan]), array([False]))
        >>> evaluate_table(find_metric("fg_ari"), counts, empty="one")
        (array([1.]), array([ True]))
    """
    check_rule("empty", empty, ("skip", "one"))
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
    """The metric of label maps of that name. Raises UsageError for metrics of a whole set and for unknown names."""
    metric = METRICS.get(name) or find_metric(name)
    if metric.function is None:
        raise UsageError(f"metric '{name}' is one of a whole set; these score label maps: {', '.join(METRICS)}")
    return metric
