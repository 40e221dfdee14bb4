"""A vectorised ray caster: primary hit, hard shadow, solid texture, Blinn-Phong light.

Geometry is float64, which makes masks equal on every processor; colours are float32. The rays of a whole batch of
scenes are one flat list. An object is tested only against the rays that meet its bounding sphere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .materials import paint
from .sampler import HALF_VIEW, Scene
from .shapes import SHAPE_NAMES, SHAPES

GROUND = -1
"""What a ray hits that meets no object."""

_SUBSAMPLES = ((-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25))


@dataclass
class World:
    """S scenes of at most K objects as tensors, padded; the ground has at most R regions.

    Attributes:
        camera: (S, 3) position.
        axes: (S, 3, 3) right, up and forward of the camera.
        light: (S, 3) unit vector towards the light.
        alive: (S, K) bool, which objects exist.
        shape: (S, K) index in `SHAPE_NAMES`.
        centre: (S, K, 3).
        half: (S, K, 3) half-sizes.
        yaw: (S, K) rotation around the vertical in radians.
        surface: fields of `Surface`, each (S, K + R, ...): those of the objects, then those of the regions.
        borders: (S, R - 1, 5) fields of `Border`; a border that does not exist has an infinite offset.
    """

    camera: Tensor
    axes: Tensor
    light: Tensor
    alive: Tensor
    shape: Tensor
    centre: Tensor
    half: Tensor
    yaw: Tensor
    surface: dict[str, Tensor]
    borders: Tensor


@dataclass(frozen=True)
class Rays:
    """A flat list of R rays, sorted by scene: index of their scene (R,), origin and direction (R, 3)."""

    scene: Tensor
    origin: Tensor
    direction: Tensor

    def take(self, index: Tensor) -> Rays:
        """The rays at `index`."""
        return Rays(self.scene[index], self.origin[index], self.direction[index])


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Row-wise inner product of two (N, 3) tensors."""
    # einsum is four times faster here than a product and a sum.
    return torch.einsum("ij,ij->i", a, b)


def build_world(scenes: list[Scene]) -> World:
    """Pack scenes into padded tensors."""
    width = max(1, max(len(s.objects) for s in scenes))
    regions = max(len(s.grounds) for s in scenes)
    alive = torch.tensor([[k < len(s.objects) for k in range(width)] for s in scenes])

    def column(value: str, empty: np.ndarray | float) -> Tensor:
        rows = [[getattr(o, value) for o in s.objects] + [empty] * (width - len(s.objects)) for s in scenes]
        return torch.from_numpy(np.array(rows))

    def surface(value: str) -> Tensor:
        rows = []
        for s in scenes:
            spare = [s.grounds[0]] * (width - len(s.objects))
            surfaces = [o.surface for o in s.objects] + spare + s.grounds + [s.grounds[0]] * (regions - len(s.grounds))
            rows.append([getattr(entry, value) for entry in surfaces])
        return torch.from_numpy(np.array(rows))

    return World(
        camera=torch.from_numpy(np.stack([s.camera for s in scenes])),
        axes=torch.from_numpy(np.stack([s.axes for s in scenes])),
        light=torch.from_numpy(np.stack([s.light for s in scenes])),
        alive=alive,
        shape=column("shape", 0),
        centre=column("centre", np.zeros(3)),
        half=column("half", np.ones(3)),
        yaw=column("yaw", 0.0),
        surface={n: surface(n) for n in ("kind", "first", "second", "frequency", "gloss", "turn", "shift")},
        borders=_borders(scenes, regions),
    )


def _borders(scenes: list[Scene], regions: int) -> Tensor:
    nowhere = (0.0, np.inf, 0.0, 0.0, 0.0)
    rows = [[astuple(b) for b in s.borders] + [nowhere] * (regions - 1 - len(s.borders)) for s in scenes]
    return torch.tensor(rows, dtype=torch.float64).reshape(len(scenes), regions - 1, 5)


