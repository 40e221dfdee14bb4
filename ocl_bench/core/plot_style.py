"""The common look of all pictures: palette, style file, matplotlib without a display, atomic files."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .files import write_atomically
from .optional import import_optional
from .paths import PACKAGE

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.transforms import Transform

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

STYLE_FILE = PACKAGE / "core" / "figures.mplstyle"

FORMATS = ("pdf", "svg", "png")
"""What a figure is written as, by the suffix of its file."""
DOTS_PER_INCH = 200
_METADATA: dict[str, Any] = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
"""Time and version stay out of the files: equal figures are equal files."""


def import_matplotlib() -> Any:
    """The module matplotlib. Raises MissingPackageError where it is not installed."""
    return import_optional("matplotlib", "plots", "drawing a picture")


def style() -> AbstractContextManager[None]:
    """A context with the look of all pictures, which does not depend on the user's matplotlib settings.

    Raises MissingPackageError without matplotlib.
    """
    context: AbstractContextManager[None] = import_matplotlib().rc_context(fname=STYLE_FILE)
    return context


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of `width` x `height` inches on the Agg canvas, without pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def place_image(figure: Figure, picture: np.ndarray, box: tuple[float, float, float, float]) -> Transform:
    """Show a picture (H, W, 3) uint8 as large as it fits in the middle of a box.

    box: left, bottom, width and height as shares of the figure.

    Returns:
        Where shares of the picture, from its lower left corner, are in the figure.
    """
    from matplotlib.image import BboxImage
    from matplotlib.transforms import Bbox, BboxTransformTo, TransformedBbox

    # Without axes, whose ticks, labels and spines take most of the time and are not shown.
    space, (width, height) = Bbox.from_bounds(*box), figure.get_size_inches() * DOTS_PER_INCH
    fitted = space.shrunk_to_aspect(picture.shape[0] / picture.shape[1], space, height / width)
    place = TransformedBbox(fitted.anchored("C", space), figure.transSubfigure)
    image = BboxImage(place, interpolation="antialiased", resample=True, clip_box=place)
    image.set_data(picture)
    figure.add_artist(image)
    return BboxTransformTo(place)


def save_figure(figure: Figure, path: Path, dots_per_inch: int = DOTS_PER_INCH) -> Path:
    """Write the figure atomically and without a time stamp, in the format of the suffix (PNG for an unknown one)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = path.suffix[1:].lower() if path.suffix[1:].lower() in FORMATS else "png"
    # The format is named because the temporary file ends in `.tmp`.
    options: Any = {"format": kind, "dpi": dots_per_inch, "metadata": _METADATA[kind]}
    write_atomically(path, lambda part: figure.savefig(part, **options))
    return path
