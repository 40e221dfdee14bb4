"""Which rays may meet which objects: by boxes around objects and their shadows, in the picture and on the ground.

This only preselects, so all boxes are a little too large. Whether a ray meets an object is computed in `tracing.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from .sampler import HALF_VIEW
from .world import World, true_numbers

_GROWN = 0.01
"""Added to half-sizes. Rays to the light start 0.002 above a surface, which moves them less than that."""
_PIXELS = 0.05
"""Added to boxes in the picture, for the rounding of rays, whose positions in the picture are float32."""
_SIGNS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float64)


@dataclass(frozen=True)
class Pairs:
    """P rays with an object that each may meet: number of the ray (P,), number of the object (P,), see `World`."""

    ray: Tensor
    solid: Tensor

    def where(self, chosen: Tensor) -> Pairs:
        """The pairs for which `chosen` (P,) is true."""
        return self.at(true_numbers(chosen))

    def at(self, numbers: Tensor) -> Pairs:
        """The pairs with these numbers."""
        return Pairs(self.ray[numbers], self.solid[numbers])


@dataclass(frozen=True)
class Boxes:
    """Boxes around the objects of a world and around their shadows, for pictures of `size` x `size` pixels."""

    world: World
    size: int

    @cached_property
    def solids(self) -> np.ndarray:
        """(S, K, 4) left, right, top and bottom of each object in the picture, in pixels."""
        return self._in_picture(self._corners)

    @cached_property
    def shadows(self) -> np.ndarray:
        """(S, K, 4) left, right, top and bottom in the picture of each object's shadow on the ground, in pixels."""
        return self._in_picture(np.concatenate([self._feet, np.zeros((*self._feet.shape[:3], 1))], axis=3))

    @cached_property
    def dark(self) -> Tensor:
        """(S, 4, K) smallest and largest x, smallest and largest y of each object's shadow on the ground."""
        low, high = self._feet.min(axis=2), self._feet.max(axis=2)
        low[~self.world.alive.numpy()] = np.inf
        return torch.from_numpy(np.stack([low[..., 0], high[..., 0], low[..., 1], high[..., 1]], axis=1))

    @cached_property
    def _corners(self) -> np.ndarray:
        """(S, K, 8, 3) corners of the box that each object fills."""
        world = self.world
        yaw, half = world.yaw.numpy()[..., None], world.half.numpy() + _GROWN
        x, y, z = np.moveaxis(_SIGNS * half[:, :, None], 3, 0)
        turned = np.stack([np.cos(yaw) * x - np.sin(yaw) * y, np.sin(yaw) * x + np.cos(yaw) * y, z], axis=3)
        return np.asarray(turned + world.centre.numpy()[:, :, None])

    @cached_property
    def _feet(self) -> np.ndarray:
        """(S, K, 8, 2) where the shadows of the corners fall on the ground."""
        slope = (self.world.light[:, :2] / self.world.light[:, 2:]).numpy()
        return np.asarray(self._corners[..., :2] - self._corners[..., 2:] * slope[:, None, None])

    def _in_picture(self, points: np.ndarray) -> np.ndarray:
        """(S, K, 4) box in pixels around points (S, K, 8, 3); an empty one for objects that do not exist."""
        world = self.world
        seen = (points - world.camera.numpy()[:, None, None]) @ np.swapaxes(world.axes.numpy(), 1, 2)[:, None]
        depth = seen[..., 2].clip(min=1e-3)
        column = (1 + seen[..., 0] / depth / HALF_VIEW) * (self.size / 2)
        row = (1 - seen[..., 1] / depth / HALF_VIEW) * (self.size / 2)
        sides = (column.min(2) - _PIXELS, column.max(2) + _PIXELS, row.min(2) - _PIXELS, row.max(2) + _PIXELS)
        box = np.stack(sides, axis=2)
        # What reaches behind the camera may be anywhere in the picture.
        box[(seen[..., 2] < 0.1).any(axis=2)] = (0, self.size, 0, self.size)
        box[~world.alive.numpy()] = (np.inf, -np.inf, np.inf, -np.inf)
        return box


def pairs_in_picture(boxes: np.ndarray, size: int) -> Pairs:
    """Pairs of the rays through the centres of all pixels with the objects in whose boxes (S, K, 4) they are.

    The ray of a pixel has the number (scene * size + row) * size + column.
    """
    # The first and the last pixel whose centre, half a pixel from its begin, is inside.
    low = np.ceil(boxes[..., [0, 2]] - 0.5).clip(0, size).astype(int)
    high = np.floor(boxes[..., [1, 3]] + 0.5).clip(0, size).astype(int)
    rays, solids = [np.empty(0, int)], [np.empty(0, int)]
    for number, ((left, top), (right, bottom)) in enumerate(zip(low.reshape(-1, 2), high.reshape(-1, 2), strict=True)):
        if left < right and top < bottom:
            start = number // boxes.shape[1] * size
            inside = (np.arange(start + top, start + bottom)[:, None] * size + np.arange(left, right)).ravel()
            rays.append(inside)
            solids.append(np.full(len(inside), number))
    return Pairs(torch.from_numpy(np.concatenate(rays)), torch.from_numpy(np.concatenate(solids)))


def pairs_of_pixels(boxes: np.ndarray, scene: Tensor, column: Tensor, row: Tensor) -> Pairs:
    """Pairs of E pixels with the objects whose boxes (S, K, 4) they touch. Pixels are sorted by scene.

    The number of a pixel is its place in the list.
    """
    sides = torch.from_numpy(boxes).transpose(1, 2)[..., None]  # (S, 4, K, 1)
    found = []
    for number, part in by_scene(scene, len(boxes)):
        left, right, top, bottom = sides[number]
        x, y = column[part], row[part]
        touched = (x > left - 1) & (x < right) & (y > top - 1) & (y < bottom)
        found.append(_numbered(touched, number, part.start))
    return _joined(found)


def pairs_with_light(dark: Tensor, scene: Tensor, point: Tensor, light: Tensor) -> Pairs:
    """Pairs of N points (3, N) with the objects that may keep the light from them. Points are sorted by scene.

    Args:
        dark: (S, 4, K), see `Boxes`.
        scene: (N,) of each point.
        point: (3, N).
        light: (S, 3) unit vectors towards the light.
    """
    found = []
    for number, part in by_scene(scene, len(light)):
        x, y, z = light[number].tolist()
        # Where the shadow of a point would fall on the ground.
        height = point[2, part] / z
        across, along = point[0, part] - x * height, point[1, part] - y * height
        left, right, near, far = dark[number][..., None]
        touched = (across > left) & (across < right) & (along > near) & (along < far)
        found.append(_numbered(touched, number, part.start))
    return _joined(found)


def by_scene(scene: Tensor, scenes: int) -> Iterator[tuple[int, slice]]:
    """Number and part of the list of each scene that occurs in a sorted list."""
    start = 0
    for number, count in enumerate(torch.bincount(scene, minlength=scenes).tolist()):
        if count:
            yield number, slice(start, start + count)
        start += count


def _numbered(touched: Tensor, scene: int, start: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of rays and objects of a table (K, n) of one scene whose rays begin at `start`."""
    solid, ray = np.nonzero(touched.numpy())
    return ray + start, solid + scene * len(touched)


def _joined(found: list[tuple[np.ndarray, np.ndarray]]) -> Pairs:
    if not found:
        return Pairs(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))
    rays, solids = zip(*found, strict=True)
    return Pairs(torch.from_numpy(np.concatenate(rays)), torch.from_numpy(np.concatenate(solids)))
