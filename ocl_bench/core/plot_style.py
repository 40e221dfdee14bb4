"""The common look of all pictures: palette, matplotlib without a display, atomic PNG files."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PALETTE = np.array(
    [
        [0, 114, 178],  # blue
        [230, 159, 0],  # orange
        [0, 158, 115],  # green
        [204, 121, 167],  # rose
        [86, 180, 233],  # sky
        [213, 94, 0],  # vermilion
        [240, 228, 66],  # yellow
        [136, 34, 85],  # wine
        [153, 221, 255],  # light cyan
        [51, 34, 136],  # indigo
        [187, 204, 51],  # pear
        [255, 170, 187],  # pink
        [68, 187, 153],  # mint
        [119, 17, 0],  # brown
        [170, 153, 255],  # lavender
        [221, 204, 119],  # sand
    ],
    dtype=np.uint8,
)
"""(16, 3) RGB. The first seven are the colours of Okabe and Ito (2008), the others come from Paul Tol's schemes."""

_STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.edgecolor": "#555555",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
}


def style() -> AbstractContextManager[None]:
    """A context with the look of all pictures, which does not depend on the user's matplotlib settings."""
    from matplotlib import rc_context

    return rc_context(_STYLE)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of `width` x `height` inches on the Agg canvas, without pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save_png(figure: Figure, path: Path, dots_per_inch: int = 200) -> Path:
    """Write the figure atomically and without a time stamp: equal pictures are equal files."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Software would be the version of matplotlib. The format is named because the temporary file ends in `.tmp`.
    options: Any = {"format": "png", "dpi": dots_per_inch, "metadata": {"Software": None}}
    write_atomically(path, lambda part: figure.savefig(part, **options))
    return path
