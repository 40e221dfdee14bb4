"""Two views of a scene: one shared crop and flip, and a brightness, contrast, colour and noise of their own.

Everything random is drawn on the CPU as parameters, one row per image, and applied wherever the images are: a view
does not depend on the device or on how a batch is split over ranks.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

BANK = 512
"""Side of the periodic noise picture; a view's noise is a window of it at a random place."""


class _Rows:
    """Parameters that travel as one (B, n) float32 tensor, one column per field."""

    def stack(self) -> Tensor:
        """All fields as (B, n) float32."""
        return torch.stack([getattr(self, f.name).float() for f in fields(self)], dim=1)  # type: ignore[arg-type]

    @classmethod
    def unstack(cls, rows: Tensor) -> Self:
        """The inverse of `stack`."""
        return cls(*rows.unbind(1))


@dataclass(frozen=True)
class Geometry(_Rows):
    """A square crop per image, in shares of the image side: left, top, side, each (B,); flip (B,) is left-right."""

    left: Tensor
    top: Tensor
    side: Tensor
    flip: Tensor


@dataclass(frozen=True)
class Photometry(_Rows):
    """Per image (B,): brightness added, contrast factor, gain of each channel, noise strength and its place."""

    brightness: Tensor
    contrast: Tensor
    red: Tensor
    green: Tensor
    blue: Tensor
    noise: Tensor
    noise_row: Tensor
    noise_column: Tensor


def draw_geometry(images: int, zoom: float, flip: bool, source: torch.Generator) -> Geometry:
    """Crops of side uniform in [zoom, 1] at a uniform place, mirrored with probability 1/2."""
    size, x, y, coin = torch.rand(4, images, generator=source)
    side = zoom + (1 - zoom) * size
    return Geometry(x * (1 - side), y * (1 - side), side, (coin < 0.5) & flip)


def draw_photometry(images: int, jitter: float, noise: float, source: torch.Generator) -> Photometry:
    """Uniform draws: brightness within +- jitter / 2, contrast within 1 +- jitter, channel gains within
    1 +- jitter / 2, standard deviation of the noise up to `noise`.
    """
    draws = torch.rand(6, images, generator=source)
    centred = 2 * draws - 1
    place = torch.randint(0, BANK, (2, images), generator=source)
    gains = 1 + jitter / 2 * centred[2:5]
    return Photometry(
        brightness=jitter / 2 * centred[0],
        contrast=1 + jitter * centred[1],
        red=gains[0],
        green=gains[1],
        blue=gains[2],
        noise=noise * draws[5],
        noise_row=place[0],
        noise_column=place[1],
    )


def shared_geometry(image: Tensor, geometry: Geometry) -> Tensor:
    """Crop, flip and resize back, bilinearly: (B, 3, H, W) -> (B, 3, H, W)."""
    sign = 1 - 2 * geometry.flip.to(image.dtype)
    zero = torch.zeros_like(geometry.side)
    x = 2 * geometry.left + geometry.side - 1
    y = 2 * geometry.top + geometry.side - 1
    rows = [torch.stack([sign * geometry.side, zero, x], dim=1), torch.stack([zero, geometry.side, y], dim=1)]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def photometric_view(image: Tensor, view: Photometry) -> Tensor:
    """Apply a photometric view to images (B, 3, H, W) in [0, 1]; stays in [0, 1]."""
    gain = torch.stack([view.red, view.green, view.blue], dim=1).view(-1, 3, 1, 1)
    mean = image.mean((1, 2, 3), keepdim=True)
    changed = (image - mean) * view.contrast.view(-1, 1, 1, 1) + mean + view.brightness.view(-1, 1, 1, 1)
    return (changed * gain + view.noise.view(-1, 1, 1, 1) * _noise(image, view)).clamp(0, 1)


def _noise(image: Tensor, view: Photometry) -> Tensor:
    bank = _noise_bank(image.device)
    row = (view.noise_row.long().view(-1, 1) + torch.arange(image.shape[2], device=image.device)) % BANK
    column = (view.noise_column.long().view(-1, 1) + torch.arange(image.shape[3], device=image.device)) % BANK
    return bank[:, row.unsqueeze(2), column.unsqueeze(1)].transpose(0, 1)


_BANKS: dict[torch.device, Tensor] = {}


def _noise_bank(device: torch.device) -> Tensor:
    """Standard normal (3, BANK, BANK), the same on every device."""
    if device not in _BANKS:
        _BANKS[device] = torch.randn(3, BANK, BANK, generator=torch.Generator("cpu").manual_seed(0)).to(device)
    return _BANKS[device]