def ground_region(world: World, scene: Tensor, point: Tensor) -> Tensor:
    """Region of the ground (R,) at points (R, 3) of scenes (R,): that of the last border a point is beyond."""
    region = torch.zeros_like(scene)
    for number, border in enumerate(world.borders.unbind(1), start=1):
        angle, offset, amplitude, frequency, phase = border[scene].unbind(1)
        x, y = point[:, 0], point[:, 1]
        along = angle.cos() * y - angle.sin() * x
        across = angle.cos() * x + angle.sin() * y + amplitude * torch.sin(frequency * along + phase)
        region[across > offset] = number
    return region


def camera_rays(world: World, scene: Tensor, column: Tensor, row: Tensor, size: int) -> Rays:
    """Rays through positions of the picture, in pixels from the top left corner; scene, column and row are (R,)."""
    right, up, forward = world.axes[scene].unbind(1)
    x = (column / size * 2 - 1) * HALF_VIEW
    y = (1 - row / size * 2) * HALF_VIEW
    return Rays(scene, world.camera[scene], forward + x[:, None] * right + y[:, None] * up)


def trace(world: World, rays: Rays) -> tuple[Tensor, Tensor, Tensor]:
    """First hit of each ray: object index or GROUND (R,), distance (R,), outward world normal (R, 3).

    Distances are in units of the length of the direction, which need not be 1.
    """
    # The ground is hit first of all; objects replace it where they are closer.
    distance = -rays.origin[:, 2] / rays.direction[:, 2]
    distance = torch.where(distance > 0, distance, torch.inf)
    hit = torch.full_like(rays.scene, GROUND)
    normal = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).repeat(len(hit), 1)
    for k, column in enumerate(_near(world, rays).unbind(1)):
        near = column.nonzero()[:, 0]
        for index, name in _by_shape(world, rays, near, k):
            t, local = SHAPES[name](*_to_unit_space(world, rays.take(index), k))
            closer = t < distance[index]
            index = index[closer]
            distance[index], hit[index] = t[closer], k
            normal[index] = _to_world_normal(world, rays.scene[index], k, local[closer])
    return hit, distance, normal


def in_shadow(world: World, rays: Rays) -> Tensor:
    """Whether an object lies between the origin of each ray and the light, (R,) bool."""
    dark = torch.zeros(len(rays.scene), dtype=torch.bool)
    for k, column in enumerate(_near(world, rays).unbind(1)):
        near = (column & ~dark).nonzero()[:, 0]
        for index, name in _by_shape(world, rays, near, k):
            dark[index] = SHAPES[name](*_to_unit_space(world, rays.take(index), k))[0] < torch.inf
    return dark


def _by_shape(world: World, rays: Rays, near: Tensor, k: int) -> Iterator[tuple[Tensor, str]]:
    """Split the rays with the indices `near` by the shape of object k of their scenes: indices and name."""
    shapes = world.shape[rays.scene[near], k]
    for kind in shapes.unique().tolist():
        yield near[shapes == kind], SHAPE_NAMES[kind]


def _near(world: World, rays: Rays) -> Tensor:
    """(R, K) bool: whether a ray meets the bounding sphere of an object of its scene, in front of its origin."""
    # This only preselects, so float32 and a radius that is 1 % too large are enough; the hit is computed in float64.
    origin, direction = rays.origin.float(), F.normalize(rays.direction.float(), dim=1)
    centre = world.centre.float()
    # A negative squared radius: no ray meets an object that does not exist.
    radius2 = torch.where(world.alive, (world.half.float() ** 2).sum(-1) * 1.02 + 1e-3, -1.0)
    offset = dot(origin, direction)[:, None]
    length2 = dot(origin, origin)[:, None]
    parts = []
    start = 0
    for scene, count in enumerate(torch.bincount(rays.scene, minlength=len(centre)).tolist()):
        rows, c, r = slice(start, start + count), centre[scene], radius2[scene]
        along = direction[rows] @ c.T - offset[rows]
        distance2 = (c * c).sum(1) - 2 * origin[rows] @ c.T + length2[rows]
        parts.append((distance2 - along * along < r) & ((along > 0) | (distance2 < r)))
        start += count
    return torch.cat(parts)


