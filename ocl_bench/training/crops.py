"""The augmentation of SlotCon (arXiv:2205.15288): two overlapping random crops of an image, and their colour changes.

All random choices come from a row of uniform numbers that depends only on (seed, step, sample). Device, batch and rank
do not matter. Crops are drawn and located on the CPU. `resized_crops` crops, flips and resizes images in one padded
tensor, on any device, by two interpolation matrices per image; `pillow_crop` does the same to one image of any size.
Both apply Pillow's bicubic filter to 8-bit values. This filter averages when it shrinks an image.
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
"""Attempts at a crop before the fallback is used."""

LEAST_OVERLAP = 0.01
"""Smallest intersection of two crops, as a share of the area that was drawn for the second one."""

_GEOMETRY = 3 * TRIES * 4 + 2
LOOKS = 13
"""Number of uniform numbers that determine the looks of one view."""

COLUMNS = _GEOMETRY + 2 * LOOKS
"""Number of uniform numbers of one sample: three series of attempts, two flips, the looks of two views."""


@dataclass(frozen=True)
class CropPairs:
    """Two crops of each of N images.

    Attributes:
        crops: (N, 2, 4) int64 top, left, height, width in pixels of the image.
        flips: (N, 2) bool, which crops are mirrored after cropping.
        boxes: (N, 2, 4) float32 x1, y1, x2, y2 of the intersection, as shares of each (mirrored) crop. They are not
            clamped: crops that do not overlap have x2 <= x1 or y2 <= y1.
        apart: (N,) bool, which pairs do not overlap.
    """

    crops: Tensor
    flips: Tensor
    boxes: Tensor
    apart: Tensor


def draw_uniform(
    seed: int, step: int, samples: np.ndarray, columns: int = COLUMNS, stream: str = "crops"
) -> np.ndarray:
    """Uniform numbers in [0, 1): (N, columns) float64, one row per sample.

    Args:
        seed: Seed of the training.
        step: Number of the training step.
        samples: (N,) numbers of the samples in the training data.
        columns: How many numbers each sample gets.
        stream: Name of the random stream; streams are independent.
    """
    return np.stack([generator.random(columns) for generator in sample_generators(seed, stream, step, samples)])


def sample_generators(seed: int, stream: str, step: int, samples: np.ndarray) -> list[np.random.Generator]:
    """One random generator per sample. It depends on (seed, stream, step, sample) alone."""
    key = stream_seed(seed, stream, step)
    # The sample is the second word of Philox's counter: its numbers never run into those of another sample.
    return [np.random.Generator(np.random.Philox(key=key, counter=[0, int(sample), 0, 0])) for sample in samples]


def draw_pairs(uniform: np.ndarray, sizes: np.ndarray, min_scale: float) -> CropPairs:
    """Draw two crops per image.

    The second crop shares at least `LEAST_OVERLAP` of its drawn area with the first one. After `TRIES` attempts it is
    drawn without this condition; a few pairs may not overlap.

    Args:
        uniform: (N, COLUMNS) rows of `draw_uniform`.
        sizes: (N, 2) height and width of each image in pixels, at least 1.
        min_scale: Smallest share of the image's area in a crop.
    """
    series = uniform[:, : 3 * TRIES * 4].reshape(-1, 3, TRIES, 4)
    tries, _, fits = draw_attempts(series[:, 0], sizes, min_scale)
    first = first_good(tries, fits, central_crops(sizes))
    tries, drawn_area, fits = draw_attempts(series[:, 1], sizes, min_scale)
    shared = _intersection(first[:, None], tries)
    area = np.clip(shared[..., 2] - shared[..., 0], 0, None) * np.clip(shared[..., 3] - shared[..., 1], 0, None)
    unconditioned, _, unconditioned_fits = draw_attempts(series[:, 2], sizes, min_scale)
    fallback = first_good(unconditioned, unconditioned_fits, central_crops(sizes))
    # The overlap is compared with the area that was drawn, before the sides are rounded to pixels.
    second = first_good(tries, fits & (area >= LEAST_OVERLAP * drawn_area), fallback)
    crops = np.stack([first, second], axis=1)
    flips = uniform[:, _GEOMETRY - 2 : _GEOMETRY] < 0.5
    boxes = overlap_boxes(crops, flips)
    apart = np.any((boxes[..., 2] <= boxes[..., 0]) | (boxes[..., 3] <= boxes[..., 1]), axis=1)
    return CropPairs(*(torch.from_numpy(part) for part in (crops, flips, boxes, apart)))


def overlap_boxes(crops: np.ndarray, flips: np.ndarray) -> np.ndarray:
    """Box of the intersection of two crops in the coordinates of each crop: (N, 2, 4) float32, see `CropPairs`.

    Args:
        crops: (N, 2, 4) top, left, height, width in pixels.
        flips: (N, 2) bool, which crops are mirrored.
    """
    shared = _intersection(crops[:, 0], crops[:, 1])[:, None].astype(np.float64)
    top, left, height, width = np.moveaxis(crops.astype(np.float64), -1, 0)
    x1, x2 = (shared[..., 0] - left) / width, (shared[..., 2] - left) / width
    y1, y2 = (shared[..., 1] - top) / height, (shared[..., 3] - top) / height
    boxes: np.ndarray = np.stack([np.where(flips, 1 - x2, x1), y1, np.where(flips, 1 - x1, x2), y2], axis=-1)
    return boxes.astype(np.float32)


def draw_attempts(
    uniform: np.ndarray, sizes: np.ndarray, min_scale: float, max_scale: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw T crops for each of N images, as torchvision's `RandomResizedCrop` does.

    The area is uniform between two shares of the image's area; the aspect ratio is log-uniform in [3/4, 4/3].

    Args:
        uniform: (N, T, 4) numbers in [0, 1): area, aspect, top, left.
        sizes: (N, 2) height and width of the images.
        min_scale: Smallest share of the image's area.
        max_scale: Largest share.

    Returns:
        Crops (N, T, 4) as top, left, height, width; their areas before rounding (N, T); and which crops lie inside
        the image (N, T) bool.
    """
    height, width = sizes[:, :1].astype(np.float64), sizes[:, 1:].astype(np.float64)
    area = height * width * (min_scale + (max_scale - min_scale) * uniform[..., 0])
    aspect = np.exp(np.log(3 / 4) + np.log(16 / 9) * uniform[..., 1])
    crop_width, crop_height = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
    # The place of a crop that does not fit is meaningless; callers ignore it because `fits` is False.
    fits = (crop_width > 0) & (crop_width <= width) & (crop_height > 0) & (crop_height <= height)
    top = np.floor(uniform[..., 2] * (height - crop_height + 1))
    left = np.floor(uniform[..., 3] * (width - crop_width + 1))
    return np.stack([top, left, crop_height, crop_width], axis=-1).astype(np.int64), area, fits


