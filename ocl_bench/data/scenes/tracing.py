"""Where rays of the camera meet objects, and which points objects keep from the light, in float64.

Rays are flat lists: x, y and z of N vectors are a tensor (3, N).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .pairs import Pairs
from .shapes import MISS, SHAPE_NAMES, SHAPES
from .world import World, into_unit_space, take, true_numbers


@dataclass(frozen=True)
class Hits:
    """What N of the rays meet first, sorted by scene.

    Attributes:
        ray: (N,) number of the ray.
        solid: (N,) number of the object.
        distance: (N,) in units of the length of the direction, which need not be 1.
        normal: (3, N) unit vectors in the world, outwards.
    """

    ray: Tensor
    solid: Tensor
    distance: Tensor
    normal: Tensor

    def where(self, chosen: Tensor) -> Hits:
        """The hits for which `chosen` (N,) is true."""
        return self.at(true_numbers(chosen))

    def at(self, numbers: Tensor) -> Hits:
        """The hits with these numbers."""
        return Hits(self.ray[numbers], self.solid[numbers], self.distance[numbers], take(self.normal, numbers))


def joined(world: World, parts: list[Hits]) -> Hits:
    """All hits of some lists. parts: at least one list."""
    hits = Hits(
        torch.cat([hits.ray for hits in parts]),
        torch.cat([hits.solid for hits in parts]),
        torch.cat([hits.distance for hits in parts]),
        torch.cat([hits.normal for hits in parts], dim=1),
    )
    scene = (hits.solid // world.width).numpy().astype(np.uint16)
    return hits.at(torch.from_numpy(scene.argsort(kind="stable")))


def first_hits(world: World, direction: Tensor, limit: Tensor, pairs: Pairs) -> Hits:
    """The first object that each ray meets before `limit`.

    Args:
        world: the objects.
        direction: (3, R) of rays from the cameras of their scenes.
        limit: (R,) distance, that of the ground.
        pairs: rays with the objects that are tried.
    """
    nearest = limit.clone()
    tried = []
    for name, pair in _by_shape(world, pairs):
        solids = take(world.solids, pair.solid)
        along = into_unit_space(solids, take(direction, pair.ray))
        distance, normals = SHAPES[name](take(world.eyes, pair.solid), along)
        nearest.scatter_reduce_(0, pair.ray, distance, "amin")
        tried.append((pair, solids, distance, normals))
    found = [Hits(pairs.ray[:0], pairs.ray[:0], limit[:0], direction[:, :0])]
    for pair, solids, distance, normals in tried:
        first = true_numbers((distance == nearest[pair.ray]) & (distance < limit[pair.ray]))
        pair = pair.at(first)
        found.append(Hits(pair.ray, pair.solid, distance[first], _to_world(take(solids, first), normals(first))))
    return joined(world, found)


def in_shadow(world: World, start: Tensor, pairs: Pairs) -> Tensor:
    """Which points an object keeps from the light, (N,) bool.

    Args:
        world: the objects.
        start: (3, N) points.
        pairs: points, by number, with the objects that are tried.
    """
    dark = torch.zeros(start.shape[1], dtype=torch.bool)
    for name, pair in _by_shape(world, pairs):
        solids = take(world.solids, pair.solid)
        origin = into_unit_space(solids, take(start, pair.ray) - solids[:3])
        distance, _ = SHAPES[name](origin, take(world.suns, pair.solid))
        dark[pair.ray[distance < MISS]] = True
    return dark


def _by_shape(world: World, pairs: Pairs) -> Iterator[tuple[str, Pairs]]:
    """The pairs of each shape, and its name."""
    shapes = world.shape.flatten()[pairs.solid]
    for kind in world.shape.unique().tolist():
        chosen = true_numbers(shapes == kind)
        if len(chosen):
            yield SHAPE_NAMES[kind], pairs.at(chosen)


def _to_world(solids: Tensor, local: Tensor) -> Tensor:
    """Normals (3, N) in unit space as unit vectors in the world."""
    _, _, _, width, depth, height, cosine, sine = solids
    # Normals divide by the half-sizes where points multiply: they transform by the inverse transpose.
    x, y, z = local[0] / width, local[1] / depth, local[2] / height
    normal = torch.stack([cosine * x + sine * y, cosine * y - sine * x, z])
    return normal / length(normal)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product (N,) of vectors (3, N)."""
    x, y, z = a * b
    return x + y + z


def length(vectors: Tensor) -> Tensor:
    """Length (N,) of vectors (3, N)."""
    return dot(vectors, vectors).sqrt()
