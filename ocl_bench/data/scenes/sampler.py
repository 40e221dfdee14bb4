"""Draw the content of a scene: camera, light, ground and objects, from (variant, revision, split, seed, i) alone.

The order of the random draws is part of a revision: another order gives other scenes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .classes import STUFF, THINGS, SceneClass
from .materials import N_FULL, N_UNSEEN, TEXTURE_NAMES, Material, free_material, material_table
from .shapes import FULL_SHAPES, SHAPE_NAMES, UNSEEN_SHAPES

VARIANTS = ("full", "camo", "outd", "things")
SPLITS = ("train", "val", "test")
REVISIONS: dict[str, tuple[int, ...]] = {
    "full": (1,),
    "camo": (1,),
    "outd": (1,),
    "things": (1,),
    "salient": (1, 2),
    "motion": (1,),
    "collisions": (1,),
    "contacts": (1,),
}
"""The revisions of each variant that can be rendered. Whenever a pixel changes, it is another revision; tests compare
stored pixels."""

SIZES = {"small": 0.6, "medium": 0.82, "large": 1.1}
MIN_OBJECTS, MAX_OBJECTS = 3, 9
_COUNTS = (0.02, 0.10, 0.12, 0.14, 0.16, 0.15, 0.12, 0.10, 0.05, 0.04)
"""Probability that a scene with classes has 0, 1, .. 9 objects."""

HALF_VIEW = math.tan(math.radians(18)) / 0.8
"""Tangent of half the field of view: the central 0.8 of the picture, which the protocol keeps, spans 2 x 18 degrees."""


@dataclass(frozen=True)
class Surface:
    """One use of a material.

    Attributes:
        material: id in `material_table`, -1 for a material that is not in it.
        kind: index in `TEXTURE_NAMES`.
        first: RGB (3,) in [0, 1]. second: the other colour.
        frequency: periods per unit length.
        gloss: shininess in [0, 1].
        turn: rotation (3, 3) of the texture.
        shift: its position (3,).
    """

    material: int
    kind: int
    first: np.ndarray
    second: np.ndarray
    frequency: float
    gloss: float
    turn: np.ndarray
    shift: np.ndarray


@dataclass(frozen=True)
class SceneObject:
    """A solid on the ground: shape id, centre (3,), half-sizes (3,), yaw in radians, surface.

    category: class index in `classes.CLASSES`, -1 in variants without classes.
    """

    shape: int
    size: str
    centre: np.ndarray
    half: np.ndarray
    yaw: float
    surface: Surface
    category: int = -1


@dataclass(frozen=True)
class Border:
    """A wavy line on the ground.

    Points p with normal . p + amplitude * sin(frequency * (tangent . p) + phase) > offset are beyond it. angle: of the
    normal, in radians.
    """

    angle: float
    offset: float
    amplitude: float
    frequency: float
    phase: float


@dataclass(frozen=True)
class Scene:
    """The content of a scene, as the ray caster needs it.

    Attributes:
        camera: position (3,).
        axes: (3, 3) right, up and forward of the camera.
        light: unit vector (3,) towards the light.
        grounds: surface of each region of the ground.
        objects: the solids.
        borders: region r + 1 lies beyond border r, and not beyond a later border.
        stuff: class index of each region, empty in variants without classes.
    """

    camera: np.ndarray
    axes: np.ndarray
    light: np.ndarray
    grounds: list[Surface]
    objects: list[SceneObject] = field(default_factory=list)
    borders: list[Border] = field(default_factory=list)
    stuff: tuple[int, ...] = ()


def scene_rng(variant: str, revision: int, split: str, seed: int, index: int) -> np.random.Generator:
    """The random generator of one scene; no two variants, revisions, splits, seeds or indices share a stream."""
    key = f"ocl-bench scenes|{variant}|{revision}|{split}|{seed}|{index}"
    digest = hashlib.blake2b(key.encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


def sample_scene(variant: str, revision: int, split: str, index: int, seed: int = 0) -> Scene:
    """Draw scene `index`. Raises ValueError for an unknown variant, split or revision."""
    if variant not in VARIANTS or split not in SPLITS:
        raise ValueError(f"unknown variant or split {variant}/{split}; there are {VARIANTS} and {SPLITS}")
    if revision not in REVISIONS[variant]:
        raise ValueError(
            f"variant {variant} is at revision {REVISIONS[variant][-1]}, {revision} cannot be rendered any more"
        )
    rng = scene_rng(variant, revision, split, seed, index)
    camera, axes = place_camera(rng)
    light = draw_light(rng)
    if variant == "things":
        return _with_classes(rng, camera, axes, light)
    ground_material = _material(rng, variant)
    ground = draw_surface(rng, ground_material, scale=0.6)
    scene = Scene(camera, axes, light, [ground])
    for _ in range(int(rng.integers(MIN_OBJECTS, MAX_OBJECTS + 1))):
        shared = ground_material if variant == "camo" else None
        placed = _place(rng, scene, variant, shared)
        if placed is not None:
            scene.objects.append(placed)
    return scene


def place_camera(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Position (3,) of a camera that looks at the middle of the ground, and its axes (3, 3) right, up, forward."""
    distance, elevation = rng.uniform(10, 11.5), math.radians(rng.uniform(35, 50))
    azimuth = rng.uniform(-0.35, 0.35)
    target = np.array([0.0, 0.0, 0.35])
    outward = np.array(
        [math.cos(elevation) * math.sin(azimuth), -math.cos(elevation) * math.cos(azimuth), math.sin(elevation)]
    )
    forward = -outward
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    return target + distance * outward, np.stack([right, np.cross(right, forward), forward])


