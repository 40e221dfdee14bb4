"""Solid textures: 60 materials of the `full` variant and 25 unseen ones of `outd`.

A material is a kind of texture, two colours and a frequency. The table is drawn once from a fixed seed. Each use of a
material changes its colours a little, and turns and shifts the texture: no two surfaces are equal.
"""

from __future__ import annotations

import colorsys
import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

N_FULL = 60
N_UNSEEN = 25
Colour = tuple[float, float, float]
_VOLUME = 32
"""Cells along each axis of the noise."""


@dataclass(frozen=True)
class Material:
    """name, texture kind, two RGB colours in [0, 1], frequency in periods per unit length, shininess in [0, 1]."""

    name: str
    kind: str
    first: tuple[float, float, float]
    second: tuple[float, float, float]
    frequency: float
    gloss: float


@functools.cache
def noise_volume() -> Tensor:
    """Random volume (1, 1, 33, 33, 33) in [0, 1]; it is periodic, as the last slice of each axis repeats the first."""
    values = torch.rand(_VOLUME, _VOLUME, _VOLUME, generator=torch.Generator().manual_seed(20260101))
    return F.pad(values[None, None], (0, 1, 0, 1, 0, 1), mode="circular")


def noise(points: Tensor) -> Tensor:
    """Smooth noise (N,) in [0, 1] at points (3, N); a cell has side 1, the period is 32."""
    wrapped = points % _VOLUME
    cell = wrapped.floor()
    fraction = wrapped - cell
    # Interpolation is linear; the cubic removes the edges between cells that this would show.
    smooth = cell + fraction * fraction * (3 - 2 * fraction)
    # grid_sample takes x, y, z of a volume that is stored as z, y, x, from -1 to 1.
    grid = (smooth * (2 / _VOLUME) - 1).flip(0).T.contiguous()
    return F.grid_sample(noise_volume(), grid[None, None, None], align_corners=True).reshape(-1)


def fractal_noise(points: Tensor) -> Tensor:
    """Three octaves of `noise`, in [0, 1]."""
    return (noise(points) * 4 + noise(points * 2.03 + 7.1) * 2 + noise(points * 4.1 + 3.7)) / 7


def _wave(phase: Tensor, sharpness: float) -> Tensor:
    """A sine of the phase (in turns) from 0 to 1, the closer to a square wave the larger the sharpness."""
    return 0.5 + 0.5 * torch.tanh(sharpness * torch.sin(2 * torch.pi * phase))


def _band(value: Tensor, width: float) -> Tensor:
    """1 within `width` of a whole number, else 0, with a soft edge."""
    distance = (value - value.round()).abs()
    return ((width - distance) * 12).clamp(0, 1)


def _length(vectors: Tensor) -> Tensor:
    """Length (N,) of vectors (D, N)."""
    # Rounded as for rows of vectors, which is part of the scenes: other ways to add the squares differ in the last bit.
    return vectors.T.contiguous().norm(dim=1)


def _bricks(p: Tensor) -> Tensor:
    row = p[2] * 1.6
    shifted = p[0] + 0.5 * (row.floor() % 2)
    return torch.maximum(_band(row, 0.1), torch.maximum(_band(shifted, 0.07), _band(p[1] + 0.5, 0.07)))


def _dots(p: Tensor) -> Tensor:
    return ((0.36 - _length(p - p.round())) * 12).clamp(0, 1)


TEXTURES: dict[str, Callable[[Tensor], Tensor]] = {
    "plain": lambda p: 0.35 * noise(p * 4),
    "clouds": lambda p: ((fractal_noise(p * 1.5) - 0.5) * 4 + 0.5).clamp(0, 1),
    "checker": lambda p: p.floor().sum(0) % 2,
    "stripes": lambda p: _wave(p[0] + 0.1 * noise(p * 2), 4),
    "dots": _dots,
    "rings": lambda p: _wave(_length(p[:2]) * 1.4 + 0.5 * noise(p * 1.3), 2.5),
    "marble": lambda p: _wave(p[0] + 1.6 * fractal_noise(p * 1.2), 1.5),
    "lattice": lambda p: _band(p, 0.13).amax(0),
    "camouflage": lambda p: ((noise(p * 1.7) - 0.5) * 14 + 0.5).clamp(0, 1),
    "zigzag": lambda p: _wave(p[0] + 0.6 * (p[1] - p[1].round()).abs() + 0.2 * p[2], 4),
    "bricks": _bricks,
    "speckle": lambda p: ((noise(p * 5) - 0.62) * 10).clamp(0, 1),
}
"""Name -> share (N,) of the second colour at points (3, N) in texture space."""

