"""Where the outputs of an evaluation are kept, and label maps as PNG files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import SampleError


def prediction_path(folder: Path, sample_id: str, seed: int, suffix: str = ".png") -> Path:
    """`<folder>/seed-<n>/<id><suffix>`. Raises SampleError for an id that would leave the folder."""
    path = Path(f"{sample_id}{suffix}")
    if path.is_absolute() or ".." in path.parts:
        raise SampleError(sample_id, "is not usable as a file name")
    return folder / f"seed-{seed}" / path


def write_label_map(path: Path, labels: np.ndarray) -> None:
    """Write ids as PNG, 8 bit where they fit, else 16 bit."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels.astype(np.uint8 if labels.max() < 256 else np.uint16)).save(path)
