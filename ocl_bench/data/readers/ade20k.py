"""ADE20K SceneParsing-150 (Zhou et al. 2017, arXiv:1608.05442), below <data root>/ADEChallengeData2016 or the root.

    images/{training,validation}/ADE_{train,val}_00000001.jpg
    annotations/{training,validation}/ADE_{train,val}_00000001.png      grey: 0 other, 1..150
    objectInfo150.txt                                                   names of the classes, where it is there

Splits: `train` is training, `val` is validation. Where there are no such folders, the files lie in images/ and
annotations/, and `train` or `val` in their names tells the split. Label 0 is void, 1..150 become classes 0..149; each
class of an image is one object. An image without annotation, or an annotation without image, is a failed sample. The
full data set ADE20K_2021_17_01 has another layout and is not read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...core.errors import DataMissingError, SampleError, UsageError
from ...core.files import find_files, read_text
from ...core.numbers import counted
from ...core.types import Truth
from ..base import OpenData, Request
from ..labels import class_regions
from ..options import check_split
from ..stand_ins.layouts import ensure_layout
from .dense import DenseFiles, DenseReader
from .places import find_root_with

_FOLDERS = {"train": "training", "val": "validation"}
_CLASSES = 150
_NAMES = "objectInfo150.txt"


def open_ade20k(request: Request) -> OpenData:
    """Open one split. Raises UsageError for an unknown split, DataMissingError when the data is not there."""
    check_split(request, "ADE20K", tuple(_FOLDERS))
    if request.root is None:
        tree = ensure_layout(request, "ade20k")
        root = tree.root / "ADEChallengeData2016"
        reader = DenseReader.open(root, "ade20k", list_files(root, request.split), read_truth, None)
        return OpenData(reader, "embedded", tree.revision, root, reader.ids, tree.note, read_names(root))
    root = find_official(request)
    reader = DenseReader.open(
        root, "ade20k", list_files(root, request.split), read_truth, request.limit, tables=[_NAMES]
    )
    note = f"data: ADE20K SceneParsing-150 {request.split}, {counted(len(reader), 'image')} of {root}"
    revision = f"official-{reader.manifest.content}"
    return OpenData(reader, "official", revision, root, reader.ids, note, read_names(root))


def find_official(request: Request) -> Path:
    """The folder of the official files. Raises DataMissingError."""
    return find_root_with(request, ("images", "annotations"))


def list_files(root: Path, split: str) -> list[DenseFiles]:
    """Ids of a split, each with the places of its image and its annotation; one of the two files may be missing."""
    folders = [Path(kind, _FOLDERS[split]) for kind in ("images", "annotations")]
    if not any((root / folder).is_dir() for folder in folders):
        folders = [folder.parent for folder in folders]
    images, annotations = folders
    stems = {path.stem for path in find_files(root / images, f"ADE_{split}_*.jpg")}
    if not stems:
        raise DataMissingError(f"{root / images}: no image ADE_{split}_*.jpg in it; unpack the archive again")
    # An annotation without image is listed too: it then fails as a sample, instead of vanishing from the split.
    stems |= {path.stem for path in find_files(root / annotations, f"ADE_{split}_*.png")}
    return [
        (stem, (images / f"{stem}.jpg").as_posix(), (annotations / f"{stem}.png").as_posix()) for stem in sorted(stems)
    ]


def read_names(root: Path) -> dict[int, str]:
    """Class 0..149 -> name, from objectInfo150.txt; empty without that file.

    Raises UsageError when the file is another table.
    """
    path = root / _NAMES
    if not path.is_file():
        return {}
    try:
        rows = [line.split("\t") for line in read_text(path).splitlines()[1:] if line.strip()]
        return {int(row[0]) - 1: row[-1].strip() for row in rows}
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: is not the table of SceneParsing-150 ({error}); unpack the archive again") from error


def read_truth(codes: np.ndarray, path: Path, sample_id: str) -> Truth:
    """Truth from the numbers (H, W) of an annotation. Raises SampleError for a number above 150."""
    if codes.max(initial=0) > _CLASSES:
        raise SampleError(sample_id, f"{path}: label {codes.max()}, expected 0..{_CLASSES}; is it SceneParsing-150?")
    classes = np.subtract(codes, 1, dtype=np.int16)  # 0 becomes VOID, which is -1
    labels, numbers = class_regions(codes, void=0)
    return Truth(labels, tuple(number - 1 for number in numbers), classes=classes)
