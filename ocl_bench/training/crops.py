"""Two random resized crops of an image that overlap, and their looks: the augmentation of SlotCon (arXiv:2205.15288).

Everything random is a row of uniform numbers that depends only on (seed, step, sample), whatever the device, the batch
or the rank. Crops are drawn and located on the CPU. Images that lie in one padded tensor are cropped, flipped and
resized by two interpolation matrices per image, on any device; `pillow_crop` does the same to one image of any size.
Both are Pillow's bicubic filter on 8-bit values, which averages when it shrinks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from ..core.schedules import stream_seed

TRIES = 10
"""Attempts at a crop before its fallback."""

LEAST_OVERLAP = 0.01
"""Least intersection of two crops, as a share of the area that was drawn for the second one."""

_GEOMETRY = 3 * TRIES * 4 + 2
LOOKS = 13
"""Uniform numbers of the looks of one view."""

COLUMNS = _GEOMETRY + 2 * LOOKS
"""Uniform numbers of one sample: three series of attempts, two flips, the looks of two views."""


@dataclass(frozen=True)
class Pairs:
    """Two crops of each of N images.

    crops: (N, 2, 4) int64 top, left, height, width in pixels of the image. flips: (N, 2) bool, mirrored afterwards.
    boxes: (N, 2, 4) float32 x1, y1, x2, y2 of the intersection in shares of each crop, as mirrored; not clamped, so
    crops that do not overlap have x2 <= x1 or y2 <= y1. apart: (N,) bool, these.
    """

    crops: Tensor
    flips: Tensor
    boxes: Tensor
    apart: Tensor


def draw_uniform(
    seed: int, step: int, samples: np.ndarray, columns: int = COLUMNS, stream: str = "crops"
) -> np.ndarray:
    """Uniform numbers in [0, 1) of each sample: (N, columns) float64, a pure function of (seed, step, sample)."""
    return np.stack([one.random(columns) for one in sample_generators(seed, stream, step, samples)])


def sample_generators(seed: int, stream: str, step: int, samples: np.ndarray) -> list[np.random.Generator]:
    """A generator for each sample, which depends only on (seed, stream, step, sample)."""
    key = stream_seed(seed, stream, step)
    return [np.random.Generator(np.random.Philox(key=key, counter=[0, int(one), 0, 0])) for one in samples]


def draw_pairs(uniform: np.ndarray, sizes: np.ndarray, min_scale: float) -> Pairs:
    """Two crops per image from `draw_uniform`'s rows.

    Args:
        uniform: (N, COLUMNS). sizes: (N, 2) height and width of each image in pixels, 1 or more.
        min_scale: smallest share of the image's area.

    The second crop meets the first one in at least `LEAST_OVERLAP` of its drawn area; after `TRIES` attempts it is
    drawn without that condition, so a few pairs may not overlap.
    """
    series = uniform[:, : 3 * TRIES * 4].reshape(-1, 3, TRIES, 4)
    first, _, fits = attempts(series[:, 0], sizes, min_scale)
    one = choose(first, fits, central(sizes))
    second, target, fits = attempts(series[:, 1], sizes, min_scale)
    shared = _intersection(one[:, None], second)
    area = np.clip(shared[..., 2] - shared[..., 0], 0, None) * np.clip(shared[..., 3] - shared[..., 1], 0, None)
    anywhere, _, fit_anywhere = attempts(series[:, 2], sizes, min_scale)
    fallback = choose(anywhere, fit_anywhere, central(sizes))
    two = choose(second, fits & (area >= LEAST_OVERLAP * target), fallback)
    crops = np.stack([one, two], axis=1)
    flips = uniform[:, _GEOMETRY - 2 : _GEOMETRY] < 0.5
    boxes = overlap_boxes(crops, flips)
    apart = np.any((boxes[..., 2] <= boxes[..., 0]) | (boxes[..., 3] <= boxes[..., 1]), axis=1)
    return Pairs(*(torch.from_numpy(part) for part in (crops, flips, boxes, apart)))


def overlap_boxes(crops: np.ndarray, flips: np.ndarray) -> np.ndarray:
    """The intersection of two crops as each of them sees it: (N, 2, 4) float32, see `Pairs`.

    crops: (N, 2, 4) top, left, height, width. flips: (N, 2) bool.
    """
    shared = _intersection(crops[:, 0], crops[:, 1])[:, None].astype(np.float64)
    top, left, height, width = np.moveaxis(crops.astype(np.float64), -1, 0)
    x1, x2 = (shared[..., 0] - left) / width, (shared[..., 2] - left) / width
    y1, y2 = (shared[..., 1] - top) / height, (shared[..., 3] - top) / height
    boxes: np.ndarray = np.stack([np.where(flips, 1 - x2, x1), y1, np.where(flips, 1 - x1, x2), y2], axis=-1)
    return boxes.astype(np.float32)


def attempts(
    uniform: np.ndarray, sizes: np.ndarray, min_scale: float, max_scale: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Crops (N, T, 4), their drawn areas (N, T) and which of them fit into the image (N, T).

    uniform: (N, T, 4) in [0, 1). sizes: (N, 2) height and width. Scales: shares of the image's area.
    """
    height, width = sizes[:, :1].astype(np.float64), sizes[:, 1:].astype(np.float64)
    area = height * width * (min_scale + (max_scale - min_scale) * uniform[..., 0])
    aspect = np.exp(np.log(3 / 4) + np.log(16 / 9) * uniform[..., 1])
    crop_width, crop_height = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
    fits = (crop_width > 0) & (crop_width <= width) & (crop_height > 0) & (crop_height <= height)
    top = np.floor(uniform[..., 2] * (height - crop_height + 1))
    left = np.floor(uniform[..., 3] * (width - crop_width + 1))
    return np.stack([top, left, crop_height, crop_width], axis=-1).astype(np.int64), area, fits


