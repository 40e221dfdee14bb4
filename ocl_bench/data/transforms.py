"""Turn a sample into what a model sees and what its masks are compared with."""

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
    """The crop of a protocol in an image, (left, top, right, bottom) in pixels.

    `none` keeps everything. `center-F` is the central square with side int(F * shorter side), its corners rounded down,
    as in the official CLEVRTEX loader (karazijal/clevrtex-generation, `clevrtex_eval.py`): 320x240 gives 192 x 192.
    `square` is the largest central square, its corner rounded half to even, as in SlotContrast's code.
    `short-center-F` keeps the same square as `center-F`, but for it `prepare` resizes first and crops afterwards.
    """
    if crop == "none":
        return 0, 0, width, height
    if crop == "square":
        side = min(height, width)
        # Python rounds half to even, as SlotContrast's code does; `center-F` below rounds down. Both are on purpose.
        left, top = round((width - side) / 2), round((height - side) / 2)
        return left, top, left + side, top + side
    side = int(_central_share(crop) * float(min(height, width)))
    return (width - side) // 2, (height - side) // 2, (width + side) // 2, (height + side) // 2


def prepare(sample: Sample, protocol: Protocol, size: int) -> tuple[Tensor, Truth]:
    """Crop and resize a sample.

    Boxes that are granted as `crop` or `blackout` change the image first. The image is then resized by Pillow's filter
    on 8-bit values, which averages when shrinking (antialias), as the official CLEVRTEX loader (bilinear) and DINO's
    (bicubic) do. `bicubic-tensor` is torch's kernel on values in [0, 1], clamped, as in SlotContrast's code; it
    averages only when shrinking, which that code never does. Nothing is resampled when the crop already has the size.

    Truth is resized by nearest pixel centre: as Pillow does it, or with `bicubic-tensor` as torch's `nearest-exact`
    does it. Without a crop, an oblong image is squeezed into the square, and so is its truth; when
    `protocol.score_at` is None, truth keeps its own size and shape.

    Args:
        sample: image (H, W, 3) uint8 with truth (H, W).
        protocol: its fields crop, short_side, interpolation, boxes and score_at are used.
        size: side in pixels of the square that the model is given.

    Returns:
        Image (3, size, size) float32 in [0, 1], and truth with maps of (score_at, score_at), or as large as the crop.
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
    """The objects whose boxes a card may give to a model: those of the image's own class."""
    return [instance for instance in truth.instances if instance.category == truth.label]


def granted_boxes(sample: Sample, protocol: Protocol, size: int) -> Tensor:
    """The boxes that a model is given together with the image of `prepare`.

    Boxes are cut at the crop, and left out where nothing remains.

    Returns:
        (N, 4) float32 xyxy in pixels of the size x size square; (0, 4) unless the card grants boxes as `attention`.
    """
    scale, offset = _placement(sample.image.shape[:2], protocol, size)
    boxes = []
    for instance in granted(sample.truth) if protocol.grants == "attention" else ():
        box = (np.array(instance.box) * scale - offset).clip(0, size)
        if box[2] > box[0] and box[3] > box[1]:
            boxes.append(box)
    return torch.tensor(np.array(boxes).reshape(-1, 4), dtype=torch.float32)  # (0, 4) without a box


