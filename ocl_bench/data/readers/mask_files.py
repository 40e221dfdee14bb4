"""Masks as people save them: PNG, arrays of NumPy, and run-length codes in JSON.

.png          palette, grey, 16-bit or RGB, see `read_mask`
.npy, .npz    (H, W) integers or booleans, or (N, H, W) booleans, one layer for each object; an .npz with one array, or
              with one called mask, masks, labels or segmentation
.json         one run-length code {"size": [H, W], "counts": ..} for each object, in a list; an entry may also hold it
              in its field `segmentation`, as Segment Anything and COCO write it, and the list may be the field
              `annotations`, as in the files of SA-1B; or the shapes of an image that LabelMe saved, see `_from_labelme`

JPEG is refused: it blurs the numbers at the borders of objects. So are objects that overlap in layers or codes, as one
number stands for each pixel.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ...core.errors import SampleError
from ...core.files import check_regular, find_file, parse_json, read_text
from ...core.numbers import counted, finite_numbers
from ...metrics.ignored import IGNORED
from ..images import LARGEST_IMAGE, one_line, read_mask
from ..labels import FARTHEST, run_length
from .frames import MASKS

MASK_FILES = (*MASKS, ".npy", ".npz", ".json")
"""Suffixes of masks."""

_BLURRED = (".jpg", ".jpeg")
_NAMES = ("mask", "masks", "labels", "segmentation")
_BYTES = 8 * LARGEST_IMAGE


def read_mask_file(path: Path, sample_id: str, *, shape: tuple[int, ...], remedy: str) -> tuple[np.ndarray, bool]:
    """A mask as (H, W) codes, and whether these codes are colours; for the arguments see `read_mask`.

    Raises:
        SampleError: the file is missing, broken, a JPEG, or has another size than `shape`.
    """
    kind = path.suffix.lower()
    if kind in _BLURRED:
        text = "is a JPEG, which blurs the numbers at the borders of objects; save masks as PNG, NPY or NPZ"
        raise SampleError(sample_id, f"{path}: {text}")
    if kind not in MASK_FILES or kind in MASKS:
        return read_mask(path, sample_id, shape=shape, remedy=remedy)
    found = find_file(path)
    if found is None:
        raise SampleError(sample_id, f"{path}: mask file is missing; {remedy}")
    try:
        check_regular(found)
        return (_from_json(found, shape) if kind == ".json" else _from_array(found, shape)), False
    # NumPy and zipfile raise errors of many kinds for damaged files.
    except (OSError, ValueError, TypeError, KeyError, SyntaxError, EOFError, zipfile.BadZipFile) as error:
        raise SampleError(sample_id, f"{path}: mask cannot be read ({one_line(error)}); {remedy}") from error


def _from_array(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The codes of an .npy or .npz file. Raises ValueError, as NumPy does for a file with Python objects."""
    with path.open("rb") as file:
        _check_size(path.stat().st_size)
        content = np.load(file, allow_pickle=False)  # pickles run code
        if isinstance(content, np.ndarray):
            return _codes(content, shape)
        names = content.files
        name = names[0] if len(names) == 1 else next((name for name in _NAMES if name in names), None)
        if name is None:
            raise ValueError(f"it has the arrays {', '.join(names) or 'none'}; call one of them mask")
        _check_size(content.zip.getinfo(f"{name}.npy").file_size)
        return _codes(content[name], shape)


def _check_size(size: int) -> None:
    if size > _BYTES:
        raise ValueError(f"it has {size} bytes, at most {_BYTES} are read")