def first_good(crops: np.ndarray, good: np.ndarray, fallback: np.ndarray) -> np.ndarray:
    """First crop of each row that is good, or the fallback: (N, 4).

    Args:
        crops: (N, T, 4) attempts.
        good: (N, T) bool.
        fallback: (N, 4) crops for rows without a good attempt.
    """
    chosen = np.take_along_axis(crops, good.argmax(1)[:, None, None], axis=1)[:, 0]
    return np.where(np.any(good, axis=1, keepdims=True), chosen, fallback)


def central_crops(sizes: np.ndarray) -> np.ndarray:
    """Largest central crops with an aspect ratio in [3/4, 4/3]: (N, 4). This is torchvision's fallback."""
    height, width = sizes[:, 0], sizes[:, 1]
    crop_width = np.where(width > height * 4 / 3, np.rint(height * 4 / 3), width).astype(np.int64)
    crop_height = np.where(width < height * 3 / 4, np.rint(width * 4 / 3), height).astype(np.int64)
    crop_width, crop_height = np.maximum(crop_width, 1), np.maximum(crop_height, 1)
    return np.stack([(height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width], axis=-1)


def _intersection(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Intersection of crops as x1, y1, x2, y2 in pixels of the image. It is empty where x2 <= x1 or y2 <= y1."""
    start = np.maximum(one[..., :2], two[..., :2])
    end = np.minimum(one[..., :2] + one[..., 2:], two[..., :2] + two[..., 2:])
    return np.stack([start[..., 1], start[..., 0], end[..., 1], end[..., 0]], axis=-1)


def pillow_crop(image: np.ndarray, crop: Tensor, flip: bool, size: int) -> Tensor:
    """Cut one crop out of an image (H, W, 3) uint8 and resize it to (3, size, size) uint8.

    Args:
        image: The whole image.
        crop: (4,) top, left, height, width in pixels.
        flip: Mirror the result.
        size: Side of the result in pixels.
    """
    top, left, height, width = crop.tolist()
    window = Image.fromarray(np.ascontiguousarray(image[top : top + height, left : left + width]))
    # Two calls fix the order. The official code ran on a Pillow that resized columns before rows; newer versions choose
    # the order by cost, and it changes the result, because values are rounded to 8 bits in between.
    wide = window.resize((size, height), Image.Resampling.BICUBIC)
    pixels = np.array(wide.resize((size, size), Image.Resampling.BICUBIC))
    return torch.from_numpy(pixels[:, ::-1].copy() if flip else pixels).permute(2, 0, 1)


def resized_crops(images: Tensor, crops: Tensor, flips: Tensor, size: int) -> Tensor:
    """Crop, flip and resize padded images: (N, 3, H, W) uint8 -> (N, 3, size, size) float32 with integer values.

    Columns are resized before rows and both results are rounded to 8 bits, as in `pillow_crop`.

    Args:
        images: Padded images.
        crops: (N, 4) top, left, height, width, inside each image.
        flips: (N,) bool, which crops are mirrored.
        size: Side of the results in pixels.
    """
    columns = filter_weights(crops[:, 1], crops[:, 3], images.shape[3], size)
    columns = torch.where(flips.view(-1, 1, 1), columns.flip(1), columns)  # mirrors the output at no extra cost
    rows = filter_weights(crops[:, 0], crops[:, 2], images.shape[2], size)
    with torch.autocast(images.device.type, enabled=False):  # bfloat16 cannot represent all 8-bit values
        wide = (images.float().flatten(1, 2) @ columns.transpose(1, 2)).round_().clamp_(0, 255)
        tall = rows.unsqueeze(1) @ wide.unflatten(1, images.shape[1:3])
    return tall.round_().clamp_(0, 255)


def filter_weights(start: Tensor, length: Tensor, side: int, size: int) -> Tensor:
    """Pillow's bicubic filter as matrices (N, size, side): rows sum to 1 and are 0 outside [start, start + length).

    The kernel is Keys' cubic with a = -0.5. It is stretched by length / size where that is above 1, cut at both ends of
    the crop and normalised.

    Args:
        start: (N,) integers, first pixel of the crop along one axis.
        length: (N,) integers, number of pixels of the crop.
        side: Number of pixels of the padded image along this axis.
        size: Number of pixels of the result.
    """
    place = torch.arange(size, device=start.device, dtype=torch.float32)
    source = torch.arange(side, device=start.device, dtype=torch.float32)
    first, extent = start.float().view(-1, 1, 1), length.float().view(-1, 1, 1)
    scale = extent / size
    stretch = scale.clamp(min=1)  # a wider kernel averages when the crop shrinks; enlarging interpolates
    centre = first + (place.view(1, -1, 1) + 0.5) * scale
    weights = _cubic(((source + 0.5 - centre) / stretch).abs())
    weights = weights * ((source >= first) & (source < first + extent))
    return weights / weights.sum(2, keepdim=True)


def _cubic(x: Tensor) -> Tensor:
    """Keys' cubic kernel with a = -0.5 at distances x >= 0."""
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0))


