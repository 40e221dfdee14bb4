"""Cityscapes with fine annotations (Cordts et al. 2016, arXiv:1604.01685), below <data root>/cityscapes or the root.

    leftImg8bit/{train,val}/<city>/<city>_<sequence>_<frame>_leftImg8bit.png
    gtFine/{train,val}/<city>/<city>_<sequence>_<frame>_gtFine_labelIds.png
                                                        _gtFine_instanceIds.png     `truth: instances` only
                                                        _gtFine_color.png, _polygons.json                   not read

The 19 classes of the benchmark are numbered 0..18 in the order of their labelId, all other labels are void. Files
`_labelTrainIds.png`, which cityscapesScripts makes, are not needed. The test split has no public annotation. An image
without annotation, or an annotation without image, is a failed sample. Options of a card (`data.options`):

truth  what is one object: `classes`, all pixels of a class in the image, or `instances`, where instance ids tell the
       objects of a class apart (1000 * labelId + k); a class or group without such ids stays one object
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from ...core.errors import DataMissingError, SampleError
from ...core.files import find_files
from ...core.numbers import counted
from ...core.types import VOID, Truth
from ..base import OpenData, Request
from ..labels import Runs
from ..options import check_split, parse_options
from ..stand_ins.layouts import ensure_layout
from .dense import DenseFiles, DenseReader, read_codes
from .places import find_root_with, within

CLASSES = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck",
    28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip
"""labelId -> name of the evaluated classes; class k is entry k of this table."""

_LARGEST_ID = 33
_FIRST_INSTANCE = 1000


class CityscapesOptions(BaseModel):
    """The options of the card, validated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    truth: Literal["classes", "instances"] = "classes"


def open_cityscapes(request: Request) -> OpenData:
    """Open one split. Raises UsageError for an option or a split, DataMissingError when the data is not there."""
    instances = parse_options(CityscapesOptions, request).truth == "instances"
    truth = partial(read_truth, instances=instances)
    names = dict(enumerate(CLASSES.values()))
    check_split(request, "Cityscapes", ("train", "val"))
    if request.root is None:
        tree = ensure_layout(request, "cityscapes")
        reader = DenseReader.open(tree.root, "cityscapes", list_files(tree.root, request.split), truth, None)
        return OpenData(reader, "embedded", tree.revision, tree.root, reader.ids, tree.note, names)
    root = find_root_with(request, ("leftImg8bit", "gtFine"))
    files = list_files(root, request.split)
    more = _instance_file if instances else None
    reader = DenseReader.open(root, "cityscapes", files, truth, request.limit, more=more)
    note = f"data: Cityscapes fine {request.split}, {counted(len(reader), 'image')} of {root}"
    return OpenData(reader, "official", f"official-{reader.manifest.content}", root, reader.ids, note, names)


def list_files(root: Path, split: str) -> list[DenseFiles]:
    """Ids `<city>_<sequence>_<frame>` of a split, each with the places of image and annotation; one may be missing."""
    places = (within(root, kind, Path.is_dir) or root / kind for kind in ("leftImg8bit", "gtFine"))
    folders = [(place / split).relative_to(root).as_posix() for place in places]
    suffixes = ("_leftImg8bit.png", "_gtFine_labelIds.png")
    images, labels = (
        {f"{path.parent.name}/{path.name[: -len(suffix)]}" for path in find_files(root / folder, f"*/[!.]*{suffix}")}
        for folder, suffix in zip(folders, suffixes, strict=True)
    )
    if not images:
        raise DataMissingError(f"{root / folders[0]}: no image <city>/*{suffixes[0]} in it; unpack the archive again")
    rows = []
    for stem in sorted(images | labels):
        image, label = (f"{folder}/{stem}{suffix}" for folder, suffix in zip(folders, suffixes, strict=True))
        rows.append((Path(stem).name, image, label))
    return rows


def _instance_file(labels: str) -> str:
    """The file of the instance ids that belongs to a file of labelIds."""
    return labels.removesuffix("_labelIds.png") + "_instanceIds.png"


def read_truth(codes: np.ndarray, path: Path, sample_id: str, *, instances: bool = False) -> Truth:
    """Truth from the labelIds of an image; classes that are not evaluated are void.

    Args:
        codes: (H, W) labelIds 0..33, or 255 for -1 (licence plate), as a PNG stores it.
        path: the file of the labelIds, for messages; the instance ids lie in a file beside it.
        sample_id: for messages.
        instances: whether instance ids tell the objects of a class apart.

    Raises:
        SampleError: there are other numbers, or the instance ids contradict the labelIds.
    """
    maps = [codes]
    if instances:
        place = Path(_instance_file(str(path)))
        maps.append(read_codes(place, sample_id, codes.shape))
    runs = Runs.of(*maps)
    labels = runs.values[0]
    wrong = labels[(labels > _LARGEST_ID) & (labels != 255)]
    if wrong.size:
        raise SampleError(sample_id, f"{path}: label {wrong.max()}, expected labelIds 0..{_LARGEST_ID}")
    table = np.full(256, VOID, dtype=np.int16)
    table[list(CLASSES)] = np.arange(len(CLASSES))
    classes = table[labels]
    known = classes != VOID
    objects = classes
    if instances:
        objects = runs.values[1]
        # Ids below 1000 are labelIds: of a class without instances, or of a group that annotators did not separate.
        differ = known & (np.where(objects < _FIRST_INSTANCE, objects, objects // _FIRST_INSTANCE) != labels)
        if differ.any():
            text = f"instance id {objects[differ][0]} where {path.name} has label {labels[differ][0]}"
            raise SampleError(sample_id, f"{place}: {text}; unpack the archive again")
    present, first = np.unique(objects[known], return_index=True)
    ranks = np.where(known, np.searchsorted(present, objects) + 1, VOID).astype(np.int16)
    categories = tuple(int(kind) for kind in classes[known][first])
    return Truth(runs.drawn(ranks), categories, classes=runs.drawn(classes))
