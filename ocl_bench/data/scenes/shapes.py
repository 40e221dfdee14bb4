"""Intersect rays with the shapes: convex solids in their own unit space, in float64.

Every shape fills the cube [-1, 1]^3 and is the intersection of half-spaces and quadrics, so a ray is inside it on one
interval [enter, leave]; the interval of an intersection is the intersection of the intervals. Directions are not
normalised after the change of space, so a distance t means the same along the ray in world and in unit space.

Origins and directions are x, y and z of N rays, each of its own (N,) tensor: three tensors, or one (3, N). Normals are
computed for those rays only that need them. Sums are written out: their order is part of the scenes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

Vectors = Iterable[Tensor]
"""x, y and z of N vectors."""

Normals = Callable[[Tensor], Tensor]
"""Numbers of rays (M,) -> outward normals (3, M) in unit space where these rays enter, not normalised."""

Hit = tuple[Tensor, Normals]
"""Distance t (N,), infinite where the ray misses, and the normals."""

Interval = tuple[Tensor, Tensor, Normals]
"""Where rays enter a solid (N,), where they leave it (N,), and the normals where they enter."""

MISS = math.inf


def _planes(*rows: tuple[float, float, float, float]) -> Tensor:
    """Half-spaces n . p <= d as rows (nx, ny, nz, d)."""
    return torch.tensor(rows, dtype=torch.float64)


def _polygon(corners: int) -> list[tuple[float, float, float, float]]:
    """Side planes of an upright prism over a regular polygon whose corners lie on the unit circle."""
    inner = math.cos(math.pi / corners)
    angles = [2 * math.pi * (k + 0.5) / corners for k in range(corners)]
    return [(math.cos(a), math.sin(a), 0.0, inner) for a in angles]


_FLOOR = (0.0, 0.0, -1.0, 1.0)
_PYRAMID = _planes((2, 0, 1, 1), (-2, 0, 1, 1), (0, 2, 1, 1), (0, -2, 1, 1), _FLOOR)
_PRISM = _planes(*_polygon(3), (0.0, 0.0, 1.0, 1.0), _FLOOR)
_AXES = torch.eye(3, dtype=torch.float64)
_DIAGONALS = torch.tensor([(1, 1, 1), (1, 1, -1), (1, -1, 1), (1, -1, -1)], dtype=torch.float64).T


def _cut(planes: Tensor, origin: Vectors, direction: Vectors) -> Interval:
    """Interval of rays inside all half-spaces."""
    normals, offsets = planes[:, :3], planes[:, 3]
    speed = torch.stack(tuple(direction), dim=1) @ normals.T
    # A ray parallel to a plane gets a huge distance instead of a division by zero.
    distance = (offsets - torch.stack(tuple(origin), dim=1) @ normals.T) / torch.where(
        speed.abs() < 1e-12, 1e-12, speed
    )
    enter, which = torch.where(speed < 0, distance, -MISS).max(dim=1)
    leave = torch.where(speed > 0, distance, MISS).amin(dim=1)
    return enter, leave, lambda rays: normals[which[rays]].T


def _slab(at: Tensor, along: Tensor) -> tuple[Tensor, Tensor]:
    """Interval of rays between the planes -1 and 1 of an axis, from their origin and direction along it."""
    near, far = (-1 - at) / along, (1 - at) / along
    return torch.minimum(near, far), torch.maximum(near, far)


def _slabs(axes: Tensor, at: Sequence[Tensor], along: Sequence[Tensor]) -> Interval:
    """Interval of rays inside the slabs -1 <= a . p <= 1 of some axes (3, A)."""
    enters, leaves = zip(*(_slab(a, d) for a, d in zip(at, along, strict=True)), strict=True)
    enter, leave = enters[0], leaves[0]
    for other, end in zip(enters[1:], leaves[1:], strict=True):
        enter, leave = torch.maximum(enter, other), torch.minimum(leave, end)

    def normals(rays: Tensor) -> Tensor:
        entered, result = enter[rays], torch.zeros(3, len(rays), dtype=torch.float64)
        for axis, other, speed in zip(axes.T, enters, along, strict=True):
            result = torch.where(other[rays] == entered, axis[:, None] * -speed[rays].sign(), result)
        return result

    return enter, leave, normals


def _round(scale: tuple[float, float, float], origin: Vectors, direction: Vectors) -> Interval:
    """Interval of rays inside the quadric sum(scale * p^2) <= 1 (a sphere, or a cylinder along z)."""
    places, steps = tuple(origin), tuple(direction)

    def inner(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
        x, y, z = (p * q for p, q in zip(first, second, strict=True))
        return x + y + z * scale[2] if scale[2] else x + y

    # The quadratic a t^2 + 2 b t + c = 0. For a vertical ray in a cylinder a is 0; clamped, the roots become huge.
    a = inner(steps, steps).clamp_min_(1e-12)
    b = inner(places, steps)
    root = b * b - a * (inner(places, places) - 1)
    meets, half = root > 0, root.clamp_min(0).sqrt_()
    enter = torch.where(meets, (-b - half) / a, MISS)
    leave = torch.where(meets, (-b + half) / a, -MISS)

    def normals(rays: Tensor) -> Tensor:
        t = torch.where(meets, enter, 0.0)[rays]
        return torch.stack([s * (p[rays] + t * d[rays]) for s, p, d in zip(scale, places, steps, strict=True)])

    return enter, leave, normals


def _first(enter: Tensor, leave: Tensor, normals: Normals) -> Hit:
    """The hit at the begin of an interval; a miss when it is empty or begins behind the origin."""
    return torch.where((enter < leave) & (enter > 0), enter, MISS), normals


def _both(first: Interval, second: Interval) -> Hit:
    """The hit of the intersection of two solids, from the interval of each."""
    later = first[0] > second[0]
    enter, leave = torch.where(later, first[0], second[0]), torch.minimum(first[1], second[1])
    return _first(enter, leave, lambda rays: torch.where(later[rays], first[2](rays), second[2](rays)))


def _polyhedron(planes: Tensor) -> Callable[[Vectors, Vectors], Hit]:
    return lambda origin, direction: _first(*_cut(planes, origin, direction))


def _cube(origin: Vectors, direction: Vectors) -> Hit:
    return _first(*_slabs(_AXES, tuple(origin), tuple(direction)))


def _octahedron(origin: Vectors, direction: Vectors) -> Hit:
    return _first(*_slabs(_DIAGONALS, _along_diagonals(origin), _along_diagonals(direction)))


def _along_diagonals(vectors: Vectors) -> tuple[Tensor, ...]:
    """Each vector along the four axes of an octahedron."""
    x, y, z = vectors
    plus, minus = x + y, x - y
    return plus + z, plus - z, minus + z, minus - z


def _sphere(origin: Vectors, direction: Vectors) -> Hit:
    return _first(*_round((1.0, 1.0, 1.0), origin, direction))


def _cylinder(origin: Vectors, direction: Vectors) -> Hit:
    (*_, z), (*_, w) = places, steps = tuple(origin), tuple(direction)
    return _both(_round((1.0, 1.0, 0.0), places, steps), _slabs(_AXES[:, 2:], [z], [w]))


def _dome(origin: Vectors, direction: Vectors) -> Hit:
    """The upper half of an ellipsoid whose flat side lies on the floor of the unit cube."""
    (x, y, z), steps = origin, tuple(direction)
    above = _cut(_planes(_FLOOR), (x, y, z), steps)
    return _both(_round((1.0, 1.0, 0.25), (x, y, z + 1), steps), above)


def _cone(origin: Vectors, direction: Vectors) -> Hit:
    """A cone of radius r = (1 - z) / 2 on a base disc."""
    # Its quadric alone is not convex: it has a second nappe above the tip, which the test of the height removes.
    (x, y, z), (u, v, w) = origin, direction
    a = u * u + v * v - w * w / 4
    a = torch.where(a.abs() < 1e-12, 1e-12, a)
    b = x * u + y * v + (1 - z) * w / 4
    c = x * x + y * y - (1 - z) ** 2 / 4
    root = b * b - a * c
    half = root.clamp_min(0).sqrt()
    base = (-1 - z) / torch.where(w.abs() < 1e-12, 1e-12, w)
    times = torch.stack([(-b - half) / a, (-b + half) / a, base])
    height = z + times * w
    inside = torch.stack([(root > 0) & (height[k] > -1) & (height[k] < 1) for k in (0, 1)])
    disc = (x + base * u) ** 2 + (y + base * v) ** 2 < 1
    times = torch.where(torch.cat([inside, disc[None]]) & (times > 0), times, MISS)
    t, which = times.min(dim=0)

    def normals(rays: Tensor) -> Tensor:
        way = torch.where(t < MISS, t, 0.0)[rays]
        px, py, pz = (p[rays] + way * d[rays] for p, d in ((x, u), (y, v), (z, w)))
        down = torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64)[:, None]
        return torch.where(which[rays] == 2, down, torch.stack([px, py, (1 - pz) / 4]))

    return t, normals


SHAPES: dict[str, Callable[[Vectors, Vectors], Hit]] = {
    "cube": _cube,
    "sphere": _sphere,
    "cylinder": _cylinder,
    "octahedron": _octahedron,
    "cone": _cone,
    "pyramid": _polyhedron(_PYRAMID),
    "prism": _polyhedron(_PRISM),
    "dome": _dome,
}
"""Name -> intersection of each shape, (origin, direction) -> Hit. The position here is the shape's id."""

SHAPE_NAMES = tuple(SHAPES)
FULL_SHAPES = SHAPE_NAMES[:4]
UNSEEN_SHAPES = SHAPE_NAMES[4:]
"""Only the `outd` variant uses these; no training split contains them."""