class Looks(BaseModel):
    """How strongly the colours and the sharpness of views change. The defaults are those of SlotCon (BYOL's).

    Attributes:
        brightness: Largest change of the brightness factor.
        contrast: Largest change of the contrast factor.
        saturation: Largest change of the saturation factor.
        hue: Largest shift of the hue, in full turns.
        jitter: Probability of the four changes above.
        grey: Probability of a grey view.
        blur: Probabilities of a blurred first and second view.
        solarise: Probabilities of a solarised first and second view.
        sigma: Smallest and largest standard deviation of the blur, in pixels of the view.
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
    """Parameters (N, 11) float32 of the looks of view 0 or 1, from rows of `draw_uniform`.

    Returns:
        Columns 0 to 2: factors of brightness, contrast and saturation. 3: hue shift in turns. 4 to 7: the order of
        these four changes. 8: 1 for grey. 9: standard deviation of the blur, 0 for none. 10: 1 for solarised.
    """
    first = _GEOMETRY + view * LOOKS
    return looks_from_uniform(uniform[:, first : first + LOOKS], looks, looks.blur[view], looks.solarise[view])


def looks_from_uniform(u: np.ndarray, looks: Looks, blur: float, solarise: float) -> Tensor:
    """Parameters (N, 11) as in `draw_looks`, for a view with its own probabilities.

    Args:
        u: (N, LOOKS) uniform numbers.
        looks: Strengths of the changes.
        blur: Probability of a blur; the one in `looks` is ignored.
        solarise: Probability of solarisation; the one in `looks` is ignored.
    """
    jittered = u[:, 8] < looks.jitter
    strength = np.array([looks.brightness, looks.contrast, looks.saturation, looks.hue])
    change = np.where(jittered[:, None], strength * (2 * u[:, :4] - 1), 0) + np.array([1, 1, 1, 0])
    low, high = looks.sigma
    sigma = np.where(u[:, 10] < blur, low + (high - low) * u[:, 11], 0)
    # Sorting four uniform numbers gives each of the 24 orders the same probability.
    columns = [change, u[:, 4:8].argsort(1), u[:, 9:10] < looks.grey, sigma[:, None], u[:, 12:] < solarise]
    return torch.from_numpy(np.concatenate(columns, axis=1).astype(np.float32))


def apply_looks(images: Tensor, parameters: Tensor) -> Tensor:
    """Change the looks of images (N, 3, H, W) in [0, 1]; the result stays in [0, 1].

    The steps are torchvision's colour jitter for tensors in the order drawn for each image, grey, a Gaussian blur
    (normalised at the border), and solarisation of values from 128 / 255 on.

    Args:
        images: Images in [0, 1].
        parameters: (N, 11) rows of `draw_looks`.
    """
    changes, order = parameters[:, :4], parameters[:, 4:8].long()
    operations = (_brightness, _contrast, _saturation, _hue)
    # Each image has its own order; an operation is applied to all images that have it at this turn.
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
    """Luma (N, 1, H, W) with the weights of ITU-R BT.601, as in Pillow and torchvision."""
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
    """Shift the hue by `shift` (N, 1, 1, 1) full turns, keeping saturation and value of HSV."""
    red, green, blue = images.unbind(1)
    value, largest = images.max(1)
    chroma = value - images.amin(1)
    divisor = torch.where(chroma > 0, chroma, 1)  # grey pixels have no hue; any finite one gives grey again
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
    """Blur each image by its own standard deviation in pixels; 0 leaves an image unchanged."""
    chosen = sigma.nonzero()[:, 0]
    if not len(chosen):
        return images
    # A Gaussian is separable: two matrix products per image, which also allow another sigma for each image.
    with torch.autocast(images.device.type, enabled=False):
        rows, columns = (_gaussian(length, sigma[chosen]) for length in images.shape[2:])
        wide = images[chosen].flatten(1, 2) @ columns.transpose(1, 2)
        blurred = rows.unsqueeze(1) @ wide.unflatten(1, images.shape[1:3])
    return images.index_copy(0, chosen, blurred)


def _gaussian(length: int, sigma: Tensor) -> Tensor:
    """Gaussian filters as matrices (N, length, length) whose rows sum to 1."""
    place = torch.arange(length, device=sigma.device, dtype=torch.float32)
    distance = (place.view(-1, 1) - place) ** 2
    weights = torch.softmax(-distance / (2 * sigma.clamp(min=1e-3).view(-1, 1, 1) ** 2), dim=2)
    return weights.masked_fill(weights < 1e-12, 0)  # CPUs multiply subnormal floats very slowly
