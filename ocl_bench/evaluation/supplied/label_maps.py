"""Label maps from PNG files: segment ids of a whole image, or of the crop that is scored."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...cards.task import TaskSpec
from ...core.errors import SampleError
from ...core.files import check_regular, find_file
from ...core.types import Sample, Truth
from ...data.images import read_mask
from ...data.rims import remark_rims
from ...data.transforms import prepare

REMEDY = "write one id-map PNG for each sample, named <sample id>.png"


EXTENTS = ("whole", "crop")
"""What a mask may show: the whole image, or the crop that the task scores."""


def read_prediction(path: Path, sample: Sample, task: TaskSpec, extent: str | None = None) -> np.ndarray:
    """Segment ids (H, W) int64 of a PNG, at the size at which the task scores.

    Args:
        path: a PNG of that size, or of the size of the whole image. The latter is cropped and resized like the truth.
        sample: the image (or frame) with its truth.
        task: its protocol says what is cropped and at which size it is scored.
        extent: one of `EXTENTS`, or None where the size tells.

    Raises:
        SampleError: for a PNG that is missing, damaged, or of another size; or of one that does not tell its extent.
    """
    raw = sample.truth.labels.shape
    scored = prepare(sample, task.protocol, 8)[1].labels.shape  # 8: side of the image, which is thrown away here
    shape = _png_size(path, sample.id)
    expected = {"whole": [raw], "crop": [scored], None: [raw, scored]}[extent]
    if shape not in expected:
        sizes = " or ".join(f"{width}x{height}" for height, width in dict.fromkeys(expected))
        what = {"whole": "the whole image", "crop": "the scored crop", None: "the whole image or the scored crop"}
        raise SampleError(sample.id, f"{path}: mask is {shape[1]}x{shape[0]}, expected {sizes} ({what[extent]})")
    codes, coloured = read_mask(path, sample.id, shape=shape, remedy=REMEDY)
    codes = codes.astype(np.int64)
    remark_rims(codes, coloured, None, path, path.parent)
    if shape != raw or extent == "crop":
        return codes
    cropped = _crop(codes, path, sample, task)
    if extent is None and shape == scored and not np.array_equal(cropped, codes):
        both = f"{shape[1]}x{shape[0]} is the size of the whole image and of the scored crop"
        raise SampleError(sample.id, f"{path}: {both}; say what the masks show: --extent whole or --extent crop")
    return cropped


def _crop(codes: np.ndarray, path: Path, sample: Sample, task: TaskSpec) -> np.ndarray:
    """A mask of the whole image as the task scores it: the ids take the way of the truth through the protocol."""
    ids, ranks = np.unique(codes, return_inverse=True)  # as ranks, because truth labels are small integers
    if len(ids) > np.iinfo(np.int16).max:
        raise SampleError(sample.id, f"{path}: {len(ids)} segments in one mask; is it an id map?")
    whole = Sample(sample.id, sample.image, Truth(ranks.reshape(codes.shape).astype(np.int32)))
    return np.asarray(ids[prepare(whole, task.protocol, 8)[1].labels])


def _png_size(path: Path, sample_id: str) -> tuple[int, int]:
    """Height and width. Raises SampleError for a file that is not a PNG."""
    from PIL import Image

    try:
        found = find_file(path) or path
        check_regular(found)
        with Image.open(found, formats=("PNG",)) as picture:
            return picture.height, picture.width
    except (OSError, SyntaxError, ValueError) as error:
        raise SampleError(sample_id, f"{path}: is not a readable PNG; {REMEDY}") from error
