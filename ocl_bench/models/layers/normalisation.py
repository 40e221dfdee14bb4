"""Normalisation of images by the statistics of ImageNet's pixels, which happens inside the models."""

from __future__ import annotations

from torch import Tensor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's pixels in [0, 1]: red, green, blue."""


def normalise(image: Tensor) -> Tensor:
    """Image (..., 3, H, W) in [0, 1] -> the encoders' input, in which ImageNet has mean 0 and standard deviation 1."""
    mean, std = (image.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (image - mean) / std
