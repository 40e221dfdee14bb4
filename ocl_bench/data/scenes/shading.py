"""Colours of what rays see: hard shadow, solid texture, Blinn-Phong light.

Geometry is float64, colours are float32. The order of sums and products is part of the scenes: it decides the last bit
of a colour, and so now and then a value of a pixel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .materials import TEXTURES, paint
from .pairs import Boxes, Pairs, by_scene, pairs_with_light
from .tracing import Hits, dot, in_shadow, length
from .world import World, ground_region, take, true_numbers

_AMBIENT, _UPWARDS, _DIFFUSE = 0.38, 0.08, 0.68
"""Light in shadows; what surfaces that face upwards get in addition; light of the lamp."""
_LIFT = 2e-3
"""How far above a surface rays to the light start. One that starts on it would be in the shadow of its own object."""
_TEXTURES = tuple(TEXTURES.values())


def facing_light(world: World, hits: Hits) -> Tensor:
    """(N,) cosine between the normal of each hit and the direction to the light."""
    return dot(hits.normal, take(world.light.T, hits.solid // world.width))


def dark_objects(boxes: Boxes, hits: Hits, point: Tensor, facing: Tensor) -> Tensor:
    """Which hits the light does not reach, (N,) bool.

    Args:
        boxes: those of the world.
        hits: what rays meet.
        point: (3, N) where.
        facing: (N,), see `facing_light`.
    """
    world = boxes.world
    start = point + hits.normal * _LIFT
    pairs = pairs_with_light(boxes.dark, hits.solid // world.width, start, world.light)
    # No point of a convex solid that faces the light is in the shadow of this solid.
    others = (pairs.solid != hits.solid[pairs.ray]) & (facing > 0)[pairs.ray]
    return in_shadow(world, start, pairs.where(others)) | (facing <= 0)


def dark_ground(boxes: Boxes, scene: Tensor, point: Tensor, pairs: Pairs | None = None) -> Tensor:
    """Which points of the ground the light does not reach, (n,) bool.

    Args:
        boxes: those of the world.
        scene: (n,) of each point, sorted.
        point: (3, n).
        pairs: points, by number, with the objects that are tried; by default with all that may keep the light off.
    """
    start = point.clone()
    start[2] += _LIFT
    if pairs is None:
        pairs = pairs_with_light(boxes.dark, scene, start, boxes.world.light)
    return in_shadow(boxes.world, start, pairs)


def ground_colours(world: World, scene: Tensor, point: Tensor, dark: Tensor) -> tuple[Tensor, Tensor]:
    """Colours (3, n) float32 in [0, 1] of the ground, and region (n,) of each point.

    Args:
        world: the scenes.
        scene: (n,) of each point, sorted.
        point: (3, n).
        dark: (n,) bool, whether it lies in a shadow.
    """
    colours, region = torch.empty(point.shape, dtype=torch.float32), torch.zeros_like(scene)
    for number, part in by_scene(scene, len(world.light)):
        region[part] = ground_region(world.borders[number], point[:, part])
        texture = _ground_texture(world, number, point[:, part], region[part])
        # Of a point in the light, and of one in a shadow.
        lit, unlit = _light(torch.ones(2, dtype=torch.float64), world.light[number, 2] * _LIT_OR_NOT)
        colours[:, part] = (texture * torch.where(dark[part], unlit, lit)).clamp_(0, 1)
    return colours, region


_LIT_OR_NOT = torch.tensor([1.0, 0.0], dtype=torch.float64)


def _ground_texture(world: World, scene: int, point: Tensor, region: Tensor) -> Tensor:
    """Colours (3, n) float32 of points (3, n) of the ground of one scene, before light falls on it."""
    colours = torch.empty(point.shape, dtype=torch.float32)
    first = (scene + 1) * world.width + scene * world.regions
    for number in range(world.regions):
        chosen = true_numbers(region == number)
        if not len(chosen):
            continue
        surface = first + number
        texture = _in_texture(world.textures[:, surface].tolist(), take(point, chosen))
        blend = _TEXTURES[int(world.surface["kind"].flatten()[surface])](texture)
        one, two = world.colours[:, surface, None].split(3)
        colours.index_copy_(1, chosen, torch.lerp(one, two, blend))
    return colours


def object_colours(world: World, hits: Hits, point: Tensor, direction: Tensor, facing: Tensor, dark: Tensor) -> Tensor:
    """Colours (3, N) float32 in [0, 1] of objects.

    Args:
        world: the scenes.
        hits: what rays meet.
        point: (3, N) where.
        direction: (3, N) of the rays.
        facing: (N,), see `facing_light`.
        dark: (N,) bool, whether the light does not reach it.
    """
    surface = hits.solid + hits.solid // world.width * world.regions
    solids = take(world.solids, hits.solid)
    # A texture is fixed to its object: points are centred and turned like the object, in world units.
    x, y, z = point - solids[:3]
    cosine, sine = solids[6:]
    local = (cosine * x - sine * y, sine * x + cosine * y, z)
    texture = _in_texture(take(world.textures, surface), local)
    one, two = take(world.colours, surface).split(3)
    colours = paint(texture, world.surface["kind"].flatten()[surface], one, two)
    colours *= _light(hits.normal[2], facing.clamp_min(0) * ~dark)
    gloss = world.surface["gloss"].flatten()[surface] * ~dark
    shiny = true_numbers(gloss > 0)
    colours.index_add_(1, shiny, _shine(world, hits.at(shiny), take(direction, shiny), gloss[shiny]))
    return colours.clamp_(0, 1)


def _shine(world: World, hits: Hits, direction: Tensor, gloss: Tensor) -> Tensor:
    """Highlights (N,) float32 of hits, by the directions (3, N) of their rays and their shininess (N,)."""
    half_way = take(world.light.T, hits.solid // world.width) - direction / length(direction)
    half_way /= length(half_way)
    return (gloss * dot(hits.normal, half_way).clamp_min(0) ** 40).float().expand(3, -1)


def _light(upwards: Tensor, facing: Tensor) -> Tensor:
    """Light (N,) float32 on surfaces, by the height of their normals and how much they face the light."""
    return (_AMBIENT + _UPWARDS * upwards).float() + (_DIFFUSE * facing).float()


def _in_texture(textures: Tensor | list[float], point: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Points (3, N) in texture space, float32. textures: 13 columns of `World.textures`, of each point or of all."""
    *turn, a, b, c, frequency = textures
    x, y, z = (value * frequency for value in point)
    rows = (turn[:3], a), (turn[3:6], b), (turn[6:], c)
    return torch.stack([p * x + q * y + r * z + shift for (p, q, r), shift in rows]).float()