FULL_KINDS = tuple(TEXTURES)[:10]
TEXTURE_NAMES = tuple(TEXTURES)


def _hsv(h: float, s: float, v: float) -> Colour:
    return colorsys.hsv_to_rgb(h % 1.0, min(max(s, 0.0), 1.0), min(max(v, 0.05), 1.0))


def _draw(rng: np.random.Generator, kind: str, name: str) -> Material:
    """A material of this kind with random colours, frequency and shininess."""
    hue, saturation, value = rng.uniform(), rng.uniform(0.15, 0.85), rng.uniform(0.35, 0.95)
    first = _hsv(hue, saturation, value)
    if rng.uniform() < 0.65:  # a darker neighbour of the first colour, else any other colour
        second = _hsv(hue + rng.normal(0, 0.04), saturation * rng.uniform(0.6, 1.2), value * rng.uniform(0.35, 0.65))
    else:
        second = _hsv(rng.uniform(), rng.uniform(0.1, 0.8), rng.uniform(0.2, 0.95))
    gloss = float(rng.uniform(0.2, 0.6)) if rng.uniform() < 0.35 else 0.0
    return Material(name, kind, first, second, float(rng.uniform(1.6, 3.6)), gloss)


def free_material(rng: np.random.Generator, kind: str, hue: float) -> Material:
    """A material in two colours, light or dark, whose first colour has about the given hue (in turns)."""
    drawn = _draw(rng, kind, kind)
    first, second = (colorsys.rgb_to_hsv(*colour) for colour in (drawn.first, drawn.second))
    turn = hue + rng.normal(0, 0.035) - first[0]
    vivid = max(first[1], 0.4)
    return replace(drawn, first=_hsv(first[0] + turn, vivid, first[2]), second=_hsv(second[0] + turn, *second[1:]))


LIGHTNESS_RATIO = 2.2
"""Smallest ratio of the lightness of the two colours of `contrasting_colours`."""


def contrasting_colours(rng: np.random.Generator) -> tuple[Colour, Colour]:
    """Two RGB colours of any hue, the lighter one 2.2 to 2.8 times as light as the darker one, in either order."""
    light, ratio = rng.uniform(0.55, 0.85), rng.uniform(LIGHTNESS_RATIO, 2.8)
    hue, saturation = rng.uniform(), rng.uniform(0.4, 0.9)
    other = hue + rng.normal(0, 0.06) if rng.uniform() < 0.5 else rng.uniform()
    pair = [_of_lightness(hue, saturation, light), _of_lightness(other, rng.uniform(0.4, 0.9), light / ratio)]
    swapped = rng.uniform() < 0.5
    return (pair[1], pair[0]) if swapped else (pair[0], pair[1])


def lightness(colour: Colour) -> float:
    """Lightness of an RGB colour: the luma of ITU-R BT.601, by which images are made grey."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def _of_lightness(hue: float, saturation: float, wanted: float) -> Colour:
    """A colour of this hue and lightness. It is less saturated where the hue does not reach the lightness."""
    red, green, blue = _hsv(hue, saturation, 1.0)
    full = lightness((red, green, blue))
    if wanted <= full:
        return (red * wanted / full, green * wanted / full, blue * wanted / full)
    white = (wanted - full) / (1 - full)
    return (red + white * (1 - red), green + white * (1 - green), blue + white * (1 - blue))


@functools.cache
def material_table() -> tuple[Material, ...]:
    """All materials: ids 0..59 belong to `full` and `camo`, 60..84 only to `outd`, which has two more kinds."""
    rng = np.random.default_rng(20260102)
    full = [
        _draw(rng, FULL_KINDS[i % len(FULL_KINDS)], f"{FULL_KINDS[i % len(FULL_KINDS)]}-{i:02d}") for i in range(N_FULL)
    ]
    kinds = [TEXTURE_NAMES[i % len(TEXTURE_NAMES)] for i in range(N_UNSEEN)]
    unseen = [_draw(rng, kind, f"{kind}-{N_FULL + i:02d}") for i, kind in enumerate(kinds)]
    return tuple(full + unseen)


def paint(points: Tensor, kind: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Colour (3, N) of surface points (3, N) in texture space, by kind id (N,) and two colours (3, N)."""
    blend = torch.zeros(points.shape[1])
    for index, texture in enumerate(TEXTURES.values()):
        chosen = (kind == index).nonzero()[:, 0]
        if len(chosen):
            blend[chosen] = texture(points[:, chosen])
    return torch.lerp(first, second, blend)
