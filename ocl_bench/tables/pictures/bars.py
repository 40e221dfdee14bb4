"""Bars of the metrics of one result, for `Result.plot`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...core.numbers import axis_ends
from ...core.paths import results_root
from ...core.plot_style import PALETTE, import_matplotlib, style
from ...evaluation.references import reference_results
from ...metrics import find_metric
from ...results.record import MetricValue, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MODEL, _FLOOR, _CEILING = (tuple(PALETTE[number] / 255) for number in (0, 5, 2))


def metric_bars(result: Result) -> Figure:
    """One bar with its 95 % interval for each metric, each on an axis of its own, as metrics have other ranges.

    Marks are stored floors and ceilings on the same images, committed or in the folder of the user's results. The
    figure is one of pyplot, so that a notebook shows it.
    """
    import_matplotlib()
    from matplotlib import pyplot

    references = reference_results(result, [results_root()])
    names = sorted(result.metrics, key=lambda name: name != result.task.main)
    with style():
        size = (6.0, 0.6 + 0.5 * len(names))
        figure, rows = pyplot.subplots(len(names), 1, figsize=size, squeeze=False, layout="constrained")
        for axes, name in zip(rows[:, 0], names, strict=True):
            _draw(axes, name, result.metrics[name], references)
        handles: dict[str, Any] = {}
        for axes in rows[:, 0]:
            handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        if handles:
            figure.legend(handles.values(), handles, loc="outside lower center", ncols=2)
        figure.suptitle(result.title)
    return figure


def _draw(axes: Axes, name: str, metric: MetricValue, references: list[Result]) -> None:
    """Draw one metric: a bar from 0 with its interval, and the marks of the references."""
    numbers = [0.0]
    if metric.value is not None:
        low, high = metric.ci95 or (metric.value, metric.value)
        axes.barh(0, metric.value, height=0.6, color=_MODEL)
        axes.hlines(0, low, high, color="black", linewidth=1.5)
        numbers += [metric.value, low, high]
    for reference in references:
        other = reference.metrics.get(name)
        if other is not None and other.value is not None:
            floor = reference.model.role == "floor"
            colour, label = (_FLOOR, "floors") if floor else (_CEILING, "ceilings")
            axes.plot(other.value, 0, "|", color=colour, markersize=18, markeredgewidth=2, label=label)
            numbers.append(other.value)
    known = find_metric(name)
    axes.set(xlim=axis_ends(numbers, known.low, known.high), yticks=[0], ylim=(-0.5, 0.5))
    axes.set_yticklabels([f"{name}\n{metric}"])
