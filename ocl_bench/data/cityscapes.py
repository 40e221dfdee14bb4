"""Cityscapes with fine annotations (Cordts et al. 2016, arXiv:1604.01685), below <data root>/cityscapes or the root.

    leftImg8bit/{train,val}/<city>/<city>_<sequence>_<frame>_leftImg8bit.png
    gtFine/{train,val}/<city>/<city>_<sequence>_<frame>_gtFine_labelIds.png
                                                        _gtFine_instanceIds.png, _color.png, _polygons.json   not read

The 19 classes of the benchmark are numbered 0..18 in the order of their labelId, all other labels are void. Files
`_labelTrainIds.png`, which cityscapesScripts makes, are not needed. The test split has no public annotation.
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

LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""labelId of each evaluated class."""

_LARGEST_ID = 33


def open_cityscapes(request: Request) -> OpenData:
    """Open one split. Raises UsageError for a split, DataMissingError for what is not there."""
    if request.split not in ("train", "val"):
        raise UsageError(f"task '{request.task.name}': Cityscapes has the splits train and val, not '{request.split}'")
    if request.root is None:
        tree = ensure_layout(request, "cityscapes")
        reader = DenseReader.open(tree.root, "cityscapes", list_files(tree.root, request.split), read_truth, None)
        return OpenData(reader, "embedded", tree.revision, tree.root, reader.ids, tree.note)
    root = _find_root(request)
    reader = DenseReader.open(root, "cityscapes", list_files(root, request.split), read_truth, request.limit)
    note = f"data: Cityscapes fine {request.split}, {len(reader)} images of {root}"
    return OpenData(reader, "official", f"official-{reader.manifest.content}", root, reader.ids, note)


def list_files(root: Path, split: str) -> list[DenseFiles]:
    """Images of a split with the place of their annotation; the id is `<city>_<sequence>_<frame>`."""
    suffix = "_leftImg8bit.png"
    images = sorted((root / "leftImg8bit" / split).glob(f"*/*{suffix}"))
    if not images:
        raise DataMissingError(f"{root / 'leftImg8bit' / split}: no image <city>/*{suffix} in it")
    rows = []
    for path in images:
        name, city = path.name.removesuffix(suffix), path.parent.name
        rows.append((name, path.relative_to(root).as_posix(), f"gtFine/{split}/{city}/{name}_gtFine_labelIds.png"))
    return rows


def read_truth(codes: np.ndarray, path: Path, sample_id: str) -> Truth:
    """Truth from labelIds; -1 (licence plate), which a PNG stores as 255, is void."""
    if ((codes > _LARGEST_ID) & (codes != 255)).any():
        worst = int(codes[codes != 255].max())
        raise SampleError(sample_id, f"{path}: label {worst}, expected labelIds 0..{_LARGEST_ID}")
    table = np.full(256, VOID, dtype=np.int16)
    table[list(LABEL_IDS)] = np.arange(len(LABEL_IDS))
    classes = table[codes]
    return Truth(*class_regions(classes), classes=classes)


def _find_root(request: Request) -> Path:
    assert request.root is not None
    candidates = (request.root / request.data.folder, request.root)
    for candidate in candidates:
        if (candidate / "leftImg8bit").is_dir() and (candidate / "gtFine").is_dir():
            return candidate.resolve()
    raise DataMissingError(
        f"task '{request.task.name}': no folders leftImg8bit and gtFine; looked in "
        f"{' and '.join(map(str, candidates))}; get it: {request.data.get}"
    )
