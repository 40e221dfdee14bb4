"""A vectorised ray caster: what rays meet first, hard shadow, solid texture, Blinn-Phong light.

Geometry is float64, which makes masks equal on every processor; colours are float32. The rays of a whole batch of
scenes are one flat list. An object is tested only against the rays inside a box around it or around its shadow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .pairs import Boxes, Pairs, pairs_in_picture, pairs_of_pixels
from .sampler import HALF_VIEW
from .shading import dark_ground, dark_objects, facing_light, ground_colours, object_colours
from .tracing import Hits, first_hits, joined, length
from .world import GROUND, World, build_world, take, true_numbers

__all__ = ["GROUND", "Window", "World", "build_world", "cast", "cast_over"]

Window = tuple[slice, slice]
"""Rows and columns of a part of a picture."""

_SUBSAMPLES = ((-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25))


@dataclass(frozen=True)
class _Look:
    """What R rays meet.

    Attributes:
        boxes: those of the world.
        scene: (R,) scene of each ray, sorted.
        direction: (3, R) from the camera.
        ground: (R,) distance of the ground.
        hits: the rays that meet objects.
    """

    boxes: Boxes
    scene: Tensor
    direction: Tensor
    ground: Tensor
    hits: Hits

    @property
    def hit(self) -> Tensor:
        """(R,) index in its scene of the object that each ray meets, or `GROUND`."""
        result = torch.full_like(self.scene, GROUND)
        result[self.hits.ray] = self.hits.solid % self.boxes.world.width
        return result

    def point(self, rays: Tensor, distance: Tensor) -> Tensor:
        """Points (3, n) at some distance (n,) along rays with the numbers `rays` (n,)."""
        return take(self.boxes.world.camera.T, self.scene[rays]) + distance * take(self.direction, rays)

    def objects(self, hits: Hits) -> tuple[Tensor, Tensor]:
        """Colours (3, N) of these hits, and whether the light does not reach them (N,)."""
        world, point, facing = (
            self.boxes.world,
            self.point(hits.ray, hits.distance),
            facing_light(self.boxes.world, hits),
        )
        dark = dark_objects(self.boxes, hits, point, facing)
        return object_colours(world, hits, point, take(self.direction, hits.ray), facing, dark), dark

    def ground_at(self, rays: Tensor, pairs: Pairs | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Colours (3, n), whether the light does not reach them (n,), and regions (n,) of the ground that rays meet."""
        point, scene = self.point(rays, self.ground[rays]), self.scene[rays]
        dark = dark_ground(self.boxes, scene, point, pairs)
        colours, region = ground_colours(self.boxes.world, scene, point, dark)
        return colours, dark, region


