"""How the numbers of one result differ from those of another of the same evaluation."""

from __future__ import annotations

import math

from .record import Result


def differences(stored: Result, now: Result) -> dict[str, float]:
    """Value now minus stored value, by metric; infinite where only one of the two has a value."""
    return {name: _difference(metric.value, now.value(name)) for name, metric in stored.metrics.items()}


def _difference(stored: float | None, now: float | None) -> float:
    if stored is None or now is None:
        return 0.0 if stored is now else math.inf
    return now - stored
