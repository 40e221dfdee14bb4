"""Pictures of queries beside their nearest neighbours in the bank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.plot_style import new_figure, place_image, save_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.transforms import Transform

SHOWN = 7
"""Number of neighbours of a query that are drawn."""

_RIGHT, _WRONG = "#009e73", "#d55e00"


@dataclass(frozen=True)
class Query:
    """One query and its nearest images of the bank.

    Attributes:
        id: sample id.
        image: (S, S, 3) uint8.
        label: name of the true class.
        predicted: name of the class that k-NN predicts.
        neighbours: (N, S, S, 3) uint8, the nearest first.
        names: (N,) class names of the neighbours.
        similarity: (N,) cosines of the neighbours.
    """

    id: str
    image: np.ndarray
    label: str
    predicted: str
    neighbours: np.ndarray
    names: tuple[str, ...]
    similarity: tuple[float, ...]


def write_neighbours(path: Path, queries: Sequence[Query], *, title: str) -> Path:
    """Write a PNG with a row for each query: the query, then its neighbours.

    A green frame marks a right prediction and a neighbour of the same class, an orange frame a wrong one.
    """
    # All lengths are in inches.
    tile, text, top, gap = 1.0, 0.2, 0.35, 0.2
    width = 0.05 + tile + gap + SHOWN * tile + 0.05
    height = top + len(queries) * (tile + text)
    with style():
        figure = new_figure(width, height)
        figure.text(0.05 / width, 1 - 0.05 / height, title, ha="left", va="top", size=8)
        for row, query in enumerate(queries):
            bottom = height - top - (row + 1) * (tile + text)
            verdict = _RIGHT if query.predicted == query.label else _WRONG
            caption = f"{query.label}" if verdict == _RIGHT else f"{query.label}, named {query.predicted}"
            cells = [(0.05, query.image, caption, verdict)]
            for column in range(min(SHOWN, len(query.neighbours))):
                name, cosine = query.names[column], query.similarity[column]
                colour = _RIGHT if name == query.label else _WRONG
                left = 0.05 + tile + gap + column * tile
                cells.append((left, query.neighbours[column], f"{name}  {cosine:.3f}", colour))
            for left, image, words, colour in cells:
                box = ((left + 0.03) / width, (bottom + 0.03) / height, (tile - 0.06) / width, (tile - 0.06) / height)
                _frame(figure, place_image(figure, image, box), colour)
                figure.text(
                    (left + 0.03) / width, (bottom + tile + 0.01) / height, words, ha="left", va="bottom", size=5
                )
        return save_figure(figure, path)


def _frame(figure: Figure, place: Transform, colour: str) -> None:
    """Draw the four sides of a picture."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Line

    for ends in ([(0, 0), (0, 1)], [(1, 0), (1, 1)], [(0, 0), (1, 0)], [(0, 1), (1, 1)]):
        look: dict[str, Any] = {"edgecolor": colour, "linewidth": 2, "capstyle": "projecting"}
        figure.add_artist(PathPatch(Line(ends), transform=place, facecolor="none", zorder=2.5, **look))