def choose(crops: np.ndarray, good: np.ndarray, fallback: np.ndarray) -> np.ndarray:
    """The first good crop of each row of attempts, else the fallback: (N, 4)."""
    chosen = np.take_along_axis(crops, good.argmax(1)[:, None, None], axis=1)[:, 0]
    return np.where(np.any(good, axis=1, keepdims=True), chosen, fallback)


def central(sizes: np.ndarray) -> np.ndarray:
    """The largest central crops with an aspect of 3/4 to 4/3: (N, 4)."""
    height, width = sizes[:, 0], sizes[:, 1]
    crop_width = np.where(width > height * 4 / 3, np.rint(height * 4 / 3), width).astype(np.int64)
    crop_height = np.where(width < height * 3 / 4, np.rint(width * 4 / 3), height).astype(np.int64)
    crop_width, crop_height = np.maximum(crop_width, 1), np.maximum(crop_height, 1)
    return np.stack([(height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width], axis=-1)


def _intersection(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """x1, y1, x2, y2 in pixels of the image, empty where x2 <= x1 or y2 <= y1."""
    start = np.maximum(one[..., :2], two[..., :2])
    end = np.minimum(one[..., :2] + one[..., 2:], two[..., :2] + two[..., 2:])
    return np.stack([start[..., 1], start[..., 0], end[..., 1], end[..., 0]], axis=-1)


def pillow_crop(image: np.ndarray, crop: Tensor, flip: bool, size: int) -> Tensor:
    """One crop of an image (H, W, 3) uint8 as (3, size, size) uint8. crop: (4,) top, left, height, width.

    Columns are resized before rows, as in the Pillow that the official code ran on; newer ones choose by cost, and the
    intermediate values are cut to 8 bits.
    """
    top, left, height, width = crop.tolist()
    window = Image.fromarray(np.ascontiguousarray(image[top : top + height, left : left + width]))
    wide = window.resize((size, height), Image.Resampling.BICUBIC)
    pixels = np.array(wide.resize((size, size), Image.Resampling.BICUBIC))
    return torch.from_numpy(pixels[:, ::-1].copy() if flip else pixels).permute(2, 0, 1)


def resized_crops(images: Tensor, crops: Tensor, flips: Tensor, size: int) -> Tensor:
    """Crop, flip and resize padded images: (N, 3, H, W) uint8 -> (N, 3, size, size) float32 of whole grey values.

    crops: (N, 4) inside each image. flips: (N,) bool. Columns first, then rows, each rounded to 8 bits, as Pillow does.
    """
    columns = filter_weights(crops[:, 1], crops[:, 3], images.shape[3], size)
    columns = torch.where(flips.view(-1, 1, 1), columns.flip(1), columns)
    rows = filter_weights(crops[:, 0], crops[:, 2], images.shape[2], size)
    with torch.autocast(images.device.type, enabled=False):  # 8-bit values would not survive bfloat16
        wide = (images.float().flatten(1, 2) @ columns.transpose(1, 2)).round_().clamp_(0, 255)
        tall = rows.unsqueeze(1) @ wide.unflatten(1, images.shape[1:3])
    return tall.round_().clamp_(0, 255)


def filter_weights(start: Tensor, length: Tensor, side: int, size: int) -> Tensor:
    """Pillow's bicubic filter as matrices: rows (N, size, side) that sum to 1, 0 outside [start, start + length).

    start, length: (N,) integers, the part of `side` pixels that becomes `size` pixels. The kernel is Keys' cubic with
    a = -0.5, stretched by length / size where that is above 1, cut at the ends of the part and normalised.
    """
    place = torch.arange(size, device=start.device, dtype=torch.float32)
    source = torch.arange(side, device=start.device, dtype=torch.float32)
    first, extent = start.float().view(-1, 1, 1), length.float().view(-1, 1, 1)
    scale = extent / size
    stretch = scale.clamp(min=1)
    centre = first + (place.view(1, -1, 1) + 0.5) * scale
    weights = _cubic(((source + 0.5 - centre) / stretch).abs())
    weights = weights * ((source >= first) & (source < first + extent))
    return weights / weights.sum(2, keepdim=True)


def _cubic(x: Tensor) -> Tensor:
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0))


