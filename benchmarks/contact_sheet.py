"""Draw the contact sheet of the README: scenes of every variant with their masks.

python benchmarks/contact_sheet.py docs/contact-sheet.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from torch import Tensor

from ocl_bench.core.plot_style import PALETTE, new_figure, save_figure, style
from ocl_bench.data.scenes import REVISIONS, VARIANTS, Scenes, render

COLUMNS = 8
GAP = 4
NAMES = {
    "full": "clevrtex",
    "camo": "clevrtex-camo",
    "outd": "clevrtex-ood",
    "things": "COCO, VOC, ADE20K, Cityscapes; below: classes of things and stuff",
}


def strip(tiles: list[np.ndarray]) -> np.ndarray:
    """Put tiles (H, W, 3) beside each other, with white gaps between them."""
    white = np.full((tiles[0].shape[0], GAP, 3), 255, dtype=np.uint8)
    return np.concatenate([part for tile in tiles for part in (tile, white)][:-1], axis=1)


def masks(labels: Tensor) -> list[np.ndarray]:
    """Colour label maps (N, H, W). The background is dark grey."""
    colours = np.concatenate([[[60, 60, 60]], PALETTE]).astype(np.uint8)
    return list(colours[labels.numpy()])


def classes(scenes: Scenes) -> list[np.ndarray]:
    """Colour class maps. Stuff is darker than things."""
    generator = np.random.default_rng(5)
    colours = np.concatenate([generator.integers(120, 255, (12, 3)), generator.integers(20, 130, (15, 3))])
    tiles = []
    for labels, stuff, objects in zip(scenes.labels.numpy(), scenes.stuff.numpy(), scenes.objects, strict=True):
        class_map = stuff.copy()
        for number, entry in enumerate(objects, start=1):
            class_map[labels == number] = entry["category"]
        tiles.append(colours[class_map].astype(np.uint8))
    return tiles


def draw(path: Path) -> None:
    """Draw two rows for each variant, images above masks. The scenes are the first ones of `val`, not a selection."""
    with style():
        figure = new_figure(9.0, 9.6)
        for block, variant in enumerate(VARIANTS):
            scenes = render(variant, REVISIONS[variant][-1], "val", range(COLUMNS))
            below = classes(scenes) if variant == "things" else masks(scenes.labels)
            rows = [strip(list(scenes.image.permute(0, 2, 3, 1).numpy())), strip(below)]
            gap = np.full((GAP, rows[0].shape[1], 3), 255, dtype=np.uint8)
            axis = figure.add_axes((0.02, 0.01 + (3 - block) * 0.2475, 0.97, 0.217))
            axis.imshow(np.concatenate([rows[0], gap, rows[1]]), interpolation="none")
            axis.set_title(f"{NAMES[variant]} (stand-in scenes {variant})", loc="left")
            axis.set_axis_off()
        save_figure(figure, path, dots_per_inch=140)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw the contact sheet of the README.")
    parser.add_argument("path", type=Path)
    draw(parser.parse_args().path)
