"""The reader of images with one PNG of class numbers each, for ADE20K and Cityscapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...core.errors import SampleError
from ...core.types import Sample, Truth
from ..base import SampleSequence
from ..images import read_image, read_mask
from ..index import Manifest, open_index, read_row, take_manifest

if TYPE_CHECKING:
    import pyarrow

DenseFiles = tuple[str, str, str]
"""Sample id, path of the image and path of its annotation, both relative to the root."""

_REMEDY = "unpack the archive again"


@dataclass(frozen=True)
class DenseReader(SampleSequence[Sample]):
    """Samples whose truth is a map of classes.

    index: Arrow index with the columns id, image and mask. truth: makes the truth of a sample from the class numbers
    (H, W), the file they come from, and the sample id.
    """

    root: Path
    ids: tuple[str, ...]
    index: pyarrow.Table
    manifest: Manifest
    truth: Callable[[np.ndarray, Path, str], Truth]

    @classmethod
    def open(
        cls,
        root: Path,
        name: str,
        files: Sequence[DenseFiles],
        truth: Callable[[np.ndarray, Path, str], Truth],
        limit: int | None,
        *,
        more: Callable[[str], str] | None = None,
        tables: Sequence[str] = (),
    ) -> DenseReader:
        """Index the first `limit` of these files under `name`; no pixel is read.

        more: path of a second annotation, which `truth` reads, from that of the first. tables: of the whole data set.
        """
        ids, images, masks = (list(column) for column in zip(*files[:limit], strict=True))
        manifest = take_manifest(root, images, [*masks, *(map(more, masks) if more else ()), *tables])
        index = open_index(name, {"id": ids, "image": images, "mask": masks}, manifest)
        return cls(root, tuple(ids), index, manifest, truth)

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`. Raises SampleError when a file is missing, broken, in colour, or of another size."""
        row = read_row(self.index, range(len(self))[index])
        image = read_image(self.root / row["image"], row["id"], remedy=_REMEDY)
        path = self.root / row["mask"]
        codes = read_codes(path, row["id"], image.shape)
        return Sample(row["id"], image, self.truth(codes, path, row["id"]))


def read_codes(path: Path, sample_id: str, shape: tuple[int, ...]) -> np.ndarray:
    """The numbers (H, W) of a PNG, in its own type.

    Raises SampleError when the file is missing or broken, is in colour, or has another size than `shape`.
    """
    codes, coloured = read_mask(path, sample_id, shape=shape, remedy=_REMEDY)
    # Colours are refused and not translated: whoever saved them may have blended them at the borders of classes.
    if coloured:
        message = "is in colour, expected class numbers; was it re-saved? unpack the archive again"
        raise SampleError(sample_id, f"{path}: {message}")
    return codes
