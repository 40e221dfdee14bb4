"""Figures of boards and runs: three formats, embedded fonts, equal bytes, and no white noise in fragments."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_runs import Colours, VideoColours, own_images, own_videos, run_of
from results_for_boards import image_values, write
from typer.testing import CliRunner

from ocl_bench.cli import app
from ocl_bench.core.errors import UsageError
from ocl_bench.core.plot_style import STYLE_FILE
from ocl_bench.pages.figures.build import build_figures
from ocl_bench.tables.pictures.overlays import MOST_OUTLINE, overlay, solid, truth_colours


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Figures of a board with three models."""
    root = tmp_path_factory.mktemp("figures")
    for number, level in enumerate((0.3, 0.4, 0.5)):
        parameters = {"model__parameters": 10 ** (3 + number), "model__card": ""}
        write(root / "results", f"m{number}", image_values(level, number), **parameters)
    outcome = CliRunner().invoke(
        app, ["figures", "-t", "clevrtex", "--results", str(root / "results"), "--out", str(root / "out")]
    )
    assert outcome.exit_code == 0, outcome.output
    return root / "out"


def test_each_figure_is_there_in_three_formats(drawn: Path) -> None:
    names = {path.stem for path in drawn.iterdir()}
    assert names == {"clevrtex-embedded-1-intervals", "clevrtex-embedded-parameters"}
    assert {path.suffix for path in drawn.iterdir()} == {".pdf", ".svg", ".png"}
    assert len(list(drawn.iterdir())) == 6


def test_fonts_are_part_of_the_files(drawn: Path) -> None:
    content = (drawn / "clevrtex-embedded-1-intervals.pdf").read_bytes()
    text = content + b"".join(map(_inflated, re.findall(rb"stream\r?\n(.*?)\r?\nendstream", content, re.DOTALL)))
    assert b"/FontFile2" in text and b"/Type3" not in text
    assert "<text" not in (drawn / "clevrtex-embedded-1-intervals.svg").read_text()


def _inflated(stream: bytes) -> bytes:
    try:
        return zlib.decompress(stream)
    except zlib.error:
        return b""


def test_equal_boards_give_equal_files(drawn: Path, tmp_path: Path) -> None:
    build_figures(tmp_path, tasks=["clevrtex"], results=[drawn.parent / "results"])
    for path in drawn.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_neighbouring_colours_of_the_style_differ_for_the_colour_blind() -> None:
    """Distance after the matrices of Viénot et al. (1999) for protanopes and deuteranopes, in linear light."""
    colours = re.findall(r'"([0-9a-f]{6})"', STYLE_FILE.read_text().split("axes.prop_cycle")[1].splitlines()[0])
    assert len(colours) == 8
    rgb = np.array([[int(one[k : k + 2], 16) for k in (0, 2, 4)] for one in colours]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    protan = np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]])
    deutan = np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]])
    for seen in (linear @ protan.T, linear @ deutan.T):
        shown = np.clip(seen, 0, 1) ** (1 / 2.2)
        gaps = np.linalg.norm(shown[:, None] - shown[None], axis=2)[np.triu_indices(len(shown), 1)]
        assert gaps.min() > 0.08


@pytest.mark.parametrize("kind", ["images", "videos"])
def test_masks_and_storyboards_are_drawn_from_saved_predictions(tmp_path: Path, kind: str) -> None:
    data, results = tmp_path / "data", tmp_path / "results"
    if kind == "images":
        task = own_images(data)
        result = run_of(task, data, results, Colours(), "good")
    else:
        task = own_videos(data)
        result = run_of(task, data, results, VideoColours(2), "clips", batch_size=2)
    assert result.path is not None
    written = build_figures(tmp_path / "out", runs=[result.path], card=task, data_root=data)
    assert [path.suffix for path in written] == [".pdf", ".svg", ".png"]
    pixels = np.asarray(Image.open(written[-1]).convert("RGB")).reshape(-1, 3)
    # The first object and its segment are blue, in truth and in prediction.
    assert (np.abs(pixels.astype(int) - [0, 114, 178]).max(1) < 50).mean() > 0.002


def test_small_fragments_get_no_outlines() -> None:
    image = np.full((64, 64, 3), 120, np.uint8)
    noise = np.random.default_rng(0).integers(0, 6, (64, 64))
    blocks = np.kron(np.arange(4).reshape(2, 2), np.ones((32, 32), np.int64))
    assert not (overlay(image, noise, truth_colours(noise)) == 255).all(2).any()
    white = (overlay(image, blocks, truth_colours(blocks)) == 255).all(2)
    assert 0 < white.mean() < MOST_OUTLINE
    flat = solid(blocks, truth_colours(blocks))
    assert len(np.unique(flat.reshape(-1, 3), axis=0)) == 4


def test_a_run_without_data_is_refused_with_the_remedy(tmp_path: Path) -> None:
    result = write(tmp_path, "m", image_values(0.5), data__kind="official")
    assert result.path is not None
    with pytest.raises(UsageError, match="Images are missing: pass --data-root"):
        build_figures(tmp_path / "out", runs=[result.path])


def test_an_empty_list_of_boards_is_refused(tmp_path: Path) -> None:
    for given in ("", " , "):
        answer = CliRunner().invoke(app, ["figures", "--task", given, "--out", str(tmp_path)])
        assert answer.exit_code == 2 and "names no board" in answer.output
        assert not list(tmp_path.iterdir())
