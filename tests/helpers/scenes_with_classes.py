"""Scenes with classes, made by hand, for the writers of official layouts and for stand-ins."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ocl_bench.data.scenes.classes import CLASSES, N_THINGS
from ocl_bench.data.scenes.store import CHUNK, ClassedScene, SceneStore, write_chunk

SIZES = ((30, 44), (44, 30), (36, 36))


def classed_scene(number: int) -> ClassedScene:
    """Objects at the edges, in holes of others, that touch at corners or are one pixel; scene 0 has none.

    Classes repeat, so that a scene can have a crowd. Image and ground depend on the number.
    """
    random = np.random.default_rng(number)
    height, width = SIZES[number % len(SIZES)]
    stuff = np.full((height, width), random.integers(N_THINGS, len(CLASSES)), np.uint8)
    stuff[height // 2 :] = random.integers(N_THINGS, len(CLASSES))
    objects = np.zeros((height, width), np.uint8)
    classes: tuple[int, ...] = ()
    if number:
        objects[2:14, 2:14], objects[5:10, 5:10], objects[7, 7] = 1, 0, 2  # a ring, and a dot in its hole
        objects[0:3, 16:22], objects[3:6, 22:26] = 3, 3  # touches itself at a corner
        objects[15:20, 0:6], objects[20:25, 6:11] = 4, 5  # touch each other at a corner
        noise = random.random((8, 10)) < 0.6
        objects[-8:, -10:][noise], objects[-8, -10] = 6, 6
        classes = tuple(int(index) for index in random.integers(0, 3, 6))
    image = np.repeat(random.integers(0, 256, (height, width, 1), dtype=np.uint8), 3, axis=2)
    return ClassedScene(image, objects, np.where(objects > 0, 255, stuff).astype(np.uint8), classes)


def fill_store(split: str, chunks: int = 1, seed: int = 0) -> Path:
    """Scenes by hand in the cache, so that nothing is rendered; scenes of splits differ. Returns the folder."""
    first = {"train": 100, "test": 200}[split] + 1000 * seed
    store = SceneStore(split=split, seed=seed)
    for chunk in range(chunks):
        numbers = range(first + chunk * CHUNK, first + (chunk + 1) * CHUNK)
        write_chunk(store.folder / f"{chunk:05d}.npz", [classed_scene(number) for number in numbers])
    return store.folder
