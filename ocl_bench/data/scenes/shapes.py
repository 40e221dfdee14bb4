"""Intersect rays with the shapes: convex solids in their own unit space, in float64.

Every shape fills the cube [-1, 1]^3 and is the intersection of half-spaces and quadrics, so a ray is inside it on one
interval [enter, leave]; the interval of an intersection is the intersection of the intervals. Directions are not
normalised after the change of space, so a distance t means the same along the ray in world and in unit space.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Hit = tuple[Tensor, Tensor]
"""Distance t (N,), infinite where the ray misses, and outward normal in unit space (N, 3), not normalised."""

MISS = math.inf


def _planes(*rows: tuple[float, float, float, float]) -> Tensor:
    """Half-spaces n . p <= d as rows (nx, ny, nz, d)."""
    return torch.tensor(rows, dtype=torch.float64)


def _polygon(corners: int) -> list[tuple[float, float, float, float]]:
    """Side planes of an upright prism over a regular polygon whose corners lie on the unit circle."""
    inner = math.cos(math.pi / corners)
    angles = [2 * math.pi * (k + 0.5) / corners for k in range(corners)]
    return [(math.cos(a), math.sin(a), 0.0, inner) for a in angles]


_CAPS = [(0.0, 0.0, 1.0, 1.0), (0.0, 0.0, -1.0, 1.0)]
_FLOOR = (0.0, 0.0, -1.0, 1.0)
_CUBE = _planes((1, 0, 0, 1), (-1, 0, 0, 1), (0, 1, 0, 1), (0, -1, 0, 1), *_CAPS)
_OCTAHEDRON = _planes(*[(x, y, z, 1.0) for x in (1.0, -1.0) for y in (1.0, -1.0) for z in (1.0, -1.0)])
_PYRAMID = _planes((2, 0, 1, 1), (-2, 0, 1, 1), (0, 2, 1, 1), (0, -2, 1, 1), _FLOOR)
_PRISM = _planes(*_polygon(3), *_CAPS)
_Z_SLAB = _planes(*_CAPS)
_UPPER_HALF = _planes(_FLOOR)


def _cut(origin: Tensor, direction: Tensor, planes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Interval of a ray inside all half-spaces: enter (N,), normal at entry (N, 3), leave (N,)."""
    normals, offsets = planes[:, :3], planes[:, 3]
    speed = direction @ normals.T
    # A ray parallel to a plane gets a huge distance instead of a division by zero.
    distance = (offsets - origin @ normals.T) / torch.where(speed.abs() < 1e-12, 1e-12, speed)
    enter, which = torch.where(speed < 0, distance, -MISS).max(dim=1)
    leave = torch.where(speed > 0, distance, MISS).amin(dim=1)
    return enter, normals[which], leave


def _round(origin: Tensor, direction: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Interval of a ray inside the quadric sum(scale * p^2) <= 1 (a sphere, or a cylinder along z)."""
    # The quadratic a t^2 + 2 b t + c = 0. For a vertical ray in a cylinder a is 0; clamped, the roots become huge.
    a = (direction * direction @ scale).clamp_min(1e-12)
    b = origin * direction @ scale
    c = origin * origin @ scale - 1
    root = b * b - a * c
    half = root.clamp_min(0).sqrt()
    enter = torch.where(root > 0, (-b - half) / a, MISS)
    leave = torch.where(root > 0, (-b + half) / a, -MISS)
    normal = scale * (origin + torch.where(root > 0, enter, 0.0)[:, None] * direction)
    return enter, normal, leave


def _first(enter: Tensor, normal: Tensor, leave: Tensor) -> Hit:
    """The hit at the begin of an interval; a miss when it is empty or begins behind the origin."""
    return torch.where((enter < leave) & (enter > 0), enter, MISS), normal


def _both(first: tuple[Tensor, Tensor, Tensor], second: tuple[Tensor, Tensor, Tensor]) -> Hit:
    """The hit of the intersection of two solids, from the interval of each."""
    later = first[0] > second[0]
    enter = torch.where(later, first[0], second[0])
    normal = torch.where(later[:, None], first[1], second[1])
    return _first(enter, normal, torch.minimum(first[2], second[2]))


def _polyhedron(planes: Tensor) -> Callable[[Tensor, Tensor], Hit]:
    return lambda origin, direction: _first(*_cut(origin, direction, planes))


_BALL = torch.ones(3, dtype=torch.float64)
_TUBE = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)


def _sphere(origin: Tensor, direction: Tensor) -> Hit:
    return _first(*_round(origin, direction, _BALL))


def _cylinder(origin: Tensor, direction: Tensor) -> Hit:
    return _both(_round(origin, direction, _TUBE), _cut(origin, direction, _Z_SLAB))


def _dome(origin: Tensor, direction: Tensor) -> Hit:
    """The upper half of an ellipsoid whose flat side lies on the floor of the unit cube."""
    low = torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64)
    scale = torch.tensor([1.0, 1.0, 0.25], dtype=torch.float64)
    return _both(_round(origin - low, direction, scale), _cut(origin, direction, _UPPER_HALF))


def _cone(origin: Tensor, direction: Tensor) -> Hit:
    """A cone of radius r = (1 - z) / 2 on a base disc."""
    # Its quadric alone is not convex: it has a second nappe above the tip, which the test of the height removes.
    (x, y, z), (u, v, w) = origin.unbind(1), direction.unbind(1)
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
    point = origin + torch.where(t < MISS, t, 0.0)[:, None] * direction
    side = torch.stack([point[:, 0], point[:, 1], (1 - point[:, 2]) / 4], dim=1)
    down = torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64).expand_as(side)
    return t, torch.where((which == 2)[:, None], down, side)


SHAPES: dict[str, Callable[[Tensor, Tensor], Hit]] = {
    "cube": _polyhedron(_CUBE),
    "sphere": _sphere,
    "cylinder": _cylinder,
    "octahedron": _polyhedron(_OCTAHEDRON),
    "cone": _cone,
    "pyramid": _polyhedron(_PYRAMID),
    "prism": _polyhedron(_PRISM),
    "dome": _dome,
}
"""Name -> intersection of each shape, (origin (N, 3), direction (N, 3)) -> Hit. The position here is the shape's id."""

SHAPE_NAMES = tuple(SHAPES)
FULL_SHAPES = SHAPE_NAMES[:4]
UNSEEN_SHAPES = SHAPE_NAMES[4:]
"""Only the `outd` variant uses these; no training split contains them."""
