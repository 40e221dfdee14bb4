"""Draws the salient scenes: one large object of the image's class among smaller ones of other classes.

A revision is a `_World`: its classes, sizes, grounds and surfaces. Everything else is shared. The order of the random
draws is part of a revision.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .materials import FULL_KINDS, TEXTURE_NAMES, contrasting_colours, free_material
from .salient_classes import SalientClass, classes_of
from .sampler import (
    REVISIONS,
    SPLITS,
    Border,
    Scene,
    SceneObject,
    Surface,
    apply_material,
    draw_light,
    ground_point,
    place_camera,
    scene_rng,
    where_free,
)
from .shapes import SHAPE_NAMES

_POINTED = 1.3
"""Factor on the size of a salient octahedron, because it fills only a sixth of the cube around it."""

Paint = Callable[[np.random.Generator, SalientClass, np.ndarray, bool], Surface]
"""Draws the surface of an object, from its class, its half-sizes (3,) and whether it is the salient one."""


@dataclass(frozen=True)
class _World:
    """What a revision shows.

    Attributes:
        grounds: Kinds of texture of the ground.
        half: Smallest and largest mean half-size of the salient object.
        proportions: Smallest and largest factor on each of its axes.
        other_half: Those of the others.
        others: Smallest and largest number of others that are drawn. Some find no place, are hidden or cut off.
        occluded: Share of scenes in which another object stands between the camera and the salient one.
        paint: Surface of an object.
    """

    grounds: tuple[str, ...]
    half: tuple[float, float]
    proportions: tuple[float, float]
    other_half: tuple[float, float]
    others: tuple[int, int]
    occluded: float
    paint: Paint


def _free(rng: np.random.Generator, wanted: SalientClass, half: np.ndarray, salient: bool) -> Surface:
    """A texture turned at random in space, in colours of the hue of the class."""
    assert wanted.hue is not None
    return apply_material(rng, free_material(rng, wanted.kind, wanted.hue), -1, 0.6 if salient else 1.0)


def _aligned(rng: np.random.Generator, wanted: SalientClass, half: np.ndarray, salient: bool) -> Surface:
    """A texture along the axes of the object, in two colours of any hue, one clearly lighter than the other."""
    first, second = (np.array(colour) for colour in contrasting_colours(rng))
    periods, shift, axis = rng.uniform(2.2, 3.2), rng.uniform(0, 1, 3), int(rng.integers(3))
    if wanted.kind == "dots":
        # Dots are balls on a lattice of whole numbers, which is placed so that surfaces cut them near their middle.
        periods, shift = rng.uniform(2.9, 3.1), np.full(3, 0.5)
    elif wanted.kind == "plain":
        # Any mixture of the two, mottled: plain surfaces are on average as light as the others, and not flat.
        share = rng.uniform()
        first, second = first + share * (second - first), first if share > 0.5 else second
    elif wanted.kind == "checker":
        periods *= 2  # two cells are one period
    if wanted.shape == "octahedron" and wanted.kind != "checker":
        periods *= 5 / 3  # its faces are smaller than those of the cube around it
    # Row 0 is the direction of stripes. Dividing by the size of the object gives all sizes the same number of periods.
    turn = np.roll(np.diag(1 / (2 * half)), axis, axis=0)
    gloss = float(rng.uniform(0.2, 0.6)) if rng.uniform() < 0.35 else 0.0
    kind = TEXTURE_NAMES.index(wanted.kind)
    return Surface(-1, kind, first, second, periods, gloss, turn, shift)


_WORLDS = {
    1: _World(FULL_KINDS, (1.25, 1.75), (0.88, 1.12), (0.5, 0.85), (4, 6), 0.4, _free),
    2: _World(("clouds", "marble", "camouflage"), (1.25, 1.5), (0.75, 1.25), (0.95, 1.2), (2, 4), 0.2, _aligned),
}


def sample_salient(revision: int, split: str, index: int, seed: int = 0) -> Scene:
    """Draw scene `index`; object 0 is the salient one. Raises ValueError for an unknown split or revision."""
    if split not in SPLITS or revision not in REVISIONS["salient"]:
        known = f"{SPLITS} and revision {' and '.join(map(str, REVISIONS['salient']))}"
        raise ValueError(f"unknown split or revision {split}/{revision} of variant salient; there are {known}")
    world, classes = _WORLDS[revision], classes_of(revision)
    rng = scene_rng("salient", revision, split, seed, index)
    camera, axes = place_camera(rng)
    scene = _busy_ground(rng, world, camera, axes, draw_light(rng))
    main = classes[index % len(classes)]
    scene.objects.append(_salient(rng, world, scene, main))
    others = [other for other in classes if other is not main]
    for number in range(int(rng.integers(world.others[0], world.others[1] + 1))):
        chosen = others[int(rng.integers(len(others)))]
        half = rng.uniform(*world.other_half) * rng.uniform(0.85, 1.15, 3)
        wanted = _object(rng, world, chosen, np.zeros(3), half, salient=False)
        in_front = number == 0 and rng.uniform() < world.occluded
        placed = _in_front(rng, scene, wanted) if in_front else where_free(rng, scene, wanted)
        if placed is not None:
            scene.objects.append(placed)
    return scene


def _busy_ground(
    rng: np.random.Generator, world: _World, camera: np.ndarray, axes: np.ndarray, light: np.ndarray
) -> Scene:
    """A scene without objects, whose ground has two or three regions of different textures and any colours."""
    regions = int(rng.integers(2, 4))
    kinds = rng.choice(len(world.grounds), regions, replace=False)
    grounds = [
        apply_material(rng, free_material(rng, world.grounds[int(k)], rng.uniform()), -1, rng.uniform(0.4, 0.9))
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


def _salient(rng: np.random.Generator, world: _World, scene: Scene, main: SalientClass) -> SceneObject:
    """The large object. It rises from the ground, so its foot is placed below the centre of the picture."""
    pointed = _POINTED if main.shape == "octahedron" else 1.0
    half = rng.uniform(*world.half) * rng.uniform(*world.proportions, 3) * pointed
    x, y = ground_point(scene, np.array([rng.uniform(-0.22, 0.22), rng.uniform(-0.45, -0.1)]))
    return _object(rng, world, main, np.array([x, y, half[2]]), half, salient=True)


def _object(
    rng: np.random.Generator, world: _World, wanted: SalientClass, centre: np.ndarray, half: np.ndarray, salient: bool
) -> SceneObject:
    """An object of a class. half: half-sizes (3,)."""
    surface = world.paint(rng, wanted, half, salient)
    size = "large" if half.mean() > 1 else "small"
    shape = SHAPE_NAMES.index(wanted.shape)
    return SceneObject(shape, size, centre, half, rng.uniform(0, 2 * math.pi), surface, wanted.index)


def _in_front(rng: np.random.Generator, scene: Scene, wanted: SceneObject) -> SceneObject:
    """`wanted`, placed between the camera and the salient object, where it hides a part of it."""
    main = scene.objects[0]
    towards = math.atan2(*(scene.camera - main.centre)[[1, 0]]) + rng.uniform(-0.7, 0.7)
    reach = 0.85 * (math.hypot(*main.half[:2]) + math.hypot(*wanted.half[:2]))
    x, y = main.centre[:2] + reach * np.array([math.cos(towards), math.sin(towards)])
    centre = np.array([x, y, wanted.half[2]])
    return SceneObject(wanted.shape, wanted.size, centre, wanted.half, wanted.yaw, wanted.surface, wanted.category)
