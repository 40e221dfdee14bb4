"""Every metric by its name: those of the six families, and those that installed packages add."""

from __future__ import annotations

import difflib

from ..core import entry_points
from ..core.errors import UsageError
from .definitions import detection, discovery, recognition, segmentation, video
from .definitions.knn import LISTED, knn_metric
from .metric import Metric

METRIC_VERSION = 1
"""Raised when the arithmetic of any metric changes; it is part of every result's key."""

CATALOGUE: dict[str, Metric] = {
    metric.name: metric
    for family in (discovery, detection, segmentation, recognition, video)
    for metric in family.DEFINITIONS
}
"""The bundled metrics. Those of nearest neighbours have a pattern instead: see `definitions.knn`."""


def find_metric(name: str) -> Metric:
    """The metric of that name. Raises UsageError with a suggestion.

    Example:
        >>> metric = find_metric("fg_ari")
        >>> metric.families, metric.direction, metric.range
        (('discovery',), 1, '-1 to 1')
    """
    found = CATALOGUE.get(name) or knn_metric(name)
    if found is not None:
        return found
    added = entry_points.offered(entry_points.METRICS)
    if name in added:
        value = added[name].load()
        if isinstance(value, Metric) and value.name == name:
            return value
        raise UsageError(f"metric '{name}': {added[name].value} is no ocl_bench.metrics.Metric of that name")
    known = metric_names()
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean '{close[0]}'?" if close else f"known are {', '.join(known)}"
    raise UsageError(f"metric '{name}' is unknown; {hint}")


def is_metric(name: str) -> bool:
    """Whether there is a metric of that name."""
    return name in CATALOGUE or knn_metric(name) is not None or name in entry_points.offered(entry_points.METRICS)


def metric_names() -> list[str]:
    """All names, sorted; of the metrics of nearest neighbours those that the bundled cards use."""
    return sorted({*CATALOGUE, *LISTED, *entry_points.offered(entry_points.METRICS)})


def check_metric(name: str, family: str, head: bool) -> None:
    """Whether a task of `family` may ask for a metric. head: whether the card fits one (field `fit`).

    Raises UsageError for an unknown name and for a metric of another family or kind of task.
    """
    metric = find_metric(name)
    if family not in metric.families:
        others = ", ".join(sorted(other.name for other in CATALOGUE.values() if family in other.families))
        theirs = f"; {family} has {others}" if others else ""
        raise UsageError(f"'{name}' is a metric of {', '.join(metric.families)}, not of {family}{theirs}")
    if metric.head is not None and metric.head != head:
        need = "needs a head (field 'fit')" if metric.head else "is of tasks without a head (leave field 'fit' out)"
        raise UsageError(f"'{name}' {need}")
