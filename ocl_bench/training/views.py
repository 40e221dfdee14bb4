"""Two views of a scene: crop and flip are shared, brightness, contrast, colour and noise differ.

Random parameters are drawn on the CPU, one row per image, and applied on the device of the images. A view does not
depend on the device or on how a batch is split over ranks.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

BANK = 512
"""Side of the periodic noise picture. The noise of a view is a window of it at a random place."""


class _Rows:
    """Parameters that are packed into one (B, n) float32 tensor, one column per field."""

    def stack(self) -> Tensor:
        """Pack all fields into (B, n) float32."""
        return torch.stack([getattr(self, f.name).float() for f in fields(self)], dim=1)  # type: ignore[arg-type]

    @classmethod
    def unstack(cls, rows: Tensor) -> Self:
        """Invert `stack`."""
        return cls(*rows.unbind(1))


@dataclass(frozen=True)
class Geometry(_Rows):
    """A square crop of each image. left, top, side: (B,) shares of the image side. flip: (B,), left to right."""

    left: Tensor
    top: Tensor
    side: Tensor
    flip: Tensor


@dataclass(frozen=True)
class Photometry(_Rows):
    """Parameters (B,) of a photometric view.

    Attributes:
        brightness: Value that is added.
        contrast: Factor around the mean of the image.
        red: Factor of the red channel.
        green: Factor of the green channel.
        blue: Factor of the blue channel.
        noise: Standard deviation of the noise.
        noise_row: First row of the window in the noise picture.
        noise_column: Its first column.
    """

    brightness: Tensor
    contrast: Tensor
    red: Tensor
    green: Tensor
    blue: Tensor
    noise: Tensor
    noise_row: Tensor
    noise_column: Tensor


def draw_geometry(images: int, zoom: float, flip: bool, source: torch.Generator) -> Geometry:
    """Draw square crops: side uniform in [zoom, 1], place uniform, mirrored with probability 1/2 if `flip`."""
    size, x, y, coin = torch.rand(4, images, generator=source)
    side = zoom + (1 - zoom) * size
    return Geometry(x * (1 - side), y * (1 - side), side, (coin < 0.5) & flip)


def draw_photometry(images: int, jitter: float, noise: float, source: torch.Generator) -> Photometry:
    """Draw photometric views. All parameters are uniform.

    The ranges are +- jitter / 2 for the brightness, 1 +- jitter for the contrast, 1 +- jitter / 2 for the gain of each
    channel, and [0, noise] for the standard deviation of the noise.
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
    """Crop and flip images (B, 3, H, W), and resize the crops bilinearly to the same size."""
    sign = 1 - 2 * geometry.flip.to(image.dtype)
    zero = torch.zeros_like(geometry.side)
    # `affine_grid` has coordinates from -1 to 1: x and y are the centre of the crop there.
    x = 2 * geometry.left + geometry.side - 1
    y = 2 * geometry.top + geometry.side - 1
    rows = [torch.stack([sign * geometry.side, zero, x], dim=1), torch.stack([zero, geometry.side, y], dim=1)]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def mirrored(image: Tensor, flip: Tensor) -> Tensor:
    """Images (B, 3, H, W) of any type, those with `flip` (B,) above 0 mirrored left to right."""
    return torch.where(flip.view(-1, 1, 1, 1) > 0, image.flip(-1), image)


def photometric_view(image: Tensor, view: Photometry) -> Tensor:
    """Apply photometric views to images (B, 3, H, W) in [0, 1]. The result stays in [0, 1]."""
    gain = torch.stack([view.red, view.green, view.blue], dim=1).view(-1, 3, 1, 1)
    contrast, brightness = (values.view(-1, 1, 1, 1) for values in (view.contrast, view.brightness))
    # ((image - mean) contrast + mean + brightness) gain + noise, as one factor and one number for each channel.
    start = (image.mean((1, 2, 3), keepdim=True) * (1 - contrast) + brightness) * gain
    changed = torch.addcmul(start, image, contrast * gain)
    return changed.addcmul_(_noise(image, view), view.noise.view(-1, 1, 1, 1)).clamp_(0, 1)


def _noise(image: Tensor, view: Photometry) -> Tensor:
    """Standard normal noise (B, 3, H, W): windows of the noise picture, which continues periodically."""
    bank, (height, width) = _noise_bank(image.device), image.shape[2:]
    if image.device.type == "cpu" and max(height, width) <= BANK:
        # Windows of a larger picture are copied row by row, several times faster than by the number of each pixel.
        wide = _continued_bank(height, width)
        places = zip(view.noise_row.long().tolist(), view.noise_column.long().tolist(), strict=True)
        return torch.stack([wide[:, top : top + height, left : left + width] for top, left in places])
    row = (view.noise_row.long().view(-1, 1) + torch.arange(height, device=image.device)) % BANK
    column = (view.noise_column.long().view(-1, 1) + torch.arange(width, device=image.device)) % BANK
    return bank[:, row.unsqueeze(2), column.unsqueeze(1)].transpose(0, 1)


@lru_cache(maxsize=2)
def _continued_bank(height: int, width: int) -> Tensor:
    """The noise picture on the CPU with as many rows and columns of its continuation below and on the right."""
    return F.pad(_noise_bank(torch.device("cpu")), (0, width, 0, height), mode="circular")


_BANKS: dict[torch.device, Tensor] = {}


def _noise_bank(device: torch.device) -> Tensor:
    """Standard normal picture (3, BANK, BANK).

    It is drawn on the CPU, because GPUs have other generators: the same numbers are needed on every device.
    """
    if device not in _BANKS:
        _BANKS[device] = torch.randn(3, BANK, BANK, generator=torch.Generator("cpu").manual_seed(0)).to(device)
    return _BANKS[device]
