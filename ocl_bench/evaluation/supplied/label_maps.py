"""Label maps that others wrote: PNGs of segment ids, of a whole image or of the crop that is scored."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...cards.task import TaskSpec
from ...core.errors import SampleError
from ...core.types import Sample, Truth
from ...data.images import read_mask
from ...data.transforms import prepare

REMEDY = "write one id-map PNG for each sample, named <sample id>.png"


def read_prediction(path: Path, sample: Sample, task: TaskSpec) -> np.ndarray:
    """Segment ids (H, W) int64 of a PNG at the size on which the task scores. Raises SampleError.

    The PNG has that size, or that of the whole image.
    """
    raw = sample.truth.labels.shape
    scored = prepare(sample, task.protocol, 8)[1].labels.shape
    shape = _png_size(path, sample.id)
    if shape not in (raw, scored):
        sizes = " or ".join(f"{width}x{height}" for height, width in dict.fromkeys([raw, scored]))
        raise SampleError(
            sample.id, f"{path}: mask is {shape[1]}x{shape[0]}, expected {sizes} (the whole image or the scored crop)"
        )
    codes, _ = read_mask(path, sample.id, shape=shape, remedy=REMEDY)
    if shape == scored:
        return codes
    ids, ranks = np.unique(codes, return_inverse=True)  # label maps hold 16 bits, ids may be larger
    if len(ids) > np.iinfo(np.int16).max:
        raise SampleError(sample.id, f"{path}: {len(ids)} segments in one mask; is it an id map?")
    whole = Sample(sample.id, sample.image, Truth(ranks.reshape(shape).astype(np.int32)))
    return np.asarray(ids[prepare(whole, task.protocol, 8)[1].labels])


def _png_size(path: Path, sample_id: str) -> tuple[int, int]:
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG",)) as picture:
            return picture.height, picture.width
    except (OSError, SyntaxError, ValueError) as error:
        raise SampleError(sample_id, f"{path}: is not a readable PNG; {REMEDY}") from error
