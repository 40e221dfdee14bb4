"""ADE20K SceneParsing-150 (Zhou et al. 2017, arXiv:1608.05442), below <data root>/ADEChallengeData2016 or the root.

    images/{training,validation}/ADE_{train,val}_00000001.jpg
    annotations/{training,validation}/ADE_{train,val}_00000001.png      grey: 0 other, 1..150
    objectInfo150.txt, sceneCategories.txt                              not read

Splits: `train` is training, `val` is validation. Where there are no such folders, all of images/ and annotations/ is
one split. Label 0 is void, 1..150 become classes 0..149. This is not the full ADE20K_2021_17_01.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import DataMissingError, SampleError, UsageError
from ..types import VOID, Truth
from .base import OpenData, Request
from .dense import DenseFiles, DenseReader
from .labels import class_regions
from .layouts import ensure_layout

_FOLDERS = {"train": "training", "val": "validation"}
_CLASSES = 150


def open_ade20k(request: Request) -> OpenData:
    """Open one split. Raises UsageError for a split, DataMissingError for what is not there."""
    if request.split not in _FOLDERS:
        raise UsageError(f"task '{request.task.name}': ADE20K has the splits train and val, not '{request.split}'")
    if request.root is None:
        tree = ensure_layout(request, "ade20k")
        root = tree.root / "ADEChallengeData2016"
        reader = DenseReader.open(root, "ade20k", list_files(root, request.split), read_truth, None)
        return OpenData(reader, "embedded", tree.revision, root, reader.ids, tree.note)
    root = _find_root(request)
    reader = DenseReader.open(root, "ade20k", list_files(root, request.split), read_truth, request.limit)
    note = f"data: ADE20K SceneParsing-150 {request.split}, {len(reader)} images of {root}"
    return OpenData(reader, "official", f"official-{reader.manifest.content}", root, reader.ids, note)


def list_files(root: Path, split: str) -> list[DenseFiles]:
    """Images of a split with the place of their annotation."""
    folder = _FOLDERS[split] if (root / "images" / _FOLDERS[split]).is_dir() else ""
    images = sorted((root / "images" / folder).glob("*.jpg"))
    if not images:
        raise DataMissingError(f"{root / 'images' / folder}: no image (*.jpg) in it")
    place = Path("annotations") / folder
    return [(p.stem, p.relative_to(root).as_posix(), (place / f"{p.stem}.png").as_posix()) for p in images]


def read_truth(codes: np.ndarray, path: Path, sample_id: str) -> Truth:
    """Truth from the numbers of an annotation."""
    if codes.max(initial=0) > _CLASSES:
        raise SampleError(sample_id, f"{path}: label {codes.max()}, expected 0..{_CLASSES}; is it SceneParsing-150?")
    classes = np.where(codes == 0, VOID, codes - 1).astype(np.int16)
    return Truth(*class_regions(classes), classes=classes)


def _find_root(request: Request) -> Path:
    assert request.root is not None
    candidates = (request.root / request.data.folder, request.root)
    for candidate in candidates:
        if (candidate / "images").is_dir() and (candidate / "annotations").is_dir():
            return candidate.resolve()
    raise DataMissingError(
        f"task '{request.task.name}': no folders images and annotations; looked in "
        f"{' and '.join(map(str, candidates))}; get it: {request.data.get}"
    )