def _turn(vector: Tensor, yaw: Tensor) -> Tensor:
    """Vectors (R, 3) rotated around the vertical by yaw (R,)."""
    c, s = yaw.cos(), yaw.sin()
    x, y, z = vector.unbind(1)
    return torch.stack([c * x - s * y, s * x + c * y, z], dim=1)


def _to_unit_space(world: World, rays: Rays, k: int) -> tuple[Tensor, Tensor]:
    """Origins and directions in the space in which object k of each ray's scene fills the cube [-1, 1]^3."""
    yaw, half = -world.yaw[rays.scene, k], world.half[rays.scene, k]
    origin = _turn(rays.origin - world.centre[rays.scene, k], yaw) / half
    return origin, _turn(rays.direction, yaw) / half


def _to_world_normal(world: World, scene: Tensor, k: int, local: Tensor) -> Tensor:
    # Normals divide by the half-sizes where points multiply: they transform by the inverse transpose.
    normal = _turn(local / world.half[scene, k], world.yaw[scene, k])
    return normal / normal.norm(dim=1, keepdim=True)


def shade(world: World, rays: Rays, hit: Tensor, distance: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
    """Colour (R, 3) float32 in [0, 1] and shadow flag (R,) of traced rays."""
    point = rays.origin + distance[:, None] * rays.direction
    light = world.light[rays.scene]
    facing = dot(normal, light)
    dark = facing <= 0
    lit = (~dark).nonzero()[:, 0]
    # Starts a little above the surface: a point on it would be in the shadow of its own object.
    start = point[lit] + normal[lit] * 2e-3
    dark[lit] = in_shadow(world, Rays(rays.scene[lit], start, light[lit]))
    color = _surface_color(world, rays.scene, hit, point)
    ambient = (0.38 + 0.08 * normal[:, 2]).float()
    diffuse = (0.68 * facing.clamp_min(0) * ~dark).float()
    view = -rays.direction / rays.direction.norm(dim=1, keepdim=True)
    half_way = light + view
    half_way = half_way / half_way.norm(dim=1, keepdim=True)
    gloss = world.surface["gloss"][rays.scene, hit.clamp_min(0)] * (hit != GROUND) * ~dark
    shine = (gloss * dot(normal, half_way).clamp_min(0) ** 40).float()
    return (color * (ambient + diffuse)[:, None] + shine[:, None]).clamp(0, 1), dark


def _surface_color(world: World, scene: Tensor, hit: Tensor, point: Tensor) -> Tensor:
    """Colour (R, 3) float32 of surface points (R, 3).

    A texture is fixed to its object: points are centred and turned like the object, in world units, then turned and
    shifted as the texture asks.
    """
    on_object = hit != GROUND
    column = torch.where(on_object, hit, world.alive.shape[1] + ground_region(world, scene, point))
    at = {name: value[scene, column] for name, value in world.surface.items()}
    k = hit.clamp_min(0)
    local = _turn(point - world.centre[scene, k], -world.yaw[scene, k])
    local = torch.where(on_object[:, None], local, point)
    texture = torch.einsum("nij,nj->ni", at["turn"], local * at["frequency"][:, None]) + at["shift"]
    return paint(texture.float(), at["kind"], at["first"].float(), at["second"].float())


def cast(world: World, size: int, min_visible: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Render all scenes: image (S, size, size, 3) float32; object index, depth, region of the ground (S, size, size).

    Objects that show less than the share `min_visible` of the pixels are removed from the world before shading, so they
    throw no shadow. The object index comes from one ray through the centre of a pixel. Pixels at an edge of objects,
    shadows or regions get the mean colour of four more rays.
    """
    scenes = len(world.camera)
    scene, row, column = (
        v.reshape(-1)
        for v in torch.meshgrid(torch.arange(scenes), torch.arange(size), torch.arange(size), indexing="ij")
    )
    rays = camera_rays(world, scene, column + 0.5, row + 0.5, size)
    hit, distance, normal = trace(world, rays)
    _remove_hidden(world, rays, hit, distance, normal, min_visible * size * size)
    color, dark = shade(world, rays, hit, distance, normal)
    region = ground_region(world, scene, rays.origin + distance[:, None] * rays.direction) * (hit == GROUND)
    maps = (flags.view(scenes, size, size) for flags in (hit, dark, region))
    edge = torch.stack([_edges(flags) for flags in maps]).any(0).reshape(-1).nonzero()[:, 0]
    color[edge] = _supersample(world, scene[edge], column[edge], row[edge], size)
    shape = (scenes, size, size)
    depth = (distance * rays.direction.norm(dim=1)).view(shape).float()
    return color.view(*shape, 3), hit.view(shape), depth, region.view(shape)


def cast_over(world: World, size: int, empty: Tensor) -> tuple[Tensor, Tensor]:
    """Render scenes that differ from an empty one by their objects: the same pictures as `cast`, several times as fast.

    Only rays that meet the bounding sphere of an object, or that of its shadow, are cast.

    Args:
        world: S scenes with one camera, light and ground.
        size: side of the pictures.
        empty: (size, size, 3) float32, the scene without objects.

    Returns:
        Image (S, size, size, 3) float32 and object index (S, size, size).
    """
    scenes, shape = len(world.camera), (len(world.camera), size, size)
    scene, row, column = (
        v.reshape(-1)
        for v in torch.meshgrid(torch.arange(scenes), torch.arange(size), torch.arange(size), indexing="ij")
    )
    rays = camera_rays(world, scene, column + 0.5, row + 0.5, size)
    ground = rays.origin - rays.direction * (rays.origin[:, 2:] / rays.direction[:, 2:])
    touched = _near(world, rays).any(1) | _near(world, Rays(scene, ground, world.light[scene])).any(1)
    around = F.max_pool2d(touched.view(shape)[:, None].float(), 3, 1, 1)[:, 0] > 0  # edges lie between two pixels
    index = around.view(-1).nonzero()[:, 0]
    near = rays.take(index)
    found, distance, normal = trace(world, near)
    hit, dark = torch.full_like(scene, GROUND), torch.zeros_like(scene, dtype=torch.bool)
    image = empty.reshape(-1, 3).repeat(scenes, 1)
    hit[index] = found
    image[index], dark[index] = shade(world, near, found, distance, normal)
    edge = (_edges(hit.view(shape)) | _edges(dark.view(shape))).view(-1).nonzero()[:, 0]
    image[edge] = _supersample(world, scene[edge], column[edge], row[edge], size)
    return image.view(*shape, 3), hit.view(shape)


def _remove_hidden(world: World, rays: Rays, hit: Tensor, distance: Tensor, normal: Tensor, pixels: float) -> None:
    """Remove objects with fewer visible pixels than `pixels` from the world, and trace their rays again, in place."""
    # Repeated, because every object that is removed uncovers others, and none may be judged by a stale count.
    while True:
        count = torch.zeros(world.alive.shape, dtype=torch.int64)
        on_object = hit != GROUND
        count.index_put_((rays.scene[on_object], hit[on_object]), torch.ones(1, dtype=torch.int64), accumulate=True)
        hidden = world.alive & (count < pixels)
        if not hidden.any():
            return
        world.alive = world.alive & ~hidden
        again = (on_object & hidden[rays.scene, hit.clamp_min(0)]).nonzero()[:, 0]
        hit[again], distance[again], normal[again] = trace(world, rays.take(again))


def _edges(flags: Tensor) -> Tensor:
    """Pixels (S, H, W) that differ from one of their four neighbours."""
    edge = torch.zeros_like(flags, dtype=torch.bool)
    down, across = flags[:, 1:] != flags[:, :-1], flags[:, :, 1:] != flags[:, :, :-1]
    edge[:, 1:] |= down
    edge[:, :-1] |= down
    edge[:, :, 1:] |= across
    edge[:, :, :-1] |= across
    return edge


def _supersample(world: World, scene: Tensor, column: Tensor, row: Tensor, size: int) -> Tensor:
    total = torch.zeros(len(scene), 3)
    for dx, dy in _SUBSAMPLES:
        rays = camera_rays(world, scene, column + 0.5 + dx, row + 0.5 + dy, size)
        total += shade(world, rays, *trace(world, rays))[0]
    return total / len(_SUBSAMPLES)
