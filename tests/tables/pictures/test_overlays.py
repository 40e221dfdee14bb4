"""Overlays: which images are shown, their colours, and pages that are the same bytes again."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ocl_bench.core.errors import UsageError
from ocl_bench.core.plot_style import PALETTE
from ocl_bench.tables.pictures.overlays import (
    Panel,
    _contours,
    choose,
    fit,
    overlay,
    predicted_colours,
    write_overlays,
)


def _panel(index: int, value: float) -> Panel:
    image = np.full((16, 16, 3), 10 * index, dtype=np.uint8)
    truth = np.zeros((8, 8), dtype=np.int16)
    truth[2:5, 2:5] = 1
    return Panel(f"CLEVRTEX_full_{index:06d}", value, image, truth, truth + 3)


def test_choose_takes_the_extremes_and_the_middle() -> None:
    values = [float(v) for v in range(101)]
    chosen = choose(values, per_section=3)
    assert chosen == {"best": [100, 99, 98], "median": [51, 50, 49], "worst": [2, 1, 0]}
    assert choose(values, per_section=3, direction=-1)["best"] == [0, 1, 2]


@pytest.mark.parametrize("n", range(1, 15))
def test_choose_never_shows_an_image_twice(n: int) -> None:
    chosen = choose([0.1 * i for i in range(n)])
    shown = [index for indices in chosen.values() for index in indices]
    assert len(shown) == len(set(shown))
    assert chosen["best"][0] == n - 1
    assert all(len(indices) <= 4 for indices in chosen.values())
    assert len(shown) == 12 if n >= 12 else n - 2 <= len(shown) <= n or len(shown) == 3


def test_choose_leaves_out_images_without_a_value() -> None:
    assert choose([math.nan, 0.2, math.nan]) == {"best": [1], "median": [], "worst": []}


def test_choosing_again_among_the_chosen_changes_nothing() -> None:
    values = np.random.default_rng(0).random(50)
    first = choose(list(values))
    order = [index for indices in first.values() for index in indices]
    again = choose([float(values[i]) for i in order])
    assert {name: [order[i] for i in indices] for name, indices in again.items()} == first


def test_a_matched_segment_has_the_colour_of_its_object() -> None:
    truth = np.zeros((8, 8), dtype=int)
    truth[:4, :4], truth[4:, 4:] = 1, 2
    prediction = np.where(truth == 0, 7, np.where(truth == 1, 5, 3))
    prediction[7, 0] = 9
    colours = predicted_colours(truth, prediction)
    assert colours[7] is None
    assert np.array_equal(colours[5], PALETTE[0])
    assert np.array_equal(colours[3], PALETTE[1])
    assert np.array_equal(colours[9], PALETTE[2])


def test_void_takes_no_part_in_the_matching() -> None:
    truth = np.full((4, 4), -1)
    truth[0] = 1
    prediction = np.where(truth == 1, 2, 6)
    colours = predicted_colours(truth, prediction)
    assert np.array_equal(colours[2], PALETTE[0])
    assert np.array_equal(colours[6], PALETTE[1])


def test_overlay_dims_background_colours_objects_and_whitens_void() -> None:
    image = np.full((12, 12, 3), (200, 100, 0), dtype=np.uint8)
    labels = np.zeros((12, 12), dtype=int)
    labels[:, 4:8], labels[:, 8:] = 1, -1
    out = overlay(image, labels, {0: None, 1: PALETTE[1]})
    assert len(set(out[6, 1])) == 1 and out[6, 1, 0] < 100
    assert out[6, 5, 0] > out[6, 5, 2]
    assert tuple(out[6, 10]) == (255, 255, 255)
    assert tuple(out[6, 3]) == tuple(out[6, 4]) == (255, 255, 255)  # the contour
    assert not _contours(np.ones((5, 5))).any()


def test_fit_keeps_labels() -> None:
    labels = np.array([[0, 1], [2, 3]])
    assert np.array_equal(fit(labels, (4, 4)), labels.repeat(2, 0).repeat(2, 1))
    assert np.array_equal(fit(labels.repeat(3, 0).repeat(3, 1), (2, 2)), labels)


def test_the_palette_has_distinct_colours() -> None:
    distances = np.abs(PALETTE[:, None].astype(int) - PALETTE[None]).sum(-1)
    assert distances[~np.eye(len(PALETTE), dtype=bool)].min() > 60


def test_write_overlays_writes_the_same_bytes_again(tmp_path: Path) -> None:
    panels = [_panel(i, i / 10) for i in range(7)]
    first = write_overlays(tmp_path / "a" / "grid.png", panels, metric="mbo_fg", title="t").read_bytes()
    assert write_overlays(tmp_path / "grid.png", panels, metric="mbo_fg", title="t").read_bytes() == first
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.width > 900 and picture.height > 500
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "grid.png"]


def test_nothing_to_draw_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="mbo_fg"):
        write_overlays(tmp_path / "grid.png", [_panel(0, math.nan)], metric="mbo_fg")


def test_matplotlib_is_imported_late() -> None:
    modules = "ocl_bench.training.curves, ocl_bench.tables.pictures.overlays"
    code = f"import sys, {modules}; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
