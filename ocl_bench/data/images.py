"""Read image files as arrays. A missing or broken file becomes a SampleError of one line that names it."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..core.errors import SampleError

_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
"""What Pillow raises for damaged files: its decoders let errors of other modules through."""

LARGEST_IMAGE = 64_000_000
"""Most pixels of an image; the largest image of ImageNet has 61 million."""

_INDEX_MODES = {"1", "L", "P", "I", "I;16", "I;16B", "I;16L"}
_COLOUR_MODES = {"RGB", "RGBA"}


def read_image(
    path: Path,
    sample_id: str,
    *,
    modes: frozenset[str] | None = None,
    shape: tuple[int, int] | None = None,
    remedy: str,
) -> np.ndarray:
    """An image as (H, W, 3) uint8 RGB; grey and CMYK are converted, alpha is dropped without blending.

    Args:
        path: a PNG or JPEG file.
        sample_id: for error messages.
        modes: Pillow modes that are accepted; None accepts all.
        shape: (H, W) of the annotation. Pixels are taken as stored, and turned by the EXIF orientation only when the
            image has the annotated shape after that.
        remedy: what the user can do; it ends each message.

    Raises:
        SampleError: the file is missing, cannot be decoded, or has another shape or mode.
    """
    picture = _load(path, sample_id, "image", ("PNG", "JPEG"), remedy)
    if modes is not None and picture.mode not in modes:
        raise SampleError(sample_id, f"{path}: image mode '{picture.mode}', expected {' or '.join(sorted(modes))}")
    if shape is not None and (picture.height, picture.width) != shape:
        turned = ImageOps.exif_transpose(picture)
        if (turned.height, turned.width) != shape:
            sizes = f"{picture.width}x{picture.height}, its annotation {shape[1]}x{shape[0]}"
            raise SampleError(sample_id, f"{path}: image size {sizes}; {remedy}")
        picture = turned
    return np.asarray(picture.convert("RGB"))


def read_mask(path: Path, sample_id: str, *, shape: tuple[int, ...], remedy: str) -> tuple[np.ndarray, bool]:
    """A mask as (H, W) int64 codes, and whether these codes are colours.

    Palette, grey and 16-bit files give their stored numbers; colour files give R + 256 G + 65536 B.

    Args:
        path: a PNG file.
        sample_id: for error messages.
        shape: (H, W) or (H, W, 3) of the image, which the mask must have too.
        remedy: what the user can do; it ends each message.

    Raises:
        SampleError: the file is missing or broken, or has another size or mode.
    """
    picture = _load(path, sample_id, "mask", ("PNG",), remedy)
    if picture.mode not in _INDEX_MODES | _COLOUR_MODES:
        raise SampleError(sample_id, f"{path}: mask mode '{picture.mode}'; store a palette, grey or RGB PNG")
    if (picture.height, picture.width) != tuple(shape[:2]):
        sizes = f"{picture.width}x{picture.height}, its image {shape[1]}x{shape[0]}"
        raise SampleError(sample_id, f"{path}: mask size {sizes}; {remedy}")
    array = np.asarray(picture).astype(np.int64)
    if picture.mode in _COLOUR_MODES:
        return array[..., 0] + 256 * array[..., 1] + 65536 * array[..., 2], True
    return array, False


def check_pixels(picture: Image.Image) -> None:
    """Raise ValueError for an image that would take too much memory; its size is read from its head."""
    if picture.width * picture.height > LARGEST_IMAGE:
        size = f"{picture.width}x{picture.height} pixels"
        raise ValueError(f"{size}, of which at most {LARGEST_IMAGE / 1e6:g} million are read; make it smaller")


def one_line(error: Exception) -> str:
    """The text of an error on one line; the name of its class where it has no text."""
    return " ".join(str(error).split()) or type(error).__name__


def _load(path: Path, sample_id: str, field: str, formats: tuple[str, ...], remedy: str) -> Image.Image:
    """The decoded file. `field`: what messages call it, "image" or "mask"."""
    if not path.is_file():
        raise SampleError(sample_id, f"{path}: {field} file is missing; {remedy}")
    try:
        # Opened twice: verify() compares checksums, which decoding alone does not (a flipped bit could change truth
        # unnoticed), but after verify() Pillow cannot decode the same object.
        with Image.open(path, formats=formats) as picture:
            check_pixels(picture)
            picture.verify()
        with Image.open(path, formats=formats) as picture:
            picture.load()
            return picture
    except _UNREADABLE as error:
        reason = one_line(error)
        if isinstance(error, Image.UnidentifiedImageError):
            reason = f"not a {' or '.join(formats)} file"
        raise SampleError(sample_id, f"{path}: {field} cannot be read ({reason}); {remedy}") from error
