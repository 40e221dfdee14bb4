"""The common look of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ocl_bench.core.plot_style import new_figure, place_image, save_figure, style

BOX = (0.1, 0.2, 0.5, 0.6)


@pytest.mark.parametrize("shape", [(41, 41), (24, 40), (300, 200)])
def test_a_picture_is_placed_as_axes_would_show_it(tmp_path: Path, shape: tuple[int, int]) -> None:
    """Pictures were drawn in axes once: their files stay the same, and text finds its place on them.

    The sizes are such that no pixel is read between two others, where rounding would decide.
    """
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    with style():
        figure = new_figure(2.0, 1.5)
        figure.text(0.5, 0.9, "here", transform=place_image(figure, picture, BOX))
        placed = save_figure(figure, tmp_path / "placed.png")
        figure = new_figure(2.0, 1.5)
        axes = figure.add_axes(BOX)
        axes.imshow(picture, interpolation="antialiased")
        axes.set_axis_off()
        axes.text(0.5, 0.9, "here", transform=axes.transAxes)
        shown = save_figure(figure, tmp_path / "shown.png")
    assert placed.read_bytes() == shown.read_bytes()
