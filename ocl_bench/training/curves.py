"""Reads the JSON-lines log of a training and draws its loss and validation curves."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UsageError
from ..core.files import parse_json, read_text
from ..core.plot_style import PALETTE, new_figure, save_figure, style

Curve = dict[int, float]
"""Value by training step."""


def read_log(path: Path) -> tuple[dict[str, Curve], dict[str, Curve]]:
    """Loss curves and validation curves of a training log, by name.

    Lines are `{"step": 10, "loss": 0.3, "loss_distill": 0.1, ...}` and `{"step": 500, "val": {"mbo_fg": 0.4}}`. Every
    key that begins with `loss` is a curve. If a resumed run logged a step again, the last value counts. An unfinished
    last line, which a killed run leaves behind, is skipped.

    Raises:
        UsageError: The file cannot be read, or another line is broken.
    """
    losses: dict[str, Curve] = {}
    metrics: dict[str, Curve] = {}
    try:
        lines = read_text(Path(path)).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: cannot be read ({reason}); `ocl-bench train` writes it") from error
    for number, line in enumerate(lines, start=1):
        try:
            record = parse_json(line)
            step = int(record["step"])
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines) and not line.endswith("}"):
                break
            raise UsageError(f"{path}: line {number} is not a JSON object with a 'step'; delete that line") from error
        for name, value in record.items():
            if name.startswith("loss"):
                losses.setdefault(name, {})[step] = float(value)
        for name, value in (record.get("val") or {}).items():
            metrics.setdefault(name, {})[step] = float(value)
    return losses, metrics


def write_curves(path: Path, log_jsonl: Path, *, title: str = "") -> Path:
    """Draw the losses (raw in pale, smoothed in full colour) and the validation metrics of a log into one PNG.

    Raises:
        UsageError: The log has neither a loss nor a validation value.
    """
    losses, metrics = read_log(log_jsonl)
    panels = [(draw, curves) for draw, curves in ((_draw_losses, losses), (_draw_metrics, metrics)) if curves]
    if not panels:
        raise UsageError(f"{log_jsonl}: holds no 'loss' and no 'val' yet; nothing to draw")
    with style():
        figure = new_figure(3.5 * len(panels), 2.6)
        for index, (draw, curves) in enumerate(panels, start=1):
            axes = figure.add_subplot(1, len(panels), index)
            draw(axes, curves)
            axes.set_xlabel("training step")
            axes.grid(axis="y", linewidth=0.4, color="#dddddd")
            axes.set_axisbelow(True)
        if title:
            figure.suptitle(title, x=0.02, ha="left", size=8)
        figure.tight_layout()
        return save_figure(figure, path)


def _draw_losses(axes: Any, curves: dict[str, Curve]) -> None:
    for index, (name, curve) in enumerate(curves.items()):
        colour = PALETTE[index % len(PALETTE)] / 255
        steps, values = _arrays(curve)
        axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.6)
        axes.plot(steps, smooth(values), color=colour, linewidth=1.3, label=name)
    finite = np.concatenate([_arrays(curve)[1] for curve in curves.values()])
    finite = finite[np.isfinite(finite)]
    if len(finite) and finite.min() > 0:  # some losses are negative and have no logarithm
        axes.set_yscale("log")
        _plain_log_ticks(axes)
    axes.set_ylabel("training loss")
    if len(curves) > 1:
        axes.legend(loc="upper right", fontsize=7)


def _plain_log_ticks(axes: Any) -> None:
    """Label the logarithmic axis at 1, 2 and 5 of each decade with plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _draw_metrics(axes: Any, curves: dict[str, Curve]) -> None:
    ends = []
    for index, (name, curve) in enumerate(curves.items()):
        colour = PALETTE[index % len(PALETTE)] / 255
        steps, values = _arrays(curve)
        axes.plot(steps, values, color=colour, linewidth=1.3, marker="o", markersize=2.5)
        ends.append((float(values[-1]), name, colour))
    _label_ends(axes, [end for end in ends if math.isfinite(end[0])])
    axes.set_ylabel("validation metric")


def _label_ends(axes: Any, ends: list[tuple[float, str, Any]]) -> None:
    """Write each name beside its last point, at a distance that keeps names from overlapping."""
    low, high = axes.get_ylim()
    gap, last = 0.075 * (high - low), -math.inf
    for value, name, colour in sorted(ends, key=lambda end: end[0]):
        last = max(value, last + gap)
        axes.annotate(
            f"{name} {value:.3f}",
            (1.02, last),
            xycoords=("axes fraction", "data"),
            color=colour,
            va="center",
            size=7,
            annotation_clip=False,
        )


def _arrays(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Steps in ascending order, and their values."""
    steps = np.array(sorted(curve))
    return steps, np.array([curve[int(step)] for step in steps], dtype=np.float64)


def smooth(values: np.ndarray, share: float = 0.02) -> np.ndarray:
    """Centred moving mean (N,) over `share` of the curve, over fewer points at both ends. NaN are ignored."""
    half = max(1, int(len(values) * share / 2))
    good = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(good, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(good)])
    first = np.maximum(np.arange(len(values)) - half, 0)
    last = np.minimum(np.arange(len(values)) + half + 1, len(values))
    total = counts[last] - counts[first]
    mean = np.full(len(values), np.nan)
    np.divide(sums[last] - sums[first], total, out=mean, where=total > 0)
    return mean
