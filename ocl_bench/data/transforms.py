"""From a sample to what a model sees and what its masks are compared with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..spec import Protocol
from ..types import Sample, Truth

SHORT_CENTER = "short-center"


def crop_box(crop: str, height: int, width: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) in pixels of the protocol's crop.

    `none` keeps everything. `center-F` is the central square with side int(F * shorter side), its corners rounded down,
    as in the official CLEVRTEX loader (karazijal/clevrtex-generation, `clevrtex_eval.py`): 320x240 gives 192 x 192.
    `short-center` keeps the same square as `center-1.0`; `prepare` resizes before it crops there.
    """
    if crop == "none":
        return 0, 0, width, height
    if crop == SHORT_CENTER:
        crop = "center-1.0"
    side = int(float(crop.removeprefix("center-")) * float(min(height, width)))
    return (width - side) // 2, (height - side) // 2, (width + side) // 2, (height + side) // 2


def prepare(sample: Sample, protocol: Protocol, size: int) -> tuple[Tensor, Truth]:
    """Crop and resize a sample.

    The image is resized by Pillow's bilinear filter on 8-bit values, which averages when shrinking (antialias); this is
    what the official CLEVRTEX loader does. Truth goes by nearest neighbour. Nothing is resampled when the crop already
    has the size asked for. Without a crop, an oblong image is squeezed into the square, and so is its truth, unless
    `protocol.score_at` is None: then truth keeps its own size and shape.

    Args:
        sample: image (H, W, 3) uint8 with truth (H, W).
        protocol: crop and score_at are used.
        size: side in pixels of the square that the model is given.

    Returns:
        Image (3, size, size) float32 in [0, 1], and truth whose maps are (score_at, score_at) or as large as the crop.
        Instances stay in pixels of the whole image.
    """
    pixels = np.array(_crop_and_resize(sample.image, protocol.crop, size, Image.Resampling.BILINEAR))
    tensor = torch.from_numpy(pixels).permute(2, 0, 1).contiguous().to(torch.float32) / 255
    truth, classes = sample.truth, sample.truth.classes
    labels = _truth_map(truth.labels, protocol)
    return tensor, replace(truth, labels=labels, classes=None if classes is None else _truth_map(classes, protocol))


def _truth_map(labels: np.ndarray, protocol: Protocol) -> np.ndarray:
    if protocol.score_at is None:
        left, top, right, bottom = crop_box(protocol.crop, *labels.shape)
        return labels[top:bottom, left:right].astype(np.int16)
    resized = _crop_and_resize(labels.astype(np.int32), protocol.crop, protocol.score_at, Image.Resampling.NEAREST)
    return resized.astype(np.int16)


def _crop_and_resize(array: np.ndarray, crop: str, side: int, filter: Image.Resampling) -> np.ndarray:
    """The square of the protocol, side x side pixels."""
    if crop == SHORT_CENTER:
        return _resize_short_side(array, side, filter)
    left, top, right, bottom = crop_box(crop, *array.shape[:2])
    return _resize(array[top:bottom, left:right], (side, side), filter)


def _resize_short_side(array: np.ndarray, side: int, filter: Image.Resampling) -> np.ndarray:
    """Shorter side to `side` (the longer one is rounded down), then the central square, as torchvision does both.

    torchvision's Resize and CenterCrop, which SPOT, DINOSAUR's code and PiCIE build on: the offset is rounded half to
    even.
    """
    height, width = array.shape[:2]
    short = min(height, width)
    shape = (side * height // short, side * width // short)
    top, left = (round((length - side) / 2) for length in shape)
    return _resize(array, shape, filter)[top : top + side, left : left + side]


def _resize(array: np.ndarray, shape: tuple[int, int], filter: Image.Resampling) -> np.ndarray:
    if array.shape[:2] == shape:
        return array
    return np.asarray(Image.fromarray(np.ascontiguousarray(array)).resize(shape[::-1], resample=filter))
