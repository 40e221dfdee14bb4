"""Every metric by its name: those of the eight families, and those that installed packages add."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from ..core import entry_points
from ..core.errors import UsageError
from .definitions import contact, detection, discovery, dynamics, reasoning, recognition, segmentation, video
from .definitions.knn import LISTED, knn_metric
from .metric import Metric

METRIC_VERSION = 1
"""Raised when the arithmetic of any metric changes; it is part of every result's key."""

CATALOGUE: dict[str, Metric] = {
    metric.name: metric
    for family in (discovery, detection, segmentation, recognition, video, dynamics, contact, reasoning)
    for metric in family.DEFINITIONS
}
"""The bundled metrics. Those of nearest neighbours are made from their names (`definitions.knn`)."""


def find_metric(name: str) -> Metric:
    """The metric of that name, bundled or from an installed package. Raises UsageError with a suggestion.

    Example:
        >>> metric = find_metric("fg_ari")
        >>> metric.families, metric.direction, metric.range
        (('discovery',), 1, '-1 to 1')
    """
    metric = CATALOGUE.get(name) or knn_metric(name)
    if metric is not None:
        return metric
    offers = entry_points.offered(entry_points.METRICS)
    if name in offers:
        value = offers[name].load()
        if isinstance(value, Metric) and value.name == name:
            return value
        raise UsageError(f"metric '{name}': {offers[name].value} is not an ocl_bench.metrics.Metric of that name")
    raise UsageError(_unknown(name, metric_names()))


def _unknown(name: str, known: Sequence[str]) -> str:
    """The message about an unknown name, with the closest of the known ones or all of them."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean '{close[0]}'?" if close else f"known are {', '.join(known)}"
    return f"metric '{name}' is unknown; {hint}"


def _families(name: str) -> tuple[str, ...]:
    metric = knn_metric(name)
    return metric.families if metric is not None else ()


def is_metric(name: str) -> bool:
    """Whether there is a metric of that name."""
    return name in CATALOGUE or knn_metric(name) is not None or name in entry_points.offered(entry_points.METRICS)


def metric_names() -> list[str]:
    """All names, sorted. Of the nearest-neighbour metrics only those that the bundled cards use are listed."""
    return sorted({*CATALOGUE, *LISTED, *entry_points.offered(entry_points.METRICS)})


def check_metric(name: str, family: str, head: bool) -> None:
    """Check that a task of `family` may ask for a metric.

    Args:
        name: of the metric.
        family: of the task.
        head: whether the card fits a head (field `fit`).

    Raises:
        UsageError: for an unknown name, a metric of another family, and a metric that needs, or must not have, a head.
    """
    of_family = sorted(entry.name for entry in CATALOGUE.values() if family in entry.families)
    if not is_metric(name):
        raise UsageError(_unknown(name, [*of_family, *(known for known in LISTED if family in _families(known))]))
    metric = find_metric(name)
    if family not in metric.families:
        names = ", ".join(of_family)
        remedy = f"; {family} has {names}" if names else ""
        raise UsageError(f"'{name}' is a metric of {', '.join(metric.families)}, not of {family}{remedy}")
    if metric.head is not None and metric.head != head:
        need = "needs a head (field 'fit')" if metric.head else "is of tasks without a head (leave field 'fit' out)"
        raise UsageError(f"'{name}' {need}")
