"""Scenes for image classification: one large object of the image's class among smaller ones of other classes.

    store = SalientStore(split="train", count=64)      # reads the cache; data/stand_ins/layouts.py fills it
    store[0].image, store[0].label, store[0].boxes

<cache>/scenes/salient-r1/<split>[-seed<N>]/00000.npz     16 scenes each

A class is a shape with a texture: four shapes times six textures, and neither alone determines it. Each of four hues is
shared by six classes: colour helps, but does not determine the class, not even together with the shape. Scene i shows
class i modulo 24; it is a pure function of (revision, split, seed, i).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .materials import FULL_KINDS, free_material
from .sampler import (
    REVISIONS,
    SPLITS,
    Border,
    Scene,
    SceneObject,
    apply_material,
    draw_light,
    ground_point,
    place_camera,
    scene_rng,
    where_free,
)
from .shapes import FULL_SHAPES, SHAPE_NAMES
from .store import Store, central_window, read_arrays, serve, write_arrays

CHUNK = 16
SIZE = 128
SHAPES = ((96, 128), (128, 96), (128, 128), (102, 128), (128, 102))
"""Height and width of the central part that is kept of the rendered square; scene i has entry i modulo 5."""

MIN_DISTRACTORS, MAX_DISTRACTORS = 4, 6
"""Number of smaller objects that are drawn. Some find no place, are hidden or cut off: most pictures show 3 to 6."""

_KINDS = ("plain", "checker", "stripes", "dots", "camouflage", "lattice")
_HUES = 4
_POINTED = 1.3
"""Factor on the size of an octahedron, because it fills only a sixth of the cube around it."""

_OCCLUDED = 0.4
"""Share of scenes in which a distractor stands between the camera and the salient object."""

_MIN_PIXELS = 65
"""Objects with fewer pixels in the cropped picture get no box. It is 0.4 % of the square, as in other scenes."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class SalientClass:
    """One class, a shape with a kind of texture. index: 0..23. hue: mean of its colours, in turns."""

    index: int
    shape: str
    kind: str
    hue: float


CLASSES: tuple[SalientClass, ...] = tuple(
    SalientClass(s * len(_KINDS) + k, shape, kind, (s + k) % _HUES / _HUES)
    for s, shape in enumerate(FULL_SHAPES)
    for k, kind in enumerate(_KINDS)
)


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

    def write(self, path: Path, indices: range) -> None:
        """Render these scenes and write them as one file."""
        write_chunk(path, render_salient(self.revision, self.split, indices, self.seed))


def sample_salient(revision: int, split: str, index: int, seed: int = 0) -> Scene:
    """Draw scene `index`; object 0 is the salient one. Raises ValueError for an unknown split or revision."""
    if split not in SPLITS or revision != REVISIONS["salient"]:
        known = f"{SPLITS} and revision {REVISIONS['salient']}"
        raise ValueError(f"unknown split or revision {split}/{revision} of variant salient; there are {known}")
    rng = scene_rng("salient", revision, split, seed, index)
    camera, axes = place_camera(rng)
    scene = _busy_ground(rng, camera, axes, draw_light(rng))
    main = CLASSES[index % len(CLASSES)]
    scene.objects.append(_salient(rng, scene, main))
    others = [other for other in CLASSES if other is not main]
    for number in range(int(rng.integers(MIN_DISTRACTORS, MAX_DISTRACTORS + 1))):
        chosen = others[int(rng.integers(len(others)))]
        half = rng.uniform(0.5, 0.85) * rng.uniform(0.85, 1.15, 3)
        wanted = _object(rng, chosen, np.zeros(3), half, scale=1.0)
        in_front = number == 0 and rng.uniform() < _OCCLUDED
        placed = _in_front(rng, scene, wanted) if in_front else where_free(rng, scene, wanted)
        if placed is not None:
            scene.objects.append(placed)
    return scene


def _busy_ground(rng: np.random.Generator, camera: np.ndarray, axes: np.ndarray, light: np.ndarray) -> Scene:
    """A scene without objects, whose ground has two or three regions of any textures and colours."""
    regions = int(rng.integers(2, 4))
    kinds = rng.choice(len(FULL_KINDS), regions, replace=False)
    grounds = [
        apply_material(rng, free_material(rng, FULL_KINDS[int(k)], rng.uniform()), -1, rng.uniform(0.4, 0.9))
        for k in kinds
    ]
    borders = [
        Border(
            rng.uniform(0, 2 * math.pi),
            rng.uniform(-1.5, 1.5),
            rng.uniform(0, 0.35),
            rng.uniform(1.0, 3.0),
            rng.uniform(0, 2 * math.pi),
        )
        for _ in range(regions - 1)
    ]
    return Scene(camera, axes, light, grounds, borders=borders)


def _salient(rng: np.random.Generator, scene: Scene, main: SalientClass) -> SceneObject:
    """The large object. It rises from the ground, so its foot is placed below the centre of the picture."""
    half = rng.uniform(1.25, 1.75) * rng.uniform(0.88, 1.12, 3) * (_POINTED if main.shape == "octahedron" else 1.0)
    x, y = ground_point(scene, np.array([rng.uniform(-0.22, 0.22), rng.uniform(-0.45, -0.1)]))
    return _object(rng, main, np.array([x, y, half[2]]), half, scale=0.6)


def _object(
    rng: np.random.Generator, salient: SalientClass, centre: np.ndarray, half: np.ndarray, scale: float
) -> SceneObject:
    """An object of a class. half: half-sizes (3,). scale: of its texture."""
    surface = apply_material(rng, free_material(rng, salient.kind, salient.hue), -1, scale)
    size = "large" if half.mean() > 1 else "small"
    shape = SHAPE_NAMES.index(salient.shape)
    return SceneObject(shape, size, centre, half, rng.uniform(0, 2 * math.pi), surface, salient.index)


def _in_front(rng: np.random.Generator, scene: Scene, wanted: SceneObject) -> SceneObject:
    """`wanted`, placed between the camera and the salient object, where it hides a part of it."""
    main = scene.objects[0]
    towards = math.atan2(*(scene.camera - main.centre)[[1, 0]]) + rng.uniform(-0.7, 0.7)
    reach = 0.85 * (math.hypot(*main.half[:2]) + math.hypot(*wanted.half[:2]))
    x, y = main.centre[:2] + reach * np.array([math.cos(towards), math.sin(towards)])
    centre = np.array([x, y, wanted.half[2]])
    return SceneObject(wanted.shape, wanted.size, centre, wanted.half, wanted.yaw, wanted.surface, wanted.category)


def render_salient(revision: int, split: str, indices: Sequence[int], seed: int = 0) -> list[SalientScene]:
    """Render the scenes `indices` of a split, each cropped to its size."""
    import torch

    from . import MIN_VISIBLE
    from .caster import build_world, cast

    scenes = [sample_salient(revision, split, index, seed) for index in indices]
    with torch.no_grad():
        image, hit, _, _ = cast(build_world(scenes), SIZE, MIN_VISIBLE)
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
