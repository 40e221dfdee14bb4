"""Scenes for image classification: one large object of the image's class among smaller ones of other classes.

    store = SalientStore(revision=2, split="train", count=64)      # reads the cache; data/stand_ins/layouts.py fills it
    store[0].image, store[0].label, store[0].boxes

<cache>/scenes/salient-r2/<split>[-seed<N>]/00000.npz     16 scenes each

A class is a shape with a texture, and neither alone determines it. Revision 1 has four shapes times six textures, and
each of four hues is shared by six classes: colour helps, but does not determine the class, not even together with the
shape. Revision 2 has four shapes times four textures; colours say nothing. Scene i shows class i modulo their number;
it is a pure function of (revision, split, seed, i).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .salient_classes import CLASSES, SalientClass, classes_of
from .salient_sampler import sample_salient
from .store import Store, central_window, read_arrays, serve, write_arrays

__all__ = ["CLASSES", "SalientClass", "SalientScene", "SalientStore", "classes_of", "render_salient", "sample_salient"]

CHUNK = 16
SIZE = 128
SHAPES = ((96, 128), (128, 96), (128, 128), (102, 128), (128, 102))
"""Height and width of the central part that is kept of the rendered square; scene i has entry i modulo 5."""

_MIN_PIXELS = 65
"""Objects with fewer pixels in the cropped picture get no box. It is 0.4 % of the square, as in other scenes."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class SalientScene:
    """One scene, cropped to its size.

    image: (H, W, 3) uint8. label: class index of the salient object. boxes: class index and box x0, y0, x1, y1 of the
    visible part of each object, in pixels (x1 and y1 exclusive), the salient object first.
    """

    image: np.ndarray
    label: int
    boxes: tuple[tuple[int, Box], ...]


@dataclass(frozen=True)
class SalientStore(Store[SalientScene]):
    """Scenes with a salient object, in files of 16."""

    chunk = CHUNK

    variant: str = "salient"

    @staticmethod
    def read(path: Path) -> list[SalientScene]:
        """The scenes of a file."""
        return read_chunk(path)

    @property
    def classes(self) -> tuple[SalientClass, ...]:
        """The classes of the revision."""
        return classes_of(self.revision)

    def write(self, path: Path, indices: range) -> None:
        """Render these scenes and write them as one file."""
        write_chunk(path, render_salient(self.revision, self.split, indices, self.seed))


def render_salient(revision: int, split: str, indices: Sequence[int], seed: int = 0) -> list[SalientScene]:
    """Render the scenes `indices` of a split, each cropped to its size."""
    import torch

    from . import MIN_VISIBLE
    from .caster import build_world, cast

    scenes = [sample_salient(revision, split, index, seed) for index in indices]
    with torch.no_grad():
        windows = [central_window((SIZE, SIZE), SHAPES[index % len(SHAPES)]) for index in indices]
        image, hit, _, _ = cast(build_world(scenes), SIZE, MIN_VISIBLE, windows)
        pixels = (image * 255 + 0.5).to(torch.uint8).numpy()
    return [
        crop_scene(pixels[k], hit[k].numpy(), [thing.category for thing in scene.objects], SHAPES[index % len(SHAPES)])
        for k, (index, scene) in enumerate(zip(indices, scenes, strict=True))
    ]


def crop_scene(image: np.ndarray, hit: np.ndarray, classes: Sequence[int], shape: tuple[int, int]) -> SalientScene:
    """The central part of a square scene, with boxes around the visible parts of the objects.

    Args:
        image: (S, S, 3) uint8.
        hit: (S, S) index of the object that each pixel shows, negative for the ground.
        classes: class index of each object, the salient one first.
        shape: height and width of the part.
    """
    window = central_window(hit.shape, shape)
    image, hit = image[window], hit[window]
    boxes = []
    for number, class_index in enumerate(classes):
        rows, columns = np.nonzero(hit == number)
        if len(rows) >= _MIN_PIXELS:
            box = (float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))
            boxes.append((class_index, box))
    return SalientScene(np.ascontiguousarray(image), classes[0], tuple(boxes))


def write_chunk(path: Path, scenes: Sequence[SalientScene]) -> None:
    """Write scenes as one file."""
    arrays: dict[str, np.ndarray] = {"labels": np.array([scene.label for scene in scenes], dtype=np.uint8)}
    for position, scene in enumerate(scenes):
        arrays[f"image{position}"] = scene.image
        rows = [(class_index, *box) for class_index, box in scene.boxes]
        arrays[f"boxes{position}"] = np.array(rows, dtype=np.int16).reshape(-1, 5)
    write_arrays(path, **arrays)


def read_chunk(path: Path) -> list[SalientScene]:
    """The scenes of a file. Raises OSError naming the file when it is damaged."""
    with read_arrays(path) as content:
        return [
            SalientScene(content[f"image{k}"], int(label), tuple(map(_class_and_box, content[f"boxes{k}"].tolist())))
            for k, label in enumerate(content["labels"])
        ]


def _class_and_box(row: Sequence[int]) -> tuple[int, Box]:
    class_index, x0, y0, x1, y1 = row
    return class_index, (float(x0), float(y0), float(x1), float(y1))


def main() -> None:
    """Run as a worker process, see `serve`."""
    serve(SalientStore)
