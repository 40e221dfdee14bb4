"""Pictures of the best, the median and the worst video of an evaluation, with true and predicted segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...core.plot_style import new_figure, place_image, save_figure, style
from .overlays import fit, overlay, predicted_colours, truth_colours

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.transforms import Transform

FRAMES = 8
"""Number of frames of a video that are drawn, spread evenly."""


@dataclass(frozen=True)
class Strip:
    """Some frames of one video.

    Attributes:
        section: best, median or worst; empty for a video that stands alone.
        id: sample id of the video.
        value: the main metric of the video.
        images: (N, H, W, 3) uint8.
        truth: (N, h, w) integers; an object keeps its id over time. The size may differ from that of the images.
        prediction: (N, h', w') integers; a slot keeps its id over time.
        numbers: (N,) numbers of the frames in their video, from 0; they are written on the images.
        seen: frames that the model saw, where it predicts later ones; None where it saw all.
    """

    section: str
    id: str
    value: float
    images: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    numbers: tuple[int, ...]
    seen: int | None = None

    def text(self, column: int) -> str:
        """What is written on the image of a column."""
        number = self.numbers[column]
        return f"{number}, predicted" if self.seen is not None and number >= self.seen else str(number)


def chosen_frames(length: int, count: int = FRAMES) -> tuple[int, ...]:
    """At most `count` frame numbers, evenly spread, with the first and the last frame."""
    # Rounding can give a number twice when the video is short, therefore `unique`.
    return tuple(int(number) for number in np.unique(np.linspace(0, length - 1, min(count, length)).round()))


def write_storyboard(path: Path, strips: Sequence[Strip], *, metric: str, title: str) -> Path:
    """Write the strips as PNG, three rows each: image, truth, prediction.

    A segment has the colour of the object that its tube is matched with, and keeps it over time. A slot that jumps to
    another object then shows in a wrong colour. On frames that the model did not see stands `predicted`.
    """
    tile, top, left, gap = 1.0, 0.5, 0.3, 0.3
    columns = max(len(strip.images) for strip in strips)
    width, height = left + columns * tile + 0.05, top + len(strips) * (3 * tile + gap)
    with style():
        figure = new_figure(width, height)
        figure.text(left / width, 1 - 0.05 / height, title, ha="left", va="top", size=8)
        for number, strip in enumerate(strips):
            above = top + number * (3 * tile + gap)
            section = f"{strip.section}: " if strip.section else ""
            caption = f"{section}{strip.id}   {metric} {strip.value:.3f}"
            figure.text(left / width, 1 - (above - 0.04) / height, caption, ha="left", va="bottom", size=7)
            for row, (label, pictures) in enumerate(_rows(strip)):
                bottom = height - above - (row + 1) * tile
                middle = (bottom + tile / 2) / height
                figure.text(0.16 / width, middle, label, rotation=90, ha="center", va="center", size=7)
                for column, picture in enumerate(pictures):
                    box = ((left + column * tile + 0.02) / width, (bottom + 0.02) / height)
                    place = place_image(figure, picture, (*box, (tile - 0.04) / width, (tile - 0.04) / height))
                    if row == 0:
                        _write(figure, place, strip.text(column))
        return save_figure(figure, path)


def _write(figure: Figure, place: Transform, text: str) -> None:
    """Write into the upper left corner of a frame."""
    behind = {"boxstyle": "square,pad=0.2", "facecolor": "black", "alpha": 0.6, "linewidth": 0}
    figure.text(0.02, 0.97, text, transform=place, color="white", size=5, va="top", bbox=behind)


def _rows(strip: Strip) -> list[tuple[str, list[np.ndarray]]]:
    """The three rows of a strip: name, and pictures (H, W, 3) uint8 of all frames."""
    shape = strip.images.shape[1:3]
    truth, prediction = (np.stack([fit(labels, shape) for labels in maps]) for maps in (strip.truth, strip.prediction))
    # All frames one below the other as a single image: matching it matches tubes instead of segments of a frame.
    colours = predicted_colours(truth.reshape(-1, shape[1]), prediction.reshape(-1, shape[1]))
    matched = truth_colours(truth)
    return [
        ("image", list(strip.images)),
        ("truth", [overlay(image, labels, matched) for image, labels in zip(strip.images, truth, strict=True)]),
        ("prediction", [overlay(image, ids, colours) for image, ids in zip(strip.images, prediction, strict=True)]),
    ]
