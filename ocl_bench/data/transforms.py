"""From a sample to what a model sees and what its masks are compared with."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..spec import Protocol
from ..types import Sample


def crop_box(crop: str, height: int, width: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) in pixels of the protocol's crop.

    `none` keeps everything. `center-F` is the central square with side int(F * shorter side), its corners rounded down,
    as in the official CLEVRTEX loader (karazijal/clevrtex-generation, `clevrtex_eval.py`): 320x240 gives 192 x 192.
    """
    if crop == "none":
        return 0, 0, width, height
    side = int(float(crop.removeprefix("center-")) * float(min(height, width)))
    return (width - side) // 2, (height - side) // 2, (width + side) // 2, (height + side) // 2


def prepare(sample: Sample, protocol: Protocol, size: int) -> tuple[Tensor, np.ndarray]:
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
        Image (3, size, size) float32 in [0, 1], and truth labels int16, (score_at, score_at) or the size of the crop.
    """
    height, width = sample.truth.labels.shape
    left, top, right, bottom = crop_box(protocol.crop, height, width)
    image = sample.image[top:bottom, left:right]
    labels = sample.truth.labels[top:bottom, left:right]
    pixels = np.array(_resize(image, size, Image.Resampling.BILINEAR))
    tensor = torch.from_numpy(pixels).permute(2, 0, 1).contiguous().to(torch.float32) / 255
    if protocol.score_at is not None:
        labels = _resize(labels.astype(np.int32), protocol.score_at, Image.Resampling.NEAREST)
    return tensor, labels.astype(np.int16)


def _resize(array: np.ndarray, side: int, filter: Image.Resampling) -> np.ndarray:
    if array.shape[:2] == (side, side):
        return array
    return np.asarray(Image.fromarray(np.ascontiguousarray(array)).resize((side, side), resample=filter))
