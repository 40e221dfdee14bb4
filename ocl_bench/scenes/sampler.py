"""What is in a scene: camera, light, ground and objects, as a pure function of (variant, revision, split, seed, i)."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .materials import N_FULL, N_UNSEEN, TEXTURE_NAMES, Material, material_table
from .shapes import FULL_SHAPES, SHAPE_NAMES, UNSEEN_SHAPES

VARIANTS = ("full", "camo", "outd")
SPLITS = ("train", "val", "test")
REVISIONS = {"full": 1, "camo": 1, "outd": 1}
"""The revision of each variant, raised by hand whenever a pixel of it changes (guarded by a golden test)."""

SIZES = {"small": 0.6, "medium": 0.82, "large": 1.1}
MIN_OBJECTS, MAX_OBJECTS = 3, 9
HALF_VIEW = math.tan(math.radians(18)) / 0.8
"""Tangent of half the field of view: the central 0.8 of the picture, which the protocol keeps, spans 18 degrees."""


@dataclass(frozen=True)
class Surface:
    """One use of a material: jittered colours, and where its texture lies."""

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
    """A solid on the ground: shape id, centre (3,), half-sizes (3,), yaw in radians, surface."""

    shape: int
    size: str
    centre: np.ndarray
    half: np.ndarray
    yaw: float
    surface: Surface


@dataclass(frozen=True)
class Scene:
    """Everything the ray caster needs. camera: position (3,) and axes (3, 3) right, up, forward. light: unit (3,)."""

    camera: np.ndarray
    axes: np.ndarray
    light: np.ndarray
    ground: Surface
    objects: list[SceneObject] = field(default_factory=list)


def scene_rng(variant: str, revision: int, split: str, seed: int, index: int) -> np.random.Generator:
    """The generator of one scene; different variants, splits, seeds and indices never share a stream."""
    key = f"ocl-bench scenes|{variant}|{revision}|{split}|{seed}|{index}"
    digest = hashlib.blake2b(key.encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


def sample_scene(variant: str, revision: int, split: str, index: int, seed: int = 0) -> Scene:
    """Draw scene `index`. Raises ValueError for an unknown variant, split or revision."""
    if variant not in VARIANTS or split not in SPLITS:
        raise ValueError(f"unknown variant or split {variant}/{split}; there are {VARIANTS} and {SPLITS}")
    if revision != REVISIONS[variant]:
        raise ValueError(
            f"variant {variant} is at revision {REVISIONS[variant]}, {revision} cannot be rendered any more"
        )
    rng = scene_rng(variant, revision, split, seed, index)
    camera, axes = _camera(rng)
    elevation, azimuth = rng.uniform(math.radians(42), math.radians(70)), rng.uniform(0, 2 * math.pi)
    light = np.array(
        [math.cos(elevation) * math.cos(azimuth), math.cos(elevation) * math.sin(azimuth), math.sin(elevation)]
    )
    ground_material = _material(rng, variant)
    ground = _surface(rng, ground_material, scale=0.6)
    scene = Scene(camera, axes, light, ground)
    for _ in range(int(rng.integers(MIN_OBJECTS, MAX_OBJECTS + 1))):
        shared = ground_material if variant == "camo" else None
        placed = _place(rng, scene, variant, shared)
        if placed is not None:
            scene.objects.append(placed)
    return scene


def _camera(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
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


def _material(rng: np.random.Generator, variant: str) -> int:
    return int(rng.integers(N_FULL, N_FULL + N_UNSEEN)) if variant == "outd" else int(rng.integers(0, N_FULL))


def _surface(rng: np.random.Generator, material: int, scale: float) -> Surface:
    card: Material = material_table()[material]
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
    """Up to 40 tries to put one object where its footprint overlaps no other, else None."""
    names = UNSEEN_SHAPES if variant == "outd" else FULL_SHAPES
    shape = SHAPE_NAMES.index(names[int(rng.integers(len(names)))])
    size = tuple(SIZES)[int(rng.integers(len(SIZES)))]
    half = SIZES[size] * rng.uniform(0.85, 1.15, 3)
    yaw = rng.uniform(0, 2 * math.pi)
    material = _material(rng, variant) if shared is None else shared
    surface = _surface(rng, material, scale=1 / math.sqrt(SIZES[size]))
    for _ in range(40):
        x, y = _ground_point(scene, rng.uniform(-0.86, 0.86, 2) * 0.8)
        radius = math.hypot(half[0], half[1]) * 0.85
        apart = [
            np.hypot(x - o.centre[0], y - o.centre[1]) > radius + 0.85 * math.hypot(*o.half[:2]) for o in scene.objects
        ]
        if all(apart):
            return SceneObject(shape, size, np.array([x, y, half[2]]), half, yaw, surface)
    return None


def _ground_point(scene: Scene, position: np.ndarray) -> tuple[float, float]:
    """The point of the ground seen at `position` of the picture, from (-1, -1) to (1, 1)."""
    direction = scene.axes[2] + HALF_VIEW * (position[0] * scene.axes[0] + position[1] * scene.axes[1])
    point = scene.camera - direction * (scene.camera[2] / direction[2])
    return float(point[0]), float(point[1])


def describe(scene: Scene, kept: list[int]) -> list[dict[str, Any]]:
    """Metadata of the visible objects in label order (label 1 first): shape, size, material, place."""
    table = material_table()
    return [
        {
            "index": label,
            "shape": SHAPE_NAMES[o.shape],
            "size": o.size,
            "material": table[o.surface.material].name,
            "material_id": o.surface.material,
            "3d_coords": [round(float(v), 4) for v in o.centre],
            "rotation": round(math.degrees(o.yaw), 2),
        }
        for label, o in enumerate((scene.objects[k] for k in kept), start=1)
    ]
