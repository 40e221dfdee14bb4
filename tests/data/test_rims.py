"""Id maps that were resized with interpolation are recognised, and maps with small or thin objects are not."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_trees import card, save_picture
from PIL import Image
from scenes_with_classes import classed_scene
from tiny_videos import video_task

from ocl_bench.data import open_data
from ocl_bench.data.rims import FEWEST, count_rims
from ocl_bench.evaluation.supplied.score import score_masks


def two_objects(size: int, way: Any = Image.Resampling.BILINEAR) -> np.ndarray:
    """Two objects, 100 and 200, resized from 40 x 40."""
    labels = np.zeros((40, 40), np.uint8)
    labels[5:20, 5:20], labels[15:35, 18:36] = 100, 200
    return np.asarray(Image.fromarray(labels).resize((size, size), way)).astype(np.int64)


def suspicious(codes: np.ndarray, **options: Any) -> bool:
    ids, rims = count_rims(codes, **options)
    return rims >= FEWEST and 2 * rims > ids


@pytest.mark.parametrize("size", [20, 33, 64, 80, 128, 320])
@pytest.mark.parametrize("way", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
def test_interpolated_maps_are_mostly_rims(size: int, way: Any) -> None:
    codes = two_objects(size, way)
    assert len(np.unique(codes)) >= 13 and suspicious(codes)
    coloured = np.where(codes > 0, codes + 256 * (255 - codes) + 65536 * (codes // 2), 0)
    assert suspicious(coloured, coloured=True)


@pytest.mark.parametrize("size", [20, 33, 64, 80, 128, 320])
def test_resizing_by_nearest_pixel_makes_none(size: int) -> None:
    assert count_rims(two_objects(size, Image.Resampling.NEAREST)) == (3, 0)


def maps() -> Iterator[np.ndarray]:
    """Discs from one pixel up, cells that touch, and lines of one pixel over discs, with ids in any order."""
    random = np.random.default_rng(0)
    for number in range(240):
        size, count = int(random.choice([16, 32, 64, 128])), int(random.integers(2, 60))
        ids = random.permutation(np.arange(1, 255))[:count]
        y, x = np.mgrid[:size, :size]
        labels = np.zeros((size, size), np.int64)
        if number % 3 == 1:
            centres = random.uniform(0, size, (count, 2))
            labels = ids[((y[..., None] - centres[:, 0]) ** 2 + (x[..., None] - centres[:, 1]) ** 2).argmin(-1)]
        else:
            largest = float(random.choice([2, 3, 6, 15, 40]))
            for one in ids if number % 3 == 0 else ids[:6]:
                at, radius = random.uniform(0, size, 2), random.uniform(1, largest)
                labels[(y - at[0]) ** 2 + (x - at[1]) ** 2 < radius**2] = one
        if number % 3 == 2:
            for one in ids:
                ends, steps = random.uniform(0, size, (2, 2)), np.linspace(0, 1, 4 * size)[:, None]
                line = (ends[0] + (ends[1] - ends[0]) * steps).astype(int).clip(0, size - 1)
                labels[line[:, 0], line[:, 1]] = one
        yield labels


def test_small_thin_and_touching_objects_raise_no_alarm() -> None:
    assert [number for number, labels in enumerate(maps()) if suspicious(labels)] == []
    assert not suspicious(np.arange(1, 401).reshape(20, 20))  # 400 objects of one pixel
    for number in range(20):
        scene = classed_scene(number)
        objects = scene.objects.astype(np.int64)
        assert not suspicious(objects)
        border = objects != np.roll(objects, 1, 1)
        assert not suspicious(np.where(border, 255, objects), void=255)  # as in VOC


@pytest.mark.parametrize("reader", ["folder", "video-folder"])
def test_readers_say_it_once(tmp_path: Path, caplog: pytest.LogCaptureFixture, reader: str) -> None:
    caplog.set_level(logging.WARNING, "ocl_bench")
    video = "v/" if reader == "video-folder" else ""
    for name in "ab":
        save_picture(tmp_path / f"images/{video}{name}.png", np.zeros((64, 64, 3), np.uint8))
        save_picture(tmp_path / f"masks/{video}{name}.png", two_objects(64).astype(np.uint8))
    task = video_task(data={"reader": reader, "options": {"images": "images"}}) if video else card(reader=reader)
    opened: Any = open_data(task, data_root=tmp_path, progress=False).reader
    assert len([*opened[0].frames] if video else [opened[0], opened[1]]) == 2
    said = [record.message for record in caplog.records if "most ids are rims" in record.message]
    assert len(said) == 1 and "a.png: most ids are rims (31 of 34)" in said[0]
    assert "resize masks by nearest pixel" in said[0]


@pytest.mark.parametrize("field", ["truth", "prediction"])
def test_score_says_it_too(tmp_path: Path, caplog: pytest.LogCaptureFixture, field: str) -> None:
    caplog.set_level(logging.WARNING, "ocl_bench")
    fine = two_objects(64, Image.Resampling.NEAREST)[None]
    maps = {"truth": fine, "prediction": fine, field: two_objects(64)[None]}
    np.savez(tmp_path / "maps.npz", **maps)
    score_masks("clevrtex", tmp_path / "maps.npz", results=tmp_path / "results", progress=False)
    said = [record.message for record in caplog.records if "most ids are rims" in record.message]
    assert len(said) == 1 and f"said once for {field} of" in said[0]