def _placement(shape: tuple[int, ...], protocol: Protocol, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale and offset, both (4,): `prepare` moves a box of an image (H, W) to box * scale - offset."""
    height, width = _shrunk(shape, protocol.shorter_side)
    if protocol.crop.startswith(SHORT_CENTER):
        (rows, columns), top, left = _short_side_and_corner((height, width), protocol.crop, size)
        return np.array([columns / shape[1], rows / shape[0]] * 2), np.array([left, top] * 2)
    left, top, right, bottom = crop_box(protocol.crop, height, width)
    scale = np.array([size / (right - left), size / (bottom - top)] * 2)
    shrinking = np.array([width / shape[1], height / shape[0]] * 2)
    return shrinking * scale, np.array([left, top] * 2) * scale


def _with_boxes(sample: Sample, protocol: Protocol) -> np.ndarray:
    """The image cut to the bounding box of its granted boxes, or black outside of them; unchanged without boxes."""
    image, rule = sample.image, protocol.grants
    if rule not in ("crop", "blackout"):
        return image
    boxes = [_pixels(instance.box, *image.shape[:2]) for instance in granted(sample.truth)]
    windows = [window for window in boxes if window is not None]
    if not windows:
        return image
    if rule == "crop":
        corners = np.array(windows)
        (left, top), (right, bottom) = corners[:, :2].min(0), corners[:, 2:].max(0)
        return image[top:bottom, left:right]
    dark = np.zeros_like(image)
    for left, top, right, bottom in windows:
        dark[top:bottom, left:right] = image[top:bottom, left:right]
    return dark


def _pixels(box: tuple[float, float, float, float], height: int, width: int) -> tuple[int, int, int, int] | None:
    """The window (left, top, right, bottom) of all pixels of an image that a box touches; None when it touches none."""
    left, top = max(0, math.floor(box[0])), max(0, math.floor(box[1]))
    right, bottom = min(width, math.ceil(box[2])), min(height, math.ceil(box[3]))
    return (left, top, right, bottom) if left < right and top < bottom else None


def shrink(array: np.ndarray, short_side: int | None) -> np.ndarray:
    """An image (H, W, 3) or map (H, W) shrunk by nearest pixel centre to this shorter side; a smaller one unchanged."""
    height, width = array.shape[:2]
    shape = _shrunk((height, width), short_side)
    return array if shape == (height, width) else nearest(array, shape)


def nearest(array: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """An array (h, w, ...) at another size by nearest pixel centre, in exact integer arithmetic.

    A centre on the border of two pixels takes the right or lower one, as in torch's `nearest-exact`. Pillow adds up
    steps instead, and their rounding errors move some of these centres to the other pixel: 15 of the 336 rows when 128
    rows become 336.
    """
    # Centre (n + 1/2) * old / new of the new pixel n, rounded down; doubled so that no fraction is left.
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
    """A label map (H, W) at the size at which a protocol scores, int16."""
    labels = shrink(labels, protocol.shorter_side)
    if protocol.score_at is None:
        left, top, right, bottom = crop_box(protocol.crop, *labels.shape)
        return labels[top:bottom, left:right].astype(np.int16)
    if protocol.kernel == "bicubic-tensor":
        left, top, right, bottom = crop_box(protocol.crop, *labels.shape)
        return nearest(labels[top:bottom, left:right], (protocol.score_at, protocol.score_at)).astype(np.int16)
    # Pillow has no signed 16-bit mode, and void and overlaps are negative numbers.
    resized = _crop_and_resize(labels.astype(np.int32), protocol.crop, protocol.score_at, Image.Resampling.NEAREST)
    return resized.astype(np.int16)


def _central_share(crop: str) -> float:
    """F of `center-F` and `short-center-F`; 1 for `short-center`."""
    number = crop.removeprefix("short-").removeprefix("center").removeprefix("-")
    return float(number) if number else 1.0


def _bicubic(image: np.ndarray, crop: str, side: int) -> Tensor:
    """The crop of an image (H, W, 3) as (3, side, side) float32 in [0, 1], by torch's bicubic kernel."""
    left, top, right, bottom = crop_box(crop, *image.shape[:2])
    tensor = torch.from_numpy(np.array(image[top:bottom, left:right])).permute(2, 0, 1).float() / 255
    if tensor.shape[1:] == (side, side):
        return tensor.contiguous()
    shrinking = max(tensor.shape[1:]) > side
    resized = interpolate(tensor[None], size=(side, side), mode="bicubic", align_corners=False, antialias=shrinking)
    return resized[0].clamp(0, 1)  # a bicubic kernel overshoots at edges


def _crop_and_resize(array: np.ndarray, crop: str, side: int, filter: Image.Resampling) -> np.ndarray:
    """The square that a protocol cuts out of an image or map, at side x side pixels."""
    if crop.startswith(SHORT_CENTER):
        shape, top, left = _short_side_and_corner(array.shape[:2], crop, side)
        return _resize(array, shape, filter)[top : top + side, left : left + side]
    left, top, right, bottom = crop_box(crop, *array.shape[:2])
    return _resize(array[top:bottom, left:right], (side, side), filter)


def _short_side_and_corner(shape: tuple[int, ...], crop: str, side: int) -> tuple[tuple[int, int], int, int]:
    """Size to which an image (H, W) is resized, and top and left of the central square that is cut out of it.

    The longer side is rounded down and the offset half to even, as in torchvision's Resize and CenterCrop, which SPOT,
    DINO, DINOSAUR's code and PiCIE use.
    """
    height, width = shape
    short, resized = min(height, width), round(side / _central_share(crop))
    rows, columns = resized * height // short, resized * width // short
    return (rows, columns), round((rows - side) / 2), round((columns - side) / 2)


def _resize(array: np.ndarray, shape: tuple[int, int], filter: Image.Resampling) -> np.ndarray:
    """An array at the size `shape` (H, W), by Pillow; itself when it has that size."""
    if array.shape[:2] == shape:
        return array
    return np.asarray(Image.fromarray(np.ascontiguousarray(array)).resize(shape[::-1], resample=filter))
