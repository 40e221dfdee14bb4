"""Suffixes in capitals are listed and read in every layout: nothing is lost or called missing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_trees import (
    card,
    open_layout,
    save_image,
    save_picture,
    write_ade20k,
    write_cityscapes,
    write_clevrtex,
    write_sbd,
    write_voc,
)

from ocl_bench.data import OpenData, open_data

CLASSES = np.zeros((20, 28), np.uint8)
CLASSES[:8], CLASSES[9:, :10], CLASSES[9:, 12:] = 3, 15, 1
CITY = np.full((20, 28), 7, np.uint8)
CITY[:8] = 26
Open = Callable[[], OpenData]


def ade20k(root: Path) -> Open:
    for number in (1, 2):
        write_ade20k(root, "validation", f"ADE_val_{number:08d}", CLASSES)
    return partial(open_layout, "ade20k", root)


def cityscapes(root: Path) -> Open:
    for name in ("lindau_000003_000019", "munster_000001_000019"):
        write_cityscapes(root, CITY, CITY.astype(np.uint16) * 1000, name)
    return partial(open_layout, "cityscapes", root, truth="instances")


def voc(root: Path) -> Open:
    write_voc(root, CLASSES, CLASSES, val=("2007_000033", "2007_000042"))
    return partial(open_layout, "voc", root)


def voc_all(root: Path) -> Open:
    write_voc(root, CLASSES, CLASSES, val=("2007_000033", "2007_000042"))
    return partial(open_layout, "voc", root, "all-masks")


def sbd(root: Path) -> Open:
    write_voc(root, CLASSES, CLASSES, train=("2007_000033",), val=("2007_000042",))
    write_sbd(root, CLASSES, CLASSES, train=("2008_000001",), val=())
    return partial(open_layout, "voc", root, "trainaug")


def stuff_things(root: Path) -> Open:
    for number in (1, 2):
        save_image(root / f"val2017/{number:012d}.jpg", CLASSES.shape)
        save_picture(root / f"annotations/val2017/{number:012d}.png", CLASSES)
    return partial(open_layout, "coco", root, annotations="stuffthings")


def clevrtex(root: Path) -> Open:
    write_clevrtex(root, range(20))
    return partial(open_data, card(split="test", folder=""), data_root=root, progress=False)


LAYOUTS: dict[str, Callable[[Path], Open]] = {
    one.__name__: one for one in (ade20k, cityscapes, voc, voc_all, sbd, stuff_things, clevrtex)
}


def content(data: OpenData) -> list[Any]:
    samples = [data.reader[index] for index in range(len(data.ids))]
    return [(s.id, s.image.tolist(), s.truth.labels.tolist(), s.truth.categories) for s in samples]  # type: ignore[union-attr]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_capitals_change_nothing(tmp_path: Path, layout: str) -> None:
    opened = LAYOUTS[layout](tmp_path / "tree")
    before = content(opened())
    assert len(before) >= 2
    renamed = 0
    for path in sorted((tmp_path / "tree").rglob("*")):
        if path.suffix in (".png", ".jpg"):
            path.rename(path.with_suffix(path.suffix.upper()))
            renamed += 1
    assert renamed >= 4 and content(opened()) == before
