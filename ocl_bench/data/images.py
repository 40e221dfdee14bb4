"""Read image files as arrays. A missing or broken file becomes a SampleError of one line that names it."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps

from ..core.errors import SampleError
from ..core.files import find_file
from ..core.log import warn_once

IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
"""Formats of images by Pillow's names, whatever the suffix of the file. Masks are PNG."""

UNREADABLE = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError),
    *(KeyError, IndexError, TypeError, OverflowError, RuntimeError),
)
"""What Pillow raises for damaged files: its decoders let errors of other modules through."""

LARGEST_IMAGE = 64_000_000
"""Most pixels of an image; the largest image of ImageNet has 61 million."""
_ORIENTATION = 0x0112
"""Number of the EXIF tag."""

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

    A picture that its EXIF orientation would turn, but that is read as stored, is said once for each data set.

    Args:
        path: a file of one of `IMAGE_FORMATS`; its suffix may also be in capitals or small letters on the disk.
        sample_id: for error messages.
        modes: Pillow modes that are accepted; None accepts all.
        shape: (H, W) of the annotation. Pixels are taken as stored, and turned by the EXIF orientation only when the
            image has the annotated shape after that.
        remedy: what the user can do; it ends each message.

    Raises:
        SampleError: the file is missing, cannot be decoded, or has another shape or mode.
    """
    picture = _load(path, sample_id, "image", IMAGE_FORMATS, remedy)
    return _image(picture, path, sample_id, modes, shape, remedy)


def decode_image(
    content: bytes, where: Path, sample_id: str, *, shape: tuple[int, int] | None = None, remedy: str
) -> np.ndarray:
    """The same as `read_image` for the bytes of an image file that lies inside another file, `where`."""
    picture = _decode(content, where, sample_id, "image", IMAGE_FORMATS, remedy)
    return _image(picture, where, sample_id, None, shape, remedy)


def _image(
    picture: Image.Image,
    path: Path,
    sample_id: str,
    modes: frozenset[str] | None,
    shape: tuple[int, int] | None,
    remedy: str,
) -> np.ndarray:
    """The pixels of a decoded picture, for the arguments see `read_image`."""
    if modes is not None and picture.mode not in modes:
        raise SampleError(sample_id, f"{path}: image mode '{picture.mode}', expected {' or '.join(sorted(modes))}")
    if shape is None or (picture.height, picture.width) == shape:
        remark_orientation(picture, path)
    else:
        turned = ImageOps.exif_transpose(picture)
        if (turned.height, turned.width) != shape:
            sizes = f"{picture.width}x{picture.height}, its annotation {shape[1]}x{shape[0]}"
            raise SampleError(sample_id, f"{path}: image size {sizes}; {remedy}")
        picture = turned
    try:
        return to_rgb(picture)
    except ValueError as error:
        raise SampleError(sample_id, f"{path}: image cannot be read ({one_line(error)}); {remedy}") from error


def to_rgb(picture: Image.Image) -> np.ndarray:
    """The pixels of a decoded picture as (H, W, 3) uint8. 16-bit grey is divided by 257, so that 65535 becomes 255.

    Raises ValueError for grey values of more than 16 bits or with fractions, whose range nothing tells.
    """
    # Pillow's own conversion of these modes cuts off at 255: nearly every pixel would be white. Older versions of it
    # open a 16-bit PNG in mode I.
    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PNG"):
        grey = ((np.asarray(picture).astype(np.int64) + 128) // 257).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if picture.mode in ("I", "F"):
        raise ValueError(f"grey values of 32 bits, mode '{picture.mode}'; save it with 8 or 16 bits")
    return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))


def remark_orientation(picture: Image.Image, path: Path) -> None:
    """Warn, once for the folder above that of `path`, when the EXIF orientation of a picture is not applied to it."""
    try:
        orientation = picture.getexif().get(_ORIENTATION, 1)
    except UNREADABLE:  # a damaged EXIF section says nothing about the pixels
        return
    if orientation in range(2, 9):
        folder = path.parent.parent
        warn_once(
            "orientation",
            folder,
            f"{path}: its EXIF orientation ({orientation}) is not applied, pixels are read as stored; where masks or "
            f"boxes are drawn upright, store the picture upright too (said once for {folder})",
        )


def read_mask(path: Path, sample_id: str, *, shape: tuple[int, ...], remedy: str) -> tuple[np.ndarray, bool]:
    """A mask as (H, W) codes, and whether these codes are colours.

    Palette, grey and 16-bit files give their stored numbers in the type of the file, which may be unsigned; colour
    files give R + 256 G + 65536 B, int64.

    Args:
        path: a PNG file.
        sample_id: for error messages.
        shape: (H, W) or (H, W, 3) of the image, which the mask must have too.
        remedy: what the user can do; it ends each message.

    Raises:
        SampleError: the file is missing or broken, or has another size or mode.
    """
    return _mask(_load(path, sample_id, "mask", ("PNG",), remedy), path, sample_id, shape, remedy)


def decode_mask(
    content: bytes, where: Path, sample_id: str, *, shape: tuple[int, ...], remedy: str
) -> tuple[np.ndarray, bool]:
    """The same as `read_mask` for the bytes of a mask that lies inside another file, `where`."""
    return _mask(_decode(content, where, sample_id, "mask", ("PNG",), remedy), where, sample_id, shape, remedy)


def _mask(
    picture: Image.Image, path: Path, sample_id: str, shape: tuple[int, ...], remedy: str
) -> tuple[np.ndarray, bool]:
    """The codes of a decoded mask, for the arguments see `read_mask`."""
    if picture.mode not in _INDEX_MODES | _COLOUR_MODES:
        raise SampleError(sample_id, f"{path}: mask mode '{picture.mode}'; store a palette, grey or RGB PNG")
    if (picture.height, picture.width) != tuple(shape[:2]):
        sizes = f"{picture.width}x{picture.height}, its image {shape[1]}x{shape[0]}"
        raise SampleError(sample_id, f"{path}: mask size {sizes}; {remedy}")
    array = np.asarray(picture)
    if picture.mode not in _COLOUR_MODES:
        return array.astype(np.uint8) if array.dtype == bool else array, False
    array = array.astype(np.int64)
    codes = array[..., 0] + 256 * array[..., 1] + 65536 * array[..., 2]
    if picture.mode == "RGBA" and len(np.unique(codes + (array[..., 3] << 24))) > len(np.unique(codes)):
        text = "pixels of one colour differ in alpha; store the ids in red, green and blue, or in one channel"
        raise SampleError(sample_id, f"{path}: mask has ids in alpha, which is not read: {text}")
    return codes, True


def decode_numbers(content: bytes, where: Path, sample_id: str, *, shape: tuple[int, ...], remedy: str) -> np.ndarray:
    """The numbers (H, W) of a map that OpenCV wrote, PNG or lossless WebP, which has no mode for grey.

    Raises SampleError as `read_mask` does, and for a map in colour.
    """
    picture = _decode(content, where, sample_id, "mask", ("PNG", "WEBP"), remedy)
    if picture.mode == "RGB":
        red, green, blue = picture.split()
        picture = red if red.tobytes() == green.tobytes() == blue.tobytes() else picture
    codes, coloured = _mask(picture, where, sample_id, shape, remedy)
    if coloured:
        raise SampleError(sample_id, f"{where}: the mask is in colour, expected a map of numbers; {remedy}")
    return codes


def check_pixels(picture: Image.Image) -> None:
    """Raise ValueError for an image that would take too much memory, as its head says, and for several in one file."""
    if picture.width * picture.height > LARGEST_IMAGE:
        size = f"{picture.width}x{picture.height} pixels"
        raise ValueError(f"{size}, of which at most {LARGEST_IMAGE / 1e6:g} million are read; make it smaller")
    # The first of several pages may be a small copy, or one of many frames. (A JPEG may hold a preview beside itself.)
    if picture.format in ("TIFF", "WEBP", "PNG") and (pages := getattr(picture, "n_frames", 1)) > 1:
        raise ValueError(f"it holds {pages} pictures, expected one")


def one_line(error: Exception) -> str:
    """The text of an error on one line; the name of its class where it has no text."""
    return " ".join(str(error).split()) or type(error).__name__


def _load(path: Path, sample_id: str, field: str, formats: tuple[str, ...], remedy: str) -> Image.Image:
    """The decoded file. `field`: what messages call it, "image" or "mask"."""
    found = find_file(path)
    if found is None:
        raise SampleError(sample_id, f"{path}: {field} file is missing; {remedy}")
    return _decode(found, found, sample_id, field, formats, remedy)


def _decode(
    source: Path | bytes, path: Path, sample_id: str, field: str, formats: tuple[str, ...], remedy: str
) -> Image.Image:
    """The picture in a file or in the bytes of one. path: what messages call it."""

    def opened() -> Any:
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats)

    try:
        with opened() as picture:
            # Decoding alone does not compare checksums: a flipped bit could change truth unnoticed. Other formats have
            # none. verify() says what is wrong, and after it Pillow cannot decode the same object.
            if picture.format != "PNG" or _intact(picture.fp):
                return _decoded(picture)
            picture.verify()
        with opened() as picture:
            return _decoded(picture)
    except UNREADABLE as error:
        reason = one_line(error)
        if isinstance(error, Image.UnidentifiedImageError):
            reason = f"not a {' or '.join(formats)} file"
        raise SampleError(sample_id, f"{path}: {field} cannot be read ({reason}); {remedy}") from error


def _intact(file: IO[bytes]) -> bool:
    """Whether the checksum of each chunk of an open PNG file agrees. The place in the file is left as it was."""
    place = file.tell()
    file.seek(8)  # the signature
    try:
        kind = b""
        while kind != b"IEND":
            length, kind = struct.unpack(">I4s", file.read(8))
            checksum = zlib.crc32(file.read(length), zlib.crc32(kind))
            if not kind.isalpha() or file.read(4) != checksum.to_bytes(4, "big"):
                return False
    except struct.error:  # cut
        return False
    finally:
        file.seek(place)
    return True


def _decoded(picture: Image.Image) -> Image.Image:
    """The picture with its pixels."""
    check_pixels(picture)
    picture.load()
    return picture