def draw_light(rng: np.random.Generator) -> np.ndarray:
    """A unit vector (3,) towards a light that stands 42 to 70 degrees high."""
    elevation, azimuth = rng.uniform(math.radians(42), math.radians(70)), rng.uniform(0, 2 * math.pi)
    return np.array(
        [math.cos(elevation) * math.cos(azimuth), math.cos(elevation) * math.sin(azimuth), math.sin(elevation)]
    )


def _material(rng: np.random.Generator, variant: str) -> int:
    return int(rng.integers(N_FULL, N_FULL + N_UNSEEN)) if variant == "outd" else int(rng.integers(0, N_FULL))


def draw_surface(rng: np.random.Generator, material: int, scale: float) -> Surface:
    """A surface of the material with this number, see `apply_material`."""
    return apply_material(rng, material_table()[material], material, scale)


def apply_material(rng: np.random.Generator, card: Material, material: int, scale: float) -> Surface:
    """A surface of a material with a random tint, position and direction of its texture.

    material: its id in the table, -1 for none. scale: factor on the frequency of the texture.
    """
    tint = np.clip(1 + rng.normal(0, 0.05, 3), 0.85, 1.15) * rng.uniform(0.92, 1.08)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return Surface(
        material=material,
        kind=TEXTURE_NAMES.index(card.kind),
        first=np.clip(np.array(card.first) * tint, 0, 1),
        second=np.clip(np.array(card.second) * tint, 0, 1),
        frequency=card.frequency * scale * rng.uniform(0.9, 1.1),
        gloss=card.gloss,
        turn=turn,
        shift=rng.uniform(0, 32, 3),
    )


def _place(rng: np.random.Generator, scene: Scene, variant: str, shared: int | None) -> SceneObject | None:
    """One more object with a shape and a material of the variant; None when there is no room.

    shared: id of the material of objects and ground in `camo`; None draws one.
    """
    names = UNSEEN_SHAPES if variant == "outd" else FULL_SHAPES
    shape = SHAPE_NAMES.index(names[int(rng.integers(len(names)))])
    size, half, yaw = draw_pose(rng)
    material = _material(rng, variant) if shared is None else shared
    surface = draw_surface(rng, material, scale=1 / math.sqrt(SIZES[size]))
    return where_free(rng, scene, SceneObject(shape, size, np.zeros(3), half, yaw, surface))


