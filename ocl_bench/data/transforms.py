"""From a sample to what a model sees and what its masks are compared with."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from ..cards.protocols import Protocol
from ..core.types import Instance, Sample, Truth

SHORT_CENTER = "short-center"
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def crop_box(crop: str, height: int, width: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) in pixels of the protocol's crop.

    `none` keeps everything. `center-F` is the central square with side int(F * shorter side), its corners rounded down,
    as in the official CLEVRTEX loader (karazijal/clevrtex-generation, `clevrtex_eval.py`): 320x240 gives 192 x 192.
    `square` is the largest central one, its corner rounded half to even, as in SlotContrast's code.
    `short-center-F` keeps the same square as `center-F`; `prepare` resizes before it crops there.
    """
    if crop == "none":
        return 0, 0, width, height
    if crop == "square":
        side = min(height, width)
        left, top = round((width - side) / 2), round((height - side) / 2)
        return left, top, left + side, top + side
    side = int(_central_share(crop) * float(min(height, width)))
    return (width - side) // 2, (height - side) // 2, (width + side) // 2, (height + side) // 2


def prepare(sample: Sample, protocol: Protocol, size: int) -> tuple[Tensor, Truth]:
    """Crop and resize a sample.

    The image is resized by Pillow's filter on 8-bit values, which averages when shrinking (antialias); this is what the
    official CLEVRTEX loader does (bilinear) and DINO's (bicubic). `bicubic-tensor` is torch's kernel on values in
    [0, 1], clamped, as in SlotContrast's code; it averages only when shrinking, which that code never does. Truth goes
    by nearest pixel centre, as Pillow does it, with `bicubic-tensor` as torch's `nearest-exact` does. Nothing is
    resampled when the crop already has the size asked for. Without a crop, an oblong image is squeezed into the square,
    and so is its truth, unless `protocol.score_at` is None: then truth keeps its own size and shape. Boxes that are
    granted as `crop` or `blackout` change the image first.

    Args:
        sample: image (H, W, 3) uint8 with truth (H, W).
        protocol: crop, short_side, interpolation, boxes and score_at are used.
        size: side in pixels of the square that the model is given.

    Returns:
        Image (3, size, size) float32 in [0, 1], and truth whose maps are (score_at, score_at) or as large as the crop.
        Instances stay in pixels of the whole image.
    """
    image = shrink(_with_boxes(sample, protocol), protocol.shorter_side)
    if protocol.kernel == "bicubic-tensor":
        tensor = _bicubic(image, protocol.crop, size)
    else:
        pixels = np.array(_crop_and_resize(image, protocol.crop, size, _FILTERS[protocol.kernel]))
        tensor = torch.from_numpy(pixels).permute(2, 0, 1).contiguous().to(torch.float32) / 255
    truth, classes = sample.truth, sample.truth.classes
    labels = _truth_map(truth.labels, protocol)
    return tensor, replace(truth, labels=labels, classes=None if classes is None else _truth_map(classes, protocol))


def granted(truth: Truth) -> list[Instance]:
    """The objects whose boxes a card may grant: those of the image's own class."""
    return [one for one in truth.instances if one.category == truth.label]


def granted_boxes(sample: Sample, protocol: Protocol, size: int) -> Tensor:
    """The boxes that a model is given with `prepare`'s image, (N, 4) float32 xyxy pixels of the size x size square.

    What lies outside the crop is cut off, what is then empty is left out. (0, 4) unless the card says `attention`.
    """
    scale, offset = _placement(sample.image.shape[:2], protocol, size)
    kept = []
    for one in granted(sample.truth) if protocol.grants == "attention" else ():
        box = (np.array(one.box) * scale - offset).clip(0, size)
        if box[2] > box[0] and box[3] > box[1]:
            kept.append(box)
    return torch.tensor(np.array(kept).reshape(-1, 4), dtype=torch.float32)