class Looks(BaseModel):
    """How strongly views differ in looks.

    brightness, contrast, saturation, hue: largest changes of the jitter. jitter, grey: probabilities. blur, solarise:
    probabilities in the first and the second view. sigma: smallest and largest blur in pixels of the view.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    jitter: float = 0.8
    grey: float = 0.2
    blur: tuple[float, float] = (1.0, 0.1)
    solarise: tuple[float, float] = (0.0, 0.2)
    sigma: tuple[float, float] = (0.1, 2.0)


def draw_looks(uniform: np.ndarray, view: int, looks: Looks) -> Tensor:
    """Parameters (N, 11) float32 of view 0 or 1, from `draw_uniform`'s rows.

    Columns: factors of brightness, contrast and saturation, hue shift in turns, four columns with the order of these
    four, whether grey, standard deviation of the blur (0 = none), whether solarised.
    """
    first = _GEOMETRY + view * LOOKS
    return looks_of(uniform[:, first : first + LOOKS], looks, looks.blur[view], looks.solarise[view])


def looks_of(u: np.ndarray, looks: Looks, blur: float, solarise: float) -> Tensor:
    """The same (N, 11) from `LOOKS` uniform numbers of each view (N, LOOKS), for any view.

    blur, solarise: probabilities, in place of those of `looks`.
    """
    jittered = u[:, 8] < looks.jitter
    strength = np.array([looks.brightness, looks.contrast, looks.saturation, looks.hue])
    change = np.where(jittered[:, None], strength * (2 * u[:, :4] - 1), 0) + np.array([1, 1, 1, 0])
    low, high = looks.sigma
    sigma = np.where(u[:, 10] < blur, low + (high - low) * u[:, 11], 0)
    rows = [change, u[:, 4:8].argsort(1), u[:, 9:10] < looks.grey, sigma[:, None], u[:, 12:] < solarise]
    return torch.from_numpy(np.concatenate(rows, axis=1).astype(np.float32))


def apply_looks(images: Tensor, parameters: Tensor) -> Tensor:
    """Change the looks of images (N, 3, H, W) in [0, 1] by `draw_looks`' rows; stays in [0, 1].

    Colour jitter as torchvision defines it on tensors, in the order drawn for each image, then grey, a Gaussian blur
    (normalised at the border) and solarisation from 128 on.
    """
    changes, order = parameters[:, :4], parameters[:, 4:8].long()
    operations = (_brightness, _contrast, _saturation, _hue)
    for turn in range(4):
        changed = torch.empty_like(images)
        for number, operation in enumerate(operations):
            rows = (order[:, turn] == number).nonzero()[:, 0]
            changed[rows] = operation(images[rows], changes[rows, number].view(-1, 1, 1, 1))
        images = changed
    images = torch.where(parameters[:, 8].view(-1, 1, 1, 1) > 0, _grey(images), images)
    images = _blurred(images, parameters[:, 9])
    solarised = (parameters[:, 10].view(-1, 1, 1, 1) > 0) & (images >= 128 / 255)
    return torch.where(solarised, 1 - images, images)


def _grey(images: Tensor) -> Tensor:
    weights = torch.tensor([0.299, 0.587, 0.114], device=images.device).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


def _brightness(images: Tensor, factor: Tensor) -> Tensor:
    return (images * factor).clamp(0, 1)


def _contrast(images: Tensor, factor: Tensor) -> Tensor:
    mean = _grey(images).mean((1, 2, 3), keepdim=True)
    return (mean + factor * (images - mean)).clamp(0, 1)


def _saturation(images: Tensor, factor: Tensor) -> Tensor:
    grey = _grey(images)
    return (grey + factor * (images - grey)).clamp(0, 1)


def _hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue of hue, saturation and value by `shift` full turns."""
    red, green, blue = images.unbind(1)
    value, largest = images.max(1)
    chroma = value - images.amin(1)
    divisor = torch.where(chroma > 0, chroma, 1)
    sixth = torch.where(
        largest == 0,
        (green - blue) / divisor,
        torch.where(largest == 1, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    turned = (sixth + 6 * shift[:, 0]).unsqueeze(1)
    offset = torch.tensor([5.0, 3.0, 1.0], device=images.device).view(1, 3, 1, 1)
    k = (turned + offset) % 6
    return value.unsqueeze(1) - chroma.unsqueeze(1) * torch.minimum(k, 4 - k).clamp(0, 1)


def _blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of each image by its own standard deviation in pixels; 0 leaves it as it is."""
    chosen = sigma.nonzero()[:, 0]
    if not len(chosen):
        return images
    with torch.autocast(images.device.type, enabled=False):
        rows, columns = (_gaussian(length, sigma[chosen]) for length in images.shape[2:])
        wide = images[chosen].flatten(1, 2) @ columns.transpose(1, 2)
        blurred = rows.unsqueeze(1) @ wide.unflatten(1, images.shape[1:3])
    return images.index_copy(0, chosen, blurred)


def _gaussian(length: int, sigma: Tensor) -> Tensor:
    """(N, length, length) rows that sum to 1."""
    place = torch.arange(length, device=sigma.device, dtype=torch.float32)
    distance = (place.view(-1, 1) - place) ** 2
    weights = torch.softmax(-distance / (2 * sigma.clamp(min=1e-3).view(-1, 1, 1) ** 2), dim=2)
    return weights.masked_fill(weights < 1e-12, 0)  # what falls below normal floats is very slow to multiply
