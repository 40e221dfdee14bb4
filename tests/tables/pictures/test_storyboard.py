"""Storyboards: which frames are drawn, and what is written on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from tiny_videos import moving_squares

from ocl_bench.tables.pictures.storyboard import Strip, _rows, chosen_frames, write_storyboard


def strip_of(section: str, frames: int) -> Strip:
    samples = list(moving_squares(0, frames).frames)
    images, labels = (np.stack(one) for one in zip(*[(s.image, s.truth.labels) for s in samples], strict=True))
    # Segments of another size than the images, one of them with an id that does not fit into 16 bits.
    prediction = labels.astype(np.int64)[:, ::2, ::2] * 70_000
    return Strip(section, "video0", 0.5, images, labels, prediction, tuple(range(frames)))


def test_frames_are_spread_from_the_first_to_the_last() -> None:
    assert chosen_frames(1) == (0,) and chosen_frames(3) == (0, 1, 2)
    assert chosen_frames(24) == (0, 3, 7, 10, 13, 16, 20, 23)


def test_every_image_shows_the_number_of_its_frame(tmp_path: Path) -> None:
    """Strips may differ in length; another number changes the first picture and nothing below it."""
    strips = [strip_of("best", 3), strip_of("worst", 1)]
    path = write_storyboard(tmp_path / "a.png", strips, metric="mbo_video", title="a title")
    first = np.asarray(Image.open(path).convert("RGB")).astype(int)
    strips[0] = replace(strips[0], numbers=(0, 1, 17))
    second = np.asarray(Image.open(write_storyboard(path, strips, metric="mbo_video", title="a title")).convert("RGB"))
    rows, columns = np.nonzero((first != second).any(2))
    assert len(rows) and rows.max() < first.shape[0] / 4 and columns.min() > first.shape[1] / 2


def test_a_slot_has_one_colour_in_all_frames() -> None:
    """Slot 1 covers object 1, then jumps to object 2: it keeps its colour in all frames."""
    labels = np.zeros((3, 12, 24), np.int16)
    labels[:, 2:10, 2:10], labels[:, 2:10, 14:22] = 1, 2
    slots = np.where(labels == 0, 7, labels)
    slots[2] = np.choose(labels[2], (7, 2, 1))  # the two have changed places in the last frame
    grey = np.full((3, 12, 24, 3), 128, np.uint8)
    rows = dict(_rows(Strip("best", "v", 1.0, grey, labels, slots, (0, 1, 2))))
    inside = {1: (5, 5), 2: (5, 17)}
    colour = {slot: tuple(rows["prediction"][0][inside[slot]]) for slot in (1, 2)}
    assert colour[1] != colour[2] and colour == {slot: tuple(rows["truth"][0][inside[slot]]) for slot in (1, 2)}
    assert tuple(rows["prediction"][1][inside[1]]) == colour[1]
    assert tuple(rows["prediction"][2][inside[2]]) == colour[1] and tuple(rows["prediction"][2][inside[1]]) == colour[2]