def draw_pose(rng: np.random.Generator) -> tuple[str, np.ndarray, float]:
    """A random size by name, half-sizes (3,) and yaw in radians."""
    size = tuple(SIZES)[int(rng.integers(len(SIZES)))]
    return size, SIZES[size] * rng.uniform(0.85, 1.15, 3), rng.uniform(0, 2 * math.pi)


def where_free(rng: np.random.Generator, scene: Scene, wanted: SceneObject) -> SceneObject | None:
    """An object at a place where its footprint overlaps no other; None when 40 random places are taken."""
    half = wanted.half
    for _ in range(40):
        x, y = ground_point(scene, rng.uniform(-0.86, 0.86, 2) * 0.8)
        radius = math.hypot(half[0], half[1]) * 0.85
        apart = [
            np.hypot(x - o.centre[0], y - o.centre[1]) > radius + 0.85 * math.hypot(*o.half[:2]) for o in scene.objects
        ]
        if all(apart):
            return replace(wanted, centre=np.array([x, y, half[2]]))
    return None


def _with_classes(rng: np.random.Generator, camera: np.ndarray, axes: np.ndarray, light: np.ndarray) -> Scene:
    """A scene of things on one to three kinds of stuff."""
    regions = int(rng.choice((1, 2, 3), p=(0.2, 0.5, 0.3)))
    stuff = _draw_classes(rng, STUFF, regions, replace=False)
    grounds = [
        apply_material(rng, free_material(rng, region.kind, region.hue), -1, 0.6 * region.scale) for region in stuff
    ]
    borders = [
        Border(
            rng.uniform(0, 2 * math.pi),
            rng.uniform(-1.2, 1.2),
            rng.choice((0.0, rng.uniform(0.1, 0.35))),
            rng.uniform(1.0, 3.0),
            rng.uniform(0, 2 * math.pi),
        )
        for _ in range(regions - 1)
    ]
    indices = tuple(region.index for region in stuff)
    scene = Scene(camera, axes, light, grounds, borders=borders, stuff=indices)
    count = int(rng.choice(len(_COUNTS), p=_COUNTS))
    for thing in _draw_classes(rng, THINGS, count, replace=True):
        size, half, yaw = draw_pose(rng)
        surface = apply_material(
            rng, free_material(rng, thing.kind, thing.hue), -1, thing.scale / math.sqrt(SIZES[size])
        )
        shape = SHAPE_NAMES.index(thing.shape)
        placed = where_free(rng, scene, SceneObject(shape, size, np.zeros(3), half, yaw, surface, thing.index))
        if placed is not None:
            scene.objects.append(placed)
    return scene


def _draw_classes(
    rng: np.random.Generator, classes: Sequence[SceneClass], count: int, *, replace: bool
) -> list[SceneClass]:
    """Random classes, each as often as its share says. replace: whether a class may be drawn twice."""
    shares = np.array([scene_class.share for scene_class in classes])
    chosen = rng.choice(len(classes), count, replace=replace, p=shares / shares.sum())
    return [classes[int(i)] for i in chosen]


def ground_point(scene: Scene, position: np.ndarray) -> tuple[float, float]:
    """The point of the ground seen at `position` of the picture, from (-1, -1) to (1, 1)."""
    direction = scene.axes[2] + HALF_VIEW * (position[0] * scene.axes[0] + position[1] * scene.axes[1])
    point = scene.camera - direction * (scene.camera[2] / direction[2])
    return float(point[0]), float(point[1])


def describe(scene: Scene, kept: list[int]) -> list[dict[str, Any]]:
    """Metadata of the objects with the indices `kept`, label 1 first: shape, size, material, place."""
    table = material_table()
    return [
        {
            "index": label,
            "shape": SHAPE_NAMES[o.shape],
            "size": o.size,
            "material": TEXTURE_NAMES[o.surface.kind] if o.category >= 0 else table[o.surface.material].name,
            "material_id": o.surface.material,
            **({"category": o.category} if o.category >= 0 else {}),
            "3d_coords": [round(float(v), 4) for v in o.centre],
            "rotation": round(math.degrees(o.yaw), 2),
        }
        for label, o in enumerate((scene.objects[k] for k in kept), start=1)
    ]
