"""Pictures of the best, median and worst images of an evaluation, with true and predicted masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.errors import UsageError
from ...core.plot_style import PALETTE, new_figure, place_image, save_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SECTIONS = ("best", "median", "worst")
_TILE = 320  # pixels of the longer side of a tile at least; contours of 2 pixels are too thick in smaller ones
MOST_OUTLINE = 0.35
"""Largest share of pixels on outlines; masks in smaller fragments are filled only, since white would hide them."""
_VOID = np.array([255, 255, 255], dtype=np.uint8)


@dataclass(frozen=True)
class Panel:
    """One image of the grid. The maps may be smaller or larger than the image.

    Attributes:
        id: sample id.
        value: the main metric of this image.
        image: (H, W, 3) uint8.
        truth: (h, w) integers: 0 background, 1 and above objects, negative void.
        prediction: (h', w') integers; every label is a segment.
    """

    id: str
    value: float
    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray


def choose(values: Sequence[float], *, per_section: int = 4, direction: int = 1) -> dict[str, list[int]]:
    """Choose the best, median and worst images.

    Args:
        values: (N,) values of the images, NaN for an image without a value.
        per_section: most images of a section; few images give shorter sections.
        direction: 1 when a larger value is better, -1 when a smaller one is.

    Returns:
        Indices by section, best first; no index is in two sections, and none has the value NaN.
    """
    array = np.asarray(values, dtype=np.float64)
    # A stable sort: images with equal values come in their order, and the same picture is drawn each time.
    order = [int(i) for i in np.argsort(-direction * array, kind="stable") if np.isfinite(array[i])]
    n = len(order)
    size = min(per_section, max(1, n // 3))
    best, worst = order[:size], order[max(size, n - size) :]
    middle = order[size : n - len(worst)]
    start = max(0, (len(middle) - size) // 2)
    return dict(zip(SECTIONS, (best, middle[start : start + size], worst), strict=True))


def write_overlays(
    path: Path,
    panels: Sequence[Panel],
    *,
    metric: str = "",
    title: str = "",
    direction: int = 1,
    per_section: int = 4,
) -> Path:
    """Write the grid as PNG: rows image, truth, prediction; sections best, median, worst by `Panel.value`.

    A predicted segment has the colour of the object that it is matched with (Hungarian on IoU). The segment matched
    with the background is dimmed like the true background. Unmatched segments take other colours. Void is white.

    Args:
        path: PNG file.
        panels: all images, or only those that `choose` returned.
        metric: name of the metric, for the caption.
        title: line on top.
        direction: 1 when a larger value is better, -1 when a smaller one is.
        per_section: most images of a section.

    Raises:
        UsageError: when no panel has a finite value.
    """
    chosen = choose([panel.value for panel in panels], per_section=per_section, direction=direction)
    sections = {name: [panels[i] for i in indices] for name, indices in chosen.items() if indices}
    if not sections:
        raise UsageError(f"{path}: no image has a finite value of '{metric or 'the main metric'}'; nothing to draw")
    with style():
        return save_figure(_draw(sections, metric, title), path)


def _draw(sections: dict[str, list[Panel]], metric: str, title: str) -> Figure:
    """The figure; all lengths are in inches."""
    tile, gap, left, top, bottom = 1.0, 0.16, 0.26, 0.62 if title else 0.42, 0.2
    columns = sum(len(panels) for panels in sections.values())
    width = left + columns * tile + (len(sections) - 1) * gap + 0.06
    height = top + 3 * tile + bottom
    figure = new_figure(width, height)
    shared = _shared_prefix([panel.id for panels in sections.values() for panel in panels])
    x = left
    for name, panels in sections.items():
        middle = (x + len(panels) * tile / 2) / width
        figure.text(middle, 1 - (top - 0.24) / height, name, ha="center", va="bottom", weight="bold", size=8)
        for panel in panels:
            caption = f"{panel.id[len(shared) :]}   {panel.value:.3f}"
            figure.text((x + tile / 2) / width, 1 - (top - 0.04) / height, caption, ha="center", va="bottom", size=6)
            _draw_column(figure, panel, (x, bottom, tile), (width, height))
            x += tile
        x += gap
    for row, label in enumerate(("image", "truth", "prediction")):
        y = (bottom + (2.5 - row) * tile) / height
        figure.text(0.16 / width, y, label, rotation=90, ha="center", va="center", size=7)
    if title:
        figure.text(left / width, 1 - 0.06 / height, title, ha="left", va="top", size=8)
    note = " · ".join(filter(None, (f"ids: {shared}…" if shared else "", f"number: {metric}" if metric else "")))
    figure.text(left / width, 0.05 / height, note, ha="left", va="bottom", size=5.5, color="#555555")
    return figure


def _draw_column(figure: Any, panel: Panel, place: tuple[float, float, float], size: tuple[float, float]) -> None:
    """Draw one image with its two overlays. place: left, bottom and tile side; size: of the figure; in inches."""
    x, bottom, tile = place
    width, height = size
    margin = 0.02 * tile
    for row, picture in enumerate(tiles(panel)):
        y = bottom + (2 - row) * tile
        box = ((x + margin) / width, (y + margin) / height, (tile - 2 * margin) / width, (tile - 2 * margin) / height)
        place_image(figure, picture, box)


def tiles(panel: Panel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The image and its two overlays, (H', W', 3) uint8 each, enlarged by a whole factor to at least `_TILE`."""
    factor = max(1, -(-_TILE // max(panel.image.shape[:2])))
    image = panel.image.repeat(factor, axis=0).repeat(factor, axis=1)
    truth = fit(panel.truth, image.shape[:2])
    prediction = fit(panel.prediction, image.shape[:2])
    colours = predicted_colours(truth, prediction)
    return image, overlay(image, truth, truth_colours(truth)), overlay(image, prediction, colours)


def truth_colours(truth: np.ndarray) -> dict[int, np.ndarray | None]:
    """Colours (3,) by label of a truth map; None (dimmed) for the background."""
    return {0: None, **{int(label): _colour(int(label) - 1) for label in np.unique(truth) if label > 0}}


def predicted_colours(truth: np.ndarray, prediction: np.ndarray) -> dict[int, np.ndarray | None]:
    """Colours by predicted label: the colour of the matched object, or None (dimmed) when matched with background.

    Args:
        truth: (H, W) integers; void (negative) takes no part in the matching.
        prediction: (H, W) integers.

    Returns:
        Colours (3,) uint8 or None for every label of `prediction`.
    """
    from scipy.optimize import linear_sum_assignment  # slow to import, and many evaluations need it in a thread only

    counted = truth >= 0
    objects, rows = _numbered(truth[counted])
    segments, columns = _numbered(prediction)
    pair = rows * len(segments) + columns[counted]
    table = np.bincount(pair, minlength=len(objects) * len(segments)).astype(np.float64)
    table = table.reshape(len(objects), len(segments))
    union = table.sum(1, keepdims=True) + table.sum(0, keepdims=True) - table
    iou = np.divide(table, union, out=np.zeros_like(table), where=union > 0)
    # The assignment also pairs leftovers that do not overlap at all: those stay unmatched.
    pairs = [(g, p) for g, p in zip(*linear_sum_assignment(iou, maximize=True), strict=True) if iou[g, p] > 0]
    colours: dict[int, np.ndarray | None] = {
        int(segments[p]): _colour(int(objects[g]) - 1) if objects[g] > 0 else None for g, p in pairs
    }
    spare = int(objects.max(initial=0))  # the first colour that no object has
    for segment in (int(s) for s in segments if int(s) not in colours):
        colours[segment] = _colour(spare)
        spare += 1
    return colours


def _numbered(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The labels that occur, ascending, and the place of each of `labels` among them, in the shape of `labels`."""
    if not labels.size or int(labels.max()) - int(labels.min()) > labels.size:
        values, places = np.unique(labels, return_inverse=True)
        return values, places.reshape(labels.shape)
    # Without sorting, which takes most of the time where there are many pixels and few labels.
    low = int(labels.min())
    counts = np.bincount(labels.ravel() - low)
    values = np.flatnonzero(counts)
    return values + low, (np.cumsum(counts > 0) - 1)[labels - low]


def _colour(index: int) -> np.ndarray:
    colour: np.ndarray = PALETTE[index % len(PALETTE)]
    return colour


def overlay(image: np.ndarray, labels: np.ndarray, colours: dict[int, np.ndarray | None]) -> np.ndarray:
    """Draw flat colours over an image, with thin white contours unless the fragments are too small for them.

    Args:
        image: (H, W, 3) uint8.
        labels: (H, W) integers, negative void, which becomes white.
        colours: colour (3,) of each label; labels with None are dimmed.

    Returns:
        (H, W, 3) uint8.
    """
    red, green, blue = np.moveaxis(image.astype(np.float32), 2, 0)
    grey = ((red + green + blue) / 3)[..., None]
    out = np.repeat(0.45 * grey + 25, 3, axis=2)
    values, places = _numbered(labels)
    tints = np.full((len(values), 3), np.nan)
    for place, value in enumerate(values):
        if (colour := colours.get(int(value))) is not None:
            tints[place] = 0.72 * colour
    where = ~np.isnan(tints[:, 0])[places]
    # A little of the image's light keeps its shading visible below the colour.
    out[where] = tints[places[where]] + 0.28 * grey[where]
    out[labels < 0] = _VOID
    outline = _contours(labels)
    if outline.mean() <= MOST_OUTLINE:
        out[outline] = 255
    return np.clip(out, 0, 255).astype(np.uint8)


def solid(labels: np.ndarray, colours: dict[int, np.ndarray | None]) -> np.ndarray:
    """Flat colours alone, (H, W, 3) uint8: no image below them and no contours. Labels with None are grey."""
    out = np.full((*labels.shape, 3), 90, np.uint8)
    for label, colour in colours.items():
        if colour is not None:
            out[labels == label] = colour
    out[labels < 0] = _VOID
    return out


def _contours(labels: np.ndarray) -> np.ndarray:
    """Mark the pixels on both sides of each border between labels, (H, W) bool."""
    edge = np.zeros(labels.shape, dtype=bool)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    return edge


def fit(labels: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Resize a label map (h, w) to (H, W) with the nearest label; labels must not be interpolated."""
    rows = (np.arange(size[0]) * labels.shape[0]) // size[0]
    columns = (np.arange(size[1]) * labels.shape[1]) // size[1]
    fitted: np.ndarray = labels[np.ix_(rows, columns)]
    return fitted


def _shared_prefix(ids: Sequence[str]) -> str:
    """The common beginning of all ids up to a separator, or '' when it is short; captions leave it out."""
    # The common prefix of the smallest and the largest text is that of all texts between them.
    first, last = min(ids), max(ids)
    prefix = first[: next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]
    cut = max(prefix.rfind(separator) for separator in "_-/ ") + 1
    return prefix[:cut] if len(ids) > 1 and cut >= 4 else ""
