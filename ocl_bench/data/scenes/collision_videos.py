"""Rendered collisions in the cache: 56 frames of 64 x 64 pixels, masks, and the world that was simulated.

<cache>/scenes/collisions-r1/<split>[-seed<N>]/00000.npz     one video each
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..clevrer.facts import COLOURS, MATERIALS, SHAPES, Thing
from .collisions import HALF, Body, CollisionWorld, fixed_camera, sample_world, simulate
from .materials import TEXTURE_NAMES
from .sampler import Scene, SceneObject, Surface
from .shapes import SHAPE_NAMES
from .store import Store, read_arrays, serve, write_arrays

if TYPE_CHECKING:
    from torch import Tensor

SIZE = 64

_RGB = {
    "gray": (0.44, 0.44, 0.44), "red": (0.75, 0.16, 0.16), "blue": (0.16, 0.30, 0.88), "green": (0.13, 0.48, 0.10),
    "brown": (0.50, 0.30, 0.12), "cyan": (0.18, 0.80, 0.80), "purple": (0.52, 0.16, 0.76), "yellow": (0.98, 0.90, 0.20),
}  # fmt: skip
_GROUND, _GLOSS = (0.62, 0.61, 0.59), {"metal": 0.9, "rubber": 0.0}
_FRAMES_AT_ONCE = 28


@dataclass(frozen=True)
class RenderedCollisions:
    """One video of T frames.

    frames: (T, H, W, 3) uint8. objects: (T, H, W) uint8, 0 for the ground, k + 1 for body k. world: how it begins.
    """

    frames: np.ndarray
    objects: np.ndarray
    world: CollisionWorld


@dataclass(frozen=True)
class CollisionStore(Store[RenderedCollisions]):
    """Videos, each in a file of its own."""

    chunk = 1

    variant: str = "collisions"

    @staticmethod
    def read(path: Path) -> list[RenderedCollisions]:
        """The video of a file, alone in a list."""
        with read_arrays(path) as content:
            kinds, yaw = content["kinds"], content["yaw"]
            bodies = tuple(
                Body(Thing(COLOURS[c], MATERIALS[m], SHAPES[s]), float(y))
                for (c, m, s), y in zip(kinds, yaw, strict=True)
            )
            world = CollisionWorld(bodies, content["position"], content["velocity"])
            return [RenderedCollisions(content["frames"], content["objects"], world)]

    def world(self, index: int) -> CollisionWorld:
        """The world of a video."""
        return sample_world(self.revision, self.split, index, self.seed)

    def write(self, path: Path, indices: range) -> None:
        """Render the only video of `indices` and write it."""
        video = render_collisions(self.world(indices[0]))
        things = [body.thing for body in video.world.bodies]
        kinds = [(COLOURS.index(t.color), MATERIALS.index(t.material), SHAPES.index(t.shape)) for t in things]
        write_arrays(
            path,
            frames=video.frames,
            objects=video.objects,
            kinds=np.array(kinds, dtype=np.uint8),
            yaw=np.array([body.yaw for body in video.world.bodies]),
            position=video.world.position,
            velocity=video.world.velocity,
        )


def render_collisions(world: CollisionWorld, size: int = SIZE) -> RenderedCollisions:
    """Render what happens in a world."""
    import torch

    from .caster import build_world, cast_over

    scenes = scenes_of(world)
    images, hits = [], []
    with torch.no_grad():
        for start in range(0, len(scenes), _FRAMES_AT_ONCE):
            built = build_world(list(scenes[start : start + _FRAMES_AT_ONCE]))
            image, hit = cast_over(built, size, _empty(size))
            images.append((image * 255 + 0.5).to(torch.uint8).numpy())
            hits.append((hit + 1).to(torch.uint8).numpy())
    return RenderedCollisions(np.concatenate(images), np.concatenate(hits), world)


@cache
def _empty(size: int) -> Tensor:
    """The ground without objects, (size, size, 3) float32. It is the same in all videos, so it is cast once."""
    from .caster import build_world, cast

    return cast(build_world([_scene([])]), size, 0.0)[0][0]


def scenes_of(world: CollisionWorld) -> Sequence[Scene]:
    """The scene of each frame."""
    run = simulate(world)
    return [
        _scene([_solid(body, place) for body, place in zip(world.bodies, frame, strict=True)]) for frame in run.position
    ]


def _scene(objects: list[SceneObject]) -> Scene:
    camera, axes = fixed_camera()
    light = np.array([-0.45, -0.35, 0.82])
    return Scene(camera, axes, light / np.linalg.norm(light), [_plain(_GROUND, 0.0)], objects)


def _solid(body: Body, place: np.ndarray) -> SceneObject:
    thing, half = body.thing, HALF[body.thing.shape]
    surface = _plain(_RGB[thing.color], _GLOSS[thing.material])
    centre = np.array([place[0], place[1], half])
    return SceneObject(SHAPE_NAMES.index(thing.shape), "medium", centre, np.full(3, half), body.yaw, surface)


def _plain(colour: tuple[float, float, float], gloss: float) -> Surface:
    """A surface of one colour with hardly any texture."""
    first = np.array(colour)
    kind = TEXTURE_NAMES.index("plain")
    return Surface(-1, kind, first, first * 0.85, 1.0, gloss, np.eye(3), np.zeros(3))


def main() -> None:
    """Run as a worker process, see `serve`."""
    serve(CollisionStore)