def cast(
    world: World, size: int, min_visible: float, windows: Sequence[Window] | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Render all scenes: image (S, size, size, 3) float32; object index, depth, region of the ground (S, size, size).

    Objects that show less than the share `min_visible` of the pixels are removed from the world before shading, so they
    throw no shadow. The object index comes from one ray through the centre of a pixel. Pixels at an edge of objects,
    shadows or regions get the mean colour of four more rays.

    Args:
        world: the scenes.
        size: side of the pictures.
        min_visible: share of the pixels.
        windows: for each scene, the part of the picture that is wanted; image and region are valid only there.
    """
    shape = (len(world.camera), size, size)
    look = _look(world, size, min_visible * size * size)
    hits, hit = look.hits, look.hit
    shown = None if windows is None else _inside(windows, shape)
    needed = torch.ones_like(hit, dtype=torch.bool) if shown is None else _grown(shown).flatten()
    if shown is not None:
        hits = hits.where(needed[hits.ray])
    ground = true_numbers((hit == GROUND) & needed)
    image, region, dark = torch.zeros(3, len(hit)), torch.zeros_like(hit), torch.zeros_like(needed)
    colours, dark[hits.ray] = look.objects(hits)
    image.index_copy_(1, hits.ray, colours)
    colours, dark[ground], region[ground] = look.ground_at(ground, _shadows(look, ground, size))
    image.index_copy_(1, ground, colours)
    edge = _edges(((hit * world.regions + region) * 2 + dark).view(shape))
    _smooth(image, look.boxes, edge if shown is None else edge & shown)
    distance = look.ground.clone()
    distance[look.hits.ray] = look.hits.distance
    depth = (distance * length(look.direction)).float()
    return _rows(image, shape), hit.view(shape), depth.view(shape), region.view(shape)


def cast_over(world: World, size: int, empty: Tensor) -> tuple[Tensor, Tensor]:
    """Render scenes that differ from an empty one by their objects: the same pictures as `cast`, several times as fast.

    The ground is that of the empty scene but for shadows.

    Args:
        world: S scenes with one camera, light and ground.
        size: side of the pictures.
        empty: (size, size, 3) float32, the scene without objects.

    Returns:
        Image (S, size, size, 3) float32 and object index (S, size, size).
    """
    shape = (len(world.camera), size, size)
    look = _look(world, size, 0.0)
    hit, dark = look.hit, torch.zeros(len(look.scene), dtype=torch.bool)
    image = empty.reshape(-1, 3).T.repeat(1, len(world.camera))
    colours, dark[look.hits.ray] = look.objects(look.hits)
    image.index_copy_(1, look.hits.ray, colours)
    ground = true_numbers(hit == GROUND)
    colours, dark[ground], _ = look.ground_at(ground, _shadows(look, ground, size))
    image.index_copy_(1, ground, colours)
    _smooth(image, look.boxes, _edges((hit * 2 + dark).view(shape)))
    return _rows(image, shape), hit.view(shape)


def _look(world: World, size: int, least: float) -> _Look:
    """What the rays through the centres of all pixels see.

    Objects with fewer pixels than `least` are removed from the world.
    """
    x, y = _position(torch.arange(size) + 0.5, torch.arange(size) + 0.5, size)
    right, up, forward = world.axes.transpose(0, 1)[..., None]  # each (S, 3, 1)
    direction = (forward + x * right)[:, :, None] + (y * up)[..., None]
    direction = direction.transpose(0, 1).reshape(3, -1)
    scene = torch.arange(len(world.camera)).repeat_interleave(size * size)
    ground = _to_ground(world, scene, direction)
    pairs = pairs_in_picture(Boxes(world, size).solids, size)
    hits = first_hits(world, direction, ground, pairs)
    # Repeated, because every object that is removed uncovers others, and none may be judged by a stale count.
    while True:
        hidden = world.alive & (_count(world, hits) < least)
        if not hidden.any():
            return _Look(Boxes(world, size), scene, direction, ground, hits)
        world.alive = world.alive & ~hidden
        lost = hidden.flatten()[hits.solid]
        again = torch.zeros(len(ground), dtype=torch.bool)
        again[hits.ray[lost]] = True
        left = pairs.where(again[pairs.ray] & world.alive.flatten()[pairs.solid])
        hits = joined(world, [hits.where(~lost), first_hits(world, direction, ground, left)])


def _position(column: Tensor, row: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """How far rays through positions of the picture, in pixels from the top left, go to the right and up; float32."""
    return (column / size * 2 - 1) * HALF_VIEW, (1 - row / size * 2) * HALF_VIEW


def _to_ground(world: World, scene: Tensor, direction: Tensor) -> Tensor:
    """Distance (R,) at which rays meet the ground."""
    distance = -world.camera[:, 2][scene] / direction[2]
    return torch.where(distance > 0, distance, torch.inf)


def _count(world: World, hits: Hits) -> Tensor:
    """(S, K) number of hits of each object."""
    return torch.bincount(hits.solid, minlength=world.alive.numel()).view(world.alive.shape)


def _shadows(look: _Look, ground: Tensor, size: int) -> Pairs:
    """Pixels that show the ground, by their place in `ground`, with the objects whose shadows may fall on them."""
    pairs = pairs_in_picture(look.boxes.shadows, size)
    place = torch.full_like(look.scene, -1)
    place[ground] = torch.arange(len(ground))
    pairs = Pairs(place[pairs.ray], pairs.solid)
    return pairs.where(pairs.ray >= 0)


def _smooth(image: Tensor, boxes: Boxes, edge: Tensor) -> None:
    """Give the pixels at edges (S, size, size) bool the mean colour of four rays each, in place."""
    world, size, rays = boxes.world, boxes.size, len(_SUBSAMPLES)
    pixel = true_numbers(edge)
    scene, row, column = pixel // (size * size), pixel // size % size, pixel % size
    across, down = torch.tensor(_SUBSAMPLES).T
    x, y = _position((column + 0.5)[:, None] + across, (row + 0.5)[:, None] + down, size)
    right, up, forward = take(world.axes.flatten(1).T, scene).view(3, 3, -1, 1)  # each (3, E, 1)
    direction = (forward + x * right + y * up).flatten(1)
    pairs = pairs_of_pixels(boxes.solids, scene, column, row)
    pairs = Pairs((pairs.ray[:, None] * rays + torch.arange(rays)).flatten(), pairs.solid.repeat_interleave(rays))
    scene = scene.repeat_interleave(rays)
    ground = _to_ground(world, scene, direction)
    look = _Look(boxes, scene, direction, ground, first_hits(world, direction, ground, pairs))
    colours = torch.empty(direction.shape, dtype=torch.float32)
    colours.index_copy_(1, look.hits.ray, look.objects(look.hits)[0])
    on_ground = true_numbers(look.hit == GROUND)
    colours.index_copy_(1, on_ground, look.ground_at(on_ground)[0])
    one, two, three, four = colours.view(3, -1, rays).unbind(2)
    image.index_copy_(1, pixel, (one + two + three + four) / rays)


def _rows(image: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Colours (3, S * H * W) as pictures (S, H, W, 3)."""
    return image.T.reshape(*shape, 3)


def _inside(windows: Sequence[Window], shape: tuple[int, int, int]) -> Tensor:
    """Pixels (S, H, W) bool that are wanted."""
    inside = torch.zeros(shape, dtype=torch.bool)
    for picture, (rows, columns) in zip(inside, windows, strict=True):
        picture[rows, columns] = True
    return inside


def _grown(flags: Tensor) -> Tensor:
    """The pixels (S, H, W) and those around them."""
    return F.max_pool2d(flags[:, None].float(), 3, 1, 1)[:, 0] > 0


def _edges(flags: Tensor) -> Tensor:
    """Pixels (S, H, W) that differ from one of their four neighbours."""
    edge = torch.zeros_like(flags, dtype=torch.bool)
    down, across = flags[:, 1:] != flags[:, :-1], flags[:, :, 1:] != flags[:, :, :-1]
    edge[:, 1:] |= down
    edge[:, :-1] |= down
    edge[:, :, 1:] |= across
    edge[:, :, :-1] |= across
    return edge
