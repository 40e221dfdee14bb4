"""Curves over the horizon of visual prediction: a panel for each metric, with floors and ceilings of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...core.plot_style import PALETTE, new_figure, save_figure, style
from ...metrics import find_metric
from ..horizon import Curve

_BLUE, _GREY = tuple(PALETTE[0] / 255), "0.45"
_STYLES: dict[str, dict[str, Any]] = {
    "run": {"color": _BLUE, "linewidth": 2},
    "floor": {"color": _GREY},
    "ceiling": {"color": tuple(PALETTE[2] / 255)},
}
_DASHES = ("-", "--", ":", "-.")
"""Floors differ by their dashes, and so do ceilings and runs."""


def write_curves(path: Path, curves: Mapping[str, Sequence[Curve]], *, title: str) -> Path:
    """Write the panels beside each other. curves: of each metric, not empty."""
    with style():
        figure = new_figure(3.2 * len(curves), 3.0)
        figure.set_layout_engine("constrained")
        handles: dict[str, Any] = {}
        for axes, (metric, lines) in zip(
            figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True
        ):
            drawn: dict[str, int] = {}
            for line in lines:
                number = drawn[line.role] = drawn.get(line.role, -1) + 1
                dashes = _DASHES[number % len(_DASHES)]
                steps = np.arange(1, len(line.values) + 1)
                label = line.name if line.role == "run" else f"{line.name} ({line.role})"
                (handles[label],) = axes.plot(steps, line.values, linestyle=dashes, **_STYLES[line.role])
            axes.set_title(f"{metric} {'↑' if find_metric(metric).direction > 0 else '↓'}", size=8)
            axes.set_xlabel("predicted step")
            axes.locator_params(axis="x", integer=True)
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=len(handles))
        figure.suptitle(title, size=9)
        return save_figure(figure, path)