def _codes(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The codes of a map, or of a stack of layers."""
    if array.dtype.kind not in "biu":
        raise ValueError(f"its numbers are {array.dtype}, expected whole numbers or booleans")
    if array.ndim == 3 and array.shape[2] == 1 and array.shape[:2] == tuple(shape[:2]):
        array = array[..., 0]
    if array.shape[-2:] != tuple(shape[:2]) or array.ndim not in (2, 3):
        raise ValueError(f"its shape is {array.shape}, its image has {tuple(shape[:2])}")
    if array.ndim == 2:
        return np.asarray(array).astype(np.int64)
    if array.dtype != bool:
        raise ValueError(f"its shape is {array.shape}; layers must be booleans, one for each object")
    return _joined(np.asarray(array))


def _from_json(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The codes of a list of run-length codes."""
    from pycocotools import mask as rle

    content = parse_json(read_text(path))
    if isinstance(content, dict) and "shapes" in content:
        return _from_labelme(content, shape)
    if isinstance(content, dict):
        content = content.get("annotations", content)
    entries = content if isinstance(content, list) else [content]
    codes: list[Any] = []
    for entry in entries:
        inner = entry.get("segmentation", entry) if isinstance(entry, dict) else entry
        code = run_length(inner, (shape[0], shape[1]))
        if code is None:
            raise ValueError("an entry has no run-length code")
        codes.append(code)
    if not codes:
        return np.zeros(shape[:2], np.int64)
    return _joined(np.stack([rle.decode(code) for code in codes]).astype(bool))


def _from_labelme(content: dict[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    """The codes of LabelMe's shapes: 1, 2, .. in the order of the file, 255 for `__ignore__`.

    As in `shapes_to_label` of its code (from memory), a later shape covers an earlier one, and shapes with the same
    label and `group_id` are one object. Raises ValueError for lines, points and brushed masks.
    """
    size = (content.get("imageHeight"), content.get("imageWidth"))
    if size not in (tuple(shape[:2]), (None, None)):
        raise ValueError(f"its shapes are of an image of {size[1]}x{size[0]}, the image has {shape[1]}x{shape[0]}")
    canvas = Image.new("I", (shape[1], shape[0]))
    draw, objects = ImageDraw.Draw(canvas), list[tuple[Any, Any]]()
    for position, one in enumerate(content["shapes"]):
        group = one.get("group_id")
        name = (one["label"], ("shape", position) if group is None else group)
        if name[0] != "__ignore__" and name not in objects:
            objects.append(name)
        _draw(draw, one, IGNORED if name[0] == "__ignore__" else objects.index(name) + 1)
    if len(objects) >= IGNORED:
        raise ValueError(f"it has {len(objects)} objects, at most {IGNORED - 1} are read; save the mask as NPY")
    return np.asarray(canvas).astype(np.int64)


def _draw(draw: ImageDraw.ImageDraw, one: dict[str, Any], code: int) -> None:
    """Draw one shape of LabelMe with its border."""
    kind = one.get("shape_type") or "polygon"
    points = [tuple(finite_numbers("points", point)) for point in one["points"]]
    if any(len(point) != 2 or max(map(abs, point)) > FARTHEST for point in points):
        raise ValueError(f"a point of '{one['label']}' is not x, y of at most {FARTHEST:,}")
    if kind == "polygon" and len(points) > 2:
        draw.polygon(points, fill=code, outline=code)
    elif kind == "rectangle" and len(points) == 2:
        (left, right), (top, bottom) = (sorted(values) for values in zip(*points, strict=True))
        draw.rectangle((left, top, right, bottom), fill=code, outline=code)
    elif kind == "circle" and len(points) == 2:
        (x, y), radius = points[0], math.dist(*points)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=code, outline=code)
    else:
        text = f"'{one['label']}' is a {kind} of {counted(len(points), 'point')}"
        raise ValueError(f"{text}; only polygons, rectangles and circles are read: draw it as one, or save a PNG")


def _joined(layers: np.ndarray) -> np.ndarray:
    """Codes (H, W) of layers (N, H, W): 1, 2, .. in their order, 0 where there is none."""
    claims = layers.sum(0)
    if (claims > 1).any():
        number = int((claims > 1).sum())
        raise ValueError(f"{number} pixels belong to several objects; give each pixel one object, or write a COCO file")
    numbers = np.arange(1, len(layers) + 1)[:, None, None]
    codes: np.ndarray = (layers * numbers).sum(0).astype(np.int64)
    return codes