def _placement(shape: tuple[int, ...], protocol: Protocol, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale and offset (4,) that take a box of an image (H, W) to where `prepare` puts it: box * scale - offset."""
    height, width = _shrunk(shape, protocol.shorter_side)
    if protocol.crop.startswith(SHORT_CENTER):
        (rows, columns), top, left = _short_side_and_corner((height, width), protocol.crop, size)
        return np.array([columns / shape[1], rows / shape[0]] * 2), np.array([left, top] * 2)
    left, top, right, bottom = crop_box(protocol.crop, height, width)
    scale = np.array([size / (right - left), size / (bottom - top)] * 2)
    shrinking = np.array([width / shape[1], height / shape[0]] * 2)
    return shrinking * scale, np.array([left, top] * 2) * scale


def _with_boxes(sample: Sample, protocol: Protocol) -> np.ndarray:
    """The image cut to the union of its granted boxes, or black outside of them; as it is where it has none."""
    image, rule = sample.image, protocol.grants
    if rule not in ("crop", "blackout"):
        return image
    boxes = [window for one in granted(sample.truth) if (window := _pixels(one.box, *image.shape[:2])) is not None]
    if not boxes:
        return image
    if rule == "crop":
        corners = np.array(boxes)
        (left, top), (right, bottom) = corners[:, :2].min(0), corners[:, 2:].max(0)
        return image[top:bottom, left:right]
    dark = np.zeros_like(image)
    for left, top, right, bottom in boxes:
        dark[top:bottom, left:right] = image[top:bottom, left:right]
    return dark


def _pixels(box: tuple[float, float, float, float], height: int, width: int) -> tuple[int, int, int, int] | None:
    """The whole pixels that a box touches, inside the image; None when there are none."""
    left, top = max(0, math.floor(box[0])), max(0, math.floor(box[1]))
    right, bottom = min(width, math.ceil(box[2])), min(height, math.ceil(box[3]))
    return (left, top, right, bottom) if left < right and top < bottom else None


def shrink(array: np.ndarray, short_side: int | None) -> np.ndarray:
    """An image (H, W, 3) or a map (H, W) with this shorter side, by nearest pixel centre; smaller ones as they are."""
    height, width = array.shape[:2]
    shape = _shrunk((height, width), short_side)
    return array if shape == (height, width) else nearest(array, shape)


def nearest(array: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """An array (h, w, ...) at another size by nearest pixel centre, in exact integer arithmetic.

    A centre on the border of two pixels takes the right or lower one, as in torch's `nearest-exact`. Pillow adds up
    steps, and their rounding takes some of these to the other one: 15 of 336 rows that are made of 128.
    """
    rows, columns = (((2 * np.arange(n) + 1) * o) // (2 * n) for n, o in zip(shape, array.shape[:2], strict=True))
    return array[np.ix_(rows, columns)]


def _shrunk(shape: tuple[int, ...], short_side: int | None) -> tuple[int, int]:
    """Height and width after `shrink`."""
    height, width = shape
    short = min(height, width)
    if short_side is None or short <= short_side:
        return height, width
    return round(height * short_side / short), round(width * short_side / short)


def _truth_map(labels: np.ndarray, protocol: Protocol) -> np.ndarray:
    labels = shrink(labels, protocol.shorter_side)
    if protocol.score_at is None:
        left, top, right, bottom = crop_box(protocol.crop, *labels.shape)
        return labels[top:bottom, left:right].astype(np.int16)
    if protocol.kernel == "bicubic-tensor":
        left, top, right, bottom = crop_box(protocol.crop, *labels.shape)
        return nearest(labels[top:bottom, left:right], (protocol.score_at, protocol.score_at)).astype(np.int16)
    resized = _crop_and_resize(labels.astype(np.int32), protocol.crop, protocol.score_at, Image.Resampling.NEAREST)
    return resized.astype(np.int16)


def _central_share(crop: str) -> float:
    """F of `center-F` and `short-center-F`; 1 for `short-center`."""
    number = crop.removeprefix("short-").removeprefix("center").removeprefix("-")
    return float(number) if number else 1.0


def _bicubic(image: np.ndarray, crop: str, side: int) -> Tensor:
    left, top, right, bottom = crop_box(crop, *image.shape[:2])
    tensor = torch.from_numpy(np.array(image[top:bottom, left:right])).permute(2, 0, 1).float() / 255
    if tensor.shape[1:] == (side, side):
        return tensor.contiguous()
    shrinking = max(tensor.shape[1:]) > side
    resized = interpolate(tensor[None], size=(side, side), mode="bicubic", align_corners=False, antialias=shrinking)
    return resized[0].clamp(0, 1)


def _crop_and_resize(array: np.ndarray, crop: str, side: int, filter: Image.Resampling) -> np.ndarray:
    """The square of the protocol, side x side pixels."""
    if crop.startswith(SHORT_CENTER):
        shape, top, left = _short_side_and_corner(array.shape[:2], crop, side)
        return _resize(array, shape, filter)[top : top + side, left : left + side]
    left, top, right, bottom = crop_box(crop, *array.shape[:2])
    return _resize(array[top:bottom, left:right], (side, side), filter)


def _short_side_and_corner(shape: tuple[int, ...], crop: str, side: int) -> tuple[tuple[int, int], int, int]:
    """Size to which an image (H, W) is resized, and top and left of the central square that is cut out of it.

    As torchvision's Resize and CenterCrop do, which SPOT, DINO, DINOSAUR's code and PiCIE build on: the longer side is
    rounded down, the offset half to even.
    """
    height, width = shape
    short, resized = min(height, width), round(side / _central_share(crop))
    rows, columns = resized * height // short, resized * width // short
    return (rows, columns), round((rows - side) / 2), round((columns - side) / 2)


def _resize(array: np.ndarray, shape: tuple[int, int], filter: Image.Resampling) -> np.ndarray:
    if array.shape[:2] == shape:
        return array
    return np.asarray(Image.fromarray(np.ascontiguousarray(array)).resize(shape[::-1], resample=filter))
