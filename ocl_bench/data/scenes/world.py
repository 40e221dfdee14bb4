"""Scenes packed into tensors for the ray caster, with what is looked up by object or by surface.

Objects of all scenes have one number, `scene * K + k`, and so have surfaces: `scene * (K + R) + column`, those of the
objects first, then those of the regions of the ground.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .sampler import Scene

GROUND = -1
"""What a ray hits that meets no object."""


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

    @property
    def width(self) -> int:
        """K, the number of objects for which each scene has room."""
        return self.alive.shape[1]

    @property
    def regions(self) -> int:
        """R, the number of regions of the ground for which each scene has room."""
        return self.borders.shape[1] + 1

    @cached_property
    def solids(self) -> Tensor:
        """(8, S * K) of each object: centre, half-sizes, cosine and sine of the turn back into its unit space."""
        back = -self.yaw[..., None]
        return torch.cat([self.centre, self.half, back.cos(), back.sin()], dim=2).flatten(0, 1).T.contiguous()

    @cached_property
    def eyes(self) -> Tensor:
        """(3, S * K) position of the camera in the unit space of each object."""
        return into_unit_space(self.solids, self._of_objects(self.camera) - self.solids[:3])

    @cached_property
    def suns(self) -> Tensor:
        """(3, S * K) direction towards the light in the unit space of each object."""
        return into_unit_space(self.solids, self._of_objects(self.light))

    def _of_objects(self, vectors: Tensor) -> Tensor:
        """(S, 3) of scenes -> (3, S * K) of their objects."""
        return vectors.repeat_interleave(self.width, 0).T

    @cached_property
    def textures(self) -> Tensor:
        """(13, S * (K + R)) of each surface: turn (row by row), shift and frequency of its texture."""
        parts = [self.surface["turn"].flatten(2), self.surface["shift"], self.surface["frequency"][..., None]]
        return torch.cat(parts, dim=2).flatten(0, 1).T.contiguous()

    @cached_property
    def colours(self) -> Tensor:
        """(6, S * (K + R)) float32 of each surface: its two colours."""
        both = torch.cat([self.surface["first"], self.surface["second"]], dim=2)
        return both.float().flatten(0, 1).T.contiguous()


def take(table: Tensor, numbers: Tensor) -> Tensor:
    """The columns `numbers` (N,) of a table (C, M)."""
    # numpy is three to four times as fast as torch here.
    return torch.from_numpy(table.numpy().take(numbers.numpy(), axis=1))


def true_numbers(flags: Tensor) -> Tensor:
    """The positions of the true ones among flags, which may have any shape."""
    return torch.from_numpy(np.flatnonzero(flags.numpy()))


def into_unit_space(solids: Tensor, vectors: Tensor) -> Tensor:
    """Vectors (3, N) from the centres of objects, turned and scaled as the solids (8, N), see `World.solids`."""
    (x, y, z), (_, _, _, width, depth, height, cosine, sine) = vectors, solids
    return torch.stack([(cosine * x - sine * y) / width, (sine * x + cosine * y) / depth, z / height])


def build_world(scenes: list[Scene]) -> World:
    """Pack scenes into padded tensors."""
    width = max(1, max(len(s.objects) for s in scenes))
    regions = max(len(s.grounds) for s in scenes)
    alive = torch.tensor([[k < len(s.objects) for k in range(width)] for s in scenes])

    def column(value: str, empty: np.ndarray | float) -> Tensor:
        rows = [[getattr(o, value) for o in s.objects] + [empty] * (width - len(s.objects)) for s in scenes]
        return torch.from_numpy(np.array(rows))

    def surface(value: str) -> Tensor:
        rows: list[list[Any]] = []
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


def ground_region(borders: Tensor, point: Tensor) -> Tensor:
    """Region of the ground (N,) at points (3, N) of one scene: that of the last border a point is beyond.

    borders: (R - 1, 5) of the scene, see `World`.
    """
    x, y, _ = point
    region = torch.zeros(len(x), dtype=torch.int64)
    for number, border in enumerate(borders, start=1):
        angle, offset, amplitude, frequency, phase = border
        if torch.isinf(offset):
            continue
        along = angle.cos() * y - angle.sin() * x
        across = angle.cos() * x + angle.sin() * y + amplitude * torch.sin(frequency * along + phase)
        region[across > offset] = number
    return region
