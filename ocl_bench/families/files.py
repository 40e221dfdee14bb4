"""Paths of saved outputs, and label maps as PNG files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..core.errors import SampleError, UsageError


def prediction_path(folder: Path, sample_id: str, seed: int, suffix: str = ".png") -> Path:
    """The path `<folder>/seed-<n>/<id><suffix>`. Raises SampleError for an id that would leave the folder."""
    path = Path(f"{sample_id}{suffix}")
    if path.is_absolute() or ".." in path.parts:
        raise SampleError(sample_id, "is not usable as a file name")
    return folder / f"seed-{seed}" / path


def write_label_map(path: Path, labels: np.ndarray) -> None:
    """Write a label map (H, W) of ids >= 0 as PNG.

    The file has 8 bits if all ids fit, else 16 bits, else colours with id = R + 256 G + 65536 B. The reader of masks
    uses the same rule. Raises UsageError for ids of more than 24 bits.
    """
    from PIL import Image

    largest = int(labels.max())
    if largest >= 2**24:
        raise UsageError(f"{path}: segment id {largest} is above {2**24 - 1}, the largest that a PNG can hold")
    path.parent.mkdir(parents=True, exist_ok=True)
    if largest < 2**16:
        pixels = labels.astype(np.uint8 if largest < 2**8 else np.uint16)
    else:
        # The bytes of a little-endian integer are R, G, B and a zero, whatever machine writes them.
        pixels = labels.astype("<u4")[..., None].view(np.uint8)[..., :3]
    Image.fromarray(pixels).save(path)
