"""Image files to arrays. Whatever is wrong with a file becomes one line that names it."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..core.errors import SampleError

_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
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
    """An image as (H, W, 3) uint8 RGB; grey and CMYK are converted, alpha is dropped, not blended.

    shape: (H, W) of its annotation. Pixels are taken as stored; a file whose EXIF orientation is needed to have the
    annotated shape is turned. Raises SampleError when the file is missing, cannot be decoded, has another shape, or
    has a mode that is not in `modes`.
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

    Palette, grey and 16-bit files give their stored numbers. Colour files give R + 256 G + 65536 B.
    Raises SampleError when the file is missing, broken, of another size than `shape`, or of another mode.
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


def _load(path: Path, sample_id: str, field: str, formats: tuple[str, ...], remedy: str) -> Image.Image:
    if not path.is_file():
        raise SampleError(sample_id, f"{path}: {field} file is missing; {remedy}")
    try:
        # Decoding alone does not compare checksums, so that a flipped bit could change truth unnoticed.
        with Image.open(path, formats=formats) as picture:
            picture.verify()
        with Image.open(path, formats=formats) as picture:
            picture.load()
            return picture
    except _UNREADABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, Image.UnidentifiedImageError):
            reason = f"not a {' or '.join(formats)} file"
        raise SampleError(sample_id, f"{path}: {field} cannot be read ({reason}); {remedy}") from error
