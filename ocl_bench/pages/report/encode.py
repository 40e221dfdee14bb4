"""Images and label maps as short texts, which the page unpacks and draws on canvases."""

from __future__ import annotations

import base64
import io
import zlib
from typing import Any

import numpy as np
from PIL import Image

from ...core.errors import UsageError
from ...core.types import OVERLAP
from ...data.transforms import nearest

SIDE = 128
"""Longer side of a picture in pixels."""
QUALITY = 60
"""Of WebP: about 3 kB for a rendered scene of 128 x 128 pixels."""
LARGEST_CODE = 65535


def fitted(shape: tuple[int, ...], side: int = SIDE) -> tuple[int, int]:
    """Height and width of a picture: those of `shape`, with the longer side cut to `side`."""
    height, width = shape[:2]
    scale = min(1.0, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def image_text(image: np.ndarray, shape: tuple[int, int], quality: int = QUALITY) -> str:
    """An image (H, W, 3) uint8 as the base64 text of a WebP file of `shape` (height, width)."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    if (picture.height, picture.width) != shape:
        picture = picture.resize(shape[::-1], Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=quality, method=4)
    return _base64(file.getvalue())


def map_of(codes: np.ndarray, shape: tuple[int, int]) -> dict[str, Any]:
    """Codes (H, W) >= 0, resized by nearest pixel centre to `shape`, row by row, packed by zlib.

    Returns:
        `bytes` of a code (1 or 2, little-endian) and the base64 `text`.

    Raises:
        UsageError: a code is above 65535.
    """
    small = nearest(codes, shape)
    largest = int(small.max(initial=0))
    if largest > LARGEST_CODE:
        raise UsageError(f"label map: {largest} is above {LARGEST_CODE}, the largest code of a picture; renumber")
    size = 1 if largest < 256 else 2
    return {"bytes": size, "text": _base64(zlib.compress(small.astype(f"<u{size}").tobytes(), 9))}


def truth_map(labels: np.ndarray, shape: tuple[int, int]) -> dict[str, Any]:
    """A map of truth labels with void and overlaps: the code of a label is the label + 2."""
    return map_of(labels.astype(np.int32) - OVERLAP, shape)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
