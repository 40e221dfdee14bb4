"""Views of a whole batch at once: windows cut by `grid_sample`, colours changed by one 3 x 3 matrix for each image.

It is an approximation of `crops.resized_crops` and `crops.apply_looks` that is several times faster on a CPU. A window
is sampled bilinearly from a copy of its image that is halved until it is at most `SHRINK` times as fine as the view.
Changes of hue, saturation and brightness are linear maps of red, green and blue, so they are one matrix; the hue is
turned around the grey axis, which keeps lightness (that of HSV does not). There is no blur and no solarisation.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SHRINK = 1.5
"""Largest number of pixels of the sampled copy for each pixel of a view."""

_LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the lightness (ITU-R BT.601), as in `crops`."""

_TO_YIQ = torch.tensor([_LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)])
"""Rows: lightness, and two axes of colour around which the hue turns."""


def sampled_crops(images: Tensor, crops: Tensor, flips: Tensor, size: int) -> Tensor:
    """Crop, flip and resize padded images: (N, 3, H, W) uint8 -> (N, 3, size, size) float32 in [0, 1].

    Args:
        images: Padded images.
        crops: (N, 4) top, left, height, width, inside each image.
        flips: (N,) bool, which crops are mirrored.
        size: Side of the results in pixels.
    """
    views = images.new_zeros(len(images), 3, size, size, dtype=torch.float32)
    fine = crops[:, 2:].amax(1).float() / (SHRINK * size)
    halvings = torch.log2(fine.clamp(min=1)).ceil().long()
    for count in halvings.unique().tolist():
        rows = (halvings == count).nonzero()[:, 0]
        pixels = images[rows].float()
        source = F.avg_pool2d(pixels, 2**count) if count else pixels
        views[rows] = _sample(source, crops[rows].float() / 2**count, flips[rows], size)
    return views.div_(255)  # last, because views are small


def _sample(images: Tensor, crops: Tensor, flips: Tensor, size: int) -> Tensor:
    """Windows of float images, bilinear; `crops` in pixels of these images."""
    top, left, height, width = crops.unbind(1)
    sign = 1 - 2 * flips.float()
    zero = torch.zeros_like(top)
    # `affine_grid` has coordinates from -1 to 1 over the padded image.
    x, y = (2 * left + width) / images.shape[3] - 1, (2 * top + height) / images.shape[2] - 1
    across = torch.stack([sign * width / images.shape[3], zero, x], dim=1)
    down = torch.stack([zero, height / images.shape[2], y], dim=1)
    grid = F.affine_grid(torch.stack([across, down], dim=1), [len(images), 3, size, size], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def recoloured(images: Tensor, parameters: Tensor) -> Tensor:
    """Change the colours of images (N, 3, H, W) in [0, 1]; the result stays in [0, 1].

    Args:
        images: Images in [0, 1].
        parameters: (N, 11) rows of `crops.draw_looks`: brightness, contrast and saturation factors, hue in turns; grey.
            The order of the changes is always hue, saturation, brightness, contrast. Blur and solarisation are ignored.
    """
    matrix = colour_matrix(parameters)
    contrast = parameters[:, 1].view(-1, 1, 1)
    # Contrast is relative to the mean lightness, which is a linear function of the mean colour.
    luma = images.new_tensor(_LUMA)
    mean = (matrix @ images.mean((2, 3)).unsqueeze(2)).squeeze(2) @ luma
    changed = torch.baddbmm((1 - contrast) * mean.view(-1, 1, 1), contrast * matrix, images.flatten(2))
    return changed.clamp_(0, 1).view_as(images)


def colour_matrix(parameters: Tensor) -> Tensor:
    """Matrices (N, 3, 3) that change hue, saturation and brightness of red, green and blue, see `recoloured`."""
    to_yiq = _TO_YIQ.to(parameters)
    turn = 2 * math.pi * parameters[:, 3]
    saturation = torch.where(parameters[:, 8] > 0, 0, parameters[:, 2])
    cos, sin = saturation * turn.cos(), saturation * turn.sin()
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    rows = [(one, zero, zero), (zero, cos, -sin), (zero, sin, cos)]
    change = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
    return parameters[:, :1].unsqueeze(2) * (torch.linalg.inv(to_yiq) @ change @ to_yiq)
