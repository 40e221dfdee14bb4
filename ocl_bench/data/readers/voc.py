"""PASCAL VOC 2012 and 2007 as people unpack them (Everingham et al. 2010), with SBD (Hariharan et al. 2011).

    VOCdevkit/VOC<year>/JPEGImages/<id>.jpg
                        SegmentationClass/<id>.png       palette: 0 background, 1..20, 255 void
                        SegmentationObject/<id>.png      palette: 0 background, 1.. objects (gaps allowed), 255 void
                        Annotations/<id>.xml             read only for `boxes: annotations`
                        ImageSets/Segmentation/{train,val,trainval}.txt
    SBD, for `trainaug` (10,582 images), one of
                        VOC2012/SegmentationClassAug/<id>.png and ImageSets/Segmentation/{trainaug,train_aug,aug}.txt
                        benchmark_RELEASE/dataset/{cls,inst}/<id>.mat, {train,val}.txt beside or inside VOCdevkit

The data root is the folder that holds VOCdevkit, VOCdevkit itself, or VOC<year> itself. Options of a card:

year   2012 or 2007
truth  `instances` or `classes`: the masks that must be there (masks of the other kind are used where they exist)
boxes  `masks`: boxes of instances are those around the masks; `annotations`: VOC's own, clipped at the image, each with
       the mask of the same class that fits it best; `difficult` ones count neither for nor against a detector,
       `truncated` ones count like all others

Splits: those of ImageSets/Segmentation; `trainaug` (VOC's own masks where VOC has them, else SBD's, which no other
split uses); `all-masks`, every file of SegmentationObject, whatever the lists say (DIAS). An object has the class of
most of its pixels. Masks are read as palette numbers, 255 is void. A mask that was re-saved in colour is refused: its
colours may have been blended.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from pydantic import BaseModel, ConfigDict

from ...core.errors import DataMissingError, SampleError, UsageError
from ...core.files import check_regular, find_file, find_files
from ...core.numbers import counted
from ...core.types import VOID, Instance, Sample, Truth
from ..base import OpenData, Request, SampleSequence
from ..images import one_line, read_image, read_mask
from ..index import Manifest, open_index, read_row, take_manifest
from ..labels import Runs, region_codes
from ..options import first_repeated, parse_options, read_lines
from ..stand_ins.layouts import ensure_layout
from .places import find_root
from .voc_boxes import join_masks, read_boxes

if TYPE_CHECKING:
    import pyarrow

_REMEDY = "unpack the archive again, or take the image out of the list"
_VOID_CODE = 255
_TRUTHS = {"instances": ("objects", "SegmentationObject"), "classes": ("classes", "SegmentationClass")}
"""What a card may ask for -> column of the index and folder."""
_AUGMENTED = ("trainaug.txt", "train_aug.txt")
"""Names of the list of `trainaug`: code that converts SBD writes one or the other."""

CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


class VocOptions(BaseModel):
    """The options of the card, validated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    year: Literal[2007, 2012] = 2012
    truth: Literal["instances", "classes"] = "instances"
    boxes: Literal["masks", "annotations"] = "masks"


def open_voc(request: Request) -> OpenData:
    """Open one split. Raises UsageError for an option or a split, DataMissingError when the data is not there."""
    options = parse_options(VocOptions, request)
    if request.root is None:
        tree = ensure_layout(request, f"voc{options.year}")
        root = tree.root / "VOCdevkit" / f"VOC{options.year}"
        reader = VocReader.open(root, request.split, options, None)
        return OpenData(reader, "embedded", tree.revision, root, reader.ids, tree.note, reader.categories)
    root = find_official(request)
    reader = VocReader.open(root, request.split, options, request.limit)
    note = f"data: PASCAL VOC {options.year} {request.split}, {counted(len(reader), 'image')} of {root}"
    revision = f"official-{reader.manifest.content}"
    return OpenData(reader, "official", revision, root, reader.ids, note, reader.categories)


@dataclass(frozen=True)
class VocReader(SampleSequence[Sample]):
    """The images of one split.

    index: Arrow index with the columns id, image, classes and objects (paths, '' for no mask).
    """

    root: Path
    ids: tuple[str, ...]
    index: pyarrow.Table
    manifest: Manifest
    options: VocOptions

    @property
    def categories(self) -> dict[int, str]:
        """Category id -> name."""
        return dict(enumerate(CLASSES[1:], start=1))

    @classmethod
    def open(cls, root: Path, split: str, options: VocOptions, limit: int | None) -> VocReader:
        """List the first `limit` images of a split and the files of their masks; no pixel is read."""
        if split == "trainaug" and options.year != 2012:
            raise UsageError(f"split 'trainaug': SBD extends VOC2012, not VOC{options.year}; choose another split")
        ids = list_ids(root, split)[:limit]
        if not ids:
            raise DataMissingError(f"{root}: split '{split}' names no image; see `ocl-bench show voc-discovery`")
        sbd = _find_sbd(root) if split == "trainaug" else None
        files = [_files(root, name, sbd, split == "trainaug") for name in ids]
        kind, folder = _TRUTHS[options.truth]
        if not (root / folder).is_dir() and not any(entry[kind] for entry in files):
            raise DataMissingError(f"{root / folder}: there is no such folder; unpack the archive again")
        columns = {"id": ids, **{key: [entry[key] for entry in files] for key in ("image", "classes", "objects")}}
        annotations = [name for key in ("classes", "objects") for name in columns[key] if name]
        if options.boxes == "annotations":
            annotations += [f"Annotations/{name}.xml" for name in ids]
        manifest = take_manifest(root, columns["image"], annotations)
        return cls(root, tuple(ids), open_index(f"voc{options.year}-{split}", columns, manifest), manifest, options)

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`. Raises SampleError when a file is missing, broken, in colour, or of another size."""
        row = read_row(self.index, range(len(self))[index])
        image = read_image(self.root / row["image"], row["id"], remedy=_REMEDY)
        shape = image.shape[:2]
        kind, name = _TRUTHS[self.options.truth]
        if not row[kind]:
            raise SampleError(row["id"], f"{self.root / name}: mask file is missing; {_REMEDY}")
        masks = {key: self._mask(row, key, shape) for key in ("objects", "classes") if row[key]}
        runs = Runs.of(*masks.values())
        numbers = {key: self._numbers(row, key, codes) for key, codes in zip(masks, runs.values, strict=True)}
        truth = _truth(runs, numbers.get("objects"), numbers.get("classes"))
        if self.options.boxes == "annotations":
            path = self.root / "Annotations" / f"{row['id']}.xml"
            boxes = read_boxes(path, row["id"], shape, CLASSES)
            truth = replace(truth, instances=join_masks(boxes, truth.instances))
        return Sample(row["id"], image, truth)

    def _mask(self, row: dict[str, str], key: str, shape: tuple[int, ...]) -> np.ndarray:
        """The numbers (H, W) of a mask. Raises SampleError for a damaged or re-saved mask."""
        path = self.root / row[key]
        if path.suffix == ".mat":
            return _read_mat(path, row["id"], "GTcls" if key == "classes" else "GTinst", shape)
        codes, coloured = read_mask(path, row["id"], shape=shape, remedy=_REMEDY)
        if coloured:
            message = "is in colour, expected palette numbers; was it re-saved? unpack the archive again"
            raise SampleError(row["id"], f"{path}: {message}")
        return codes

    def _numbers(self, row: dict[str, str], key: str, codes: np.ndarray) -> np.ndarray:
        """Numbers of a mask as int16, 255 as VOID. Raises SampleError for one that a mask cannot have."""
        largest = len(CLASSES) - 1 if key == "classes" else _VOID_CODE - 1
        wrong = ((codes < 0) | (codes > largest)) & (codes != _VOID_CODE)
        if wrong.any():
            path, number = self.root / row[key], codes[wrong].max()
            raise SampleError(row["id"], f"{path}: number {number}, expected 0..{largest} or 255; {_REMEDY}")
        numbers = codes.astype(np.int16)
        numbers[numbers == _VOID_CODE] = VOID
        return numbers


def _truth(runs: Runs, objects: np.ndarray | None, classes: np.ndarray | None) -> Truth:
    """The truth from the numbers of objects and classes in the runs of their masks; one of the two may be missing.

    Objects are numbered without gaps. The category of an object is the class of most of its pixels, 0 if none of them
    has a class. A pixel that is void in one of the two masks, and does not belong to an object in the other, is void.
    Without classes there are no categories, and without objects each class is one.
    """
    numbers = classes if objects is None else objects
    assert numbers is not None
    present = np.unique(numbers[numbers > 0])
    ranks = np.where(numbers > 0, np.searchsorted(present, numbers) + 1, numbers).astype(np.int16)
    if classes is None:
        return Truth(runs.drawn(ranks))
    ranks[(ranks == 0) & (classes == VOID)] = VOID
    known = (ranks > 0) & (classes > 0)
    places = (ranks[known] - 1) * len(CLASSES) + classes[known]
    counts = np.bincount(places, runs.lengths[known], len(present) * len(CLASSES)).reshape(-1, len(CLASSES))
    categories = tuple(counts.argmax(1).tolist())
    labels = runs.drawn(ranks)
    return Truth(labels, categories, runs.drawn(classes), _Instances(labels, categories))


class _Instances(Sequence[Instance]):
    """The labels of a map as instances, with masks and boxes around them.

    They are made when one is asked for: most tasks only need the map.
    """

    def __init__(self, labels: np.ndarray, categories: tuple[int, ...]) -> None:
        self._labels, self._categories = labels, categories

    def __len__(self) -> int:
        return len(self._categories)

    @overload
    def __getitem__(self, index: int) -> Instance: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Instance, ...]: ...

    def __getitem__(self, index: int | slice) -> Instance | tuple[Instance, ...]:
        return self._made[index]

    @cached_property
    def _made(self) -> tuple[Instance, ...]:
        from pycocotools import mask as rle

        instances = []
        codes = region_codes(self._labels, len(self))
        for category, code in zip(self._categories, codes, strict=True):
            x, y, width, height = (float(value) for value in rle.toBbox(code))
            instances.append(Instance(category, (x, y, x + width, y + height), code, float(rle.area(code))))
        return tuple(instances)


def list_ids(root: Path, split: str) -> list[str]:
    """Ids of a split, in the order of its list.

    Raises DataMissingError when a list is not there, UsageError for a split or an id that is not a plain name.
    """
    lists = root / "ImageSets" / "Segmentation"
    if split == "all-masks":
        return sorted(path.stem for path in find_files(root / "SegmentationObject", "[!.]*.png"))
    if split == "trainaug":
        written = next((path for name in _AUGMENTED if (path := lists / name).is_file()), None)
        return _augmented(root, lists) if written is None else _read_list(written)
    if not split.replace("-", "").isalnum():
        raise UsageError(f"split '{split}' is not a plain name")
    return _read_list(lists / f"{split}.txt")


def _augmented(root: Path, lists: Path) -> list[str]:
    """VOC train and SBD without VOC val, sorted: the 10,582 images that the field calls trainaug."""
    sbd = _find_sbd(root)
    if (lists / "aug.txt").is_file():
        more = _read_list(lists / "aug.txt")
    elif sbd is not None:
        more = [name for part in ("train", "val") for name in _read_list(sbd / f"{part}.txt")]
    else:
        raise DataMissingError(
            f"{lists}: no trainaug.txt, and no benchmark_RELEASE (SBD) beside {root}; get benchmark.tgz of SBD"
        )
    return sorted((set(_read_list(lists / "train.txt")) | set(more)) - set(_read_list(lists / "val.txt")))


def _find_sbd(root: Path) -> Path | None:
    """The folder `dataset` of SBD: in VOC<year>, in VOCdevkit, or beside VOCdevkit."""
    places = (root, root.parent, root.parent.parent)
    folders = (place / "benchmark_RELEASE" / "dataset" for place in places)
    return next((folder for folder in folders if folder.is_dir()), None)


def _files(root: Path, name: str, sbd: Path | None, augmented: bool) -> dict[str, str]:
    """Image and masks of an id, relative to the root.

    VOC's own masks are preferred. Those of SBD are searched when `sbd` is given, SegmentationClassAug when `augmented`.
    """
    files = {"image": f"JPEGImages/{name}.jpg", "classes": "", "objects": ""}
    if sbd is not None and find_file(root / files["image"]) is None and find_file(sbd / "img" / f"{name}.jpg"):
        files["image"] = _relative(sbd / "img" / f"{name}.jpg", root)
    for key, folders, part in (
        ("classes", ("SegmentationClass", *(["SegmentationClassAug"] if augmented else [])), "cls"),
        ("objects", ("SegmentationObject",), "inst"),
    ):
        candidates = [root / folder / f"{name}.png" for folder in folders]
        candidates += [sbd / part / f"{name}.mat"] if sbd is not None else []
        path = next((path for path in candidates if find_file(path)), None)
        files[key] = "" if path is None else _relative(path, root)
    return files


def _relative(path: Path, root: Path) -> str:
    # Not Path.relative_to: SBD may lie above the root.
    return Path(os.path.relpath(path, root)).as_posix()


def _read_mat(path: Path, sample_id: str, field: str, shape: tuple[int, ...]) -> np.ndarray:
    """An SBD mask (H, W) int64, which has no void. field: `GTcls` or `GTinst`, the structure in the file."""
    from scipy.io import loadmat

    try:
        check_regular(path)
        content: Any = loadmat(path)[field][0, 0]["Segmentation"]
        mask = np.asarray(content).astype(np.int64)
    # scipy has its own exceptions for damaged files, and also lets those of zlib and numpy through.
    except Exception as error:
        raise SampleError(sample_id, f"{path}: no SBD mask '{field}' in it ({one_line(error)}); {_REMEDY}") from error
    if mask.shape != tuple(shape):
        sizes = f"{mask.shape[1]}x{mask.shape[0]}, its image {shape[1]}x{shape[0]}"
        raise SampleError(sample_id, f"{path}: mask size {sizes}; {_REMEDY}")
    return mask


def _read_list(path: Path) -> list[str]:
    """Ids of a list in its order: the first word of each line, as some lists have a second column."""
    ids = [line.split()[0] for line in read_lines(path, "list of images", "unpack the archive again")]
    for name in ids:
        if "/" in name or "\\" in name or name.startswith("."):
            raise UsageError(f"{path}: '{name}' is not a plain image id such as 2007_000032; write one id per line")
    if (twice := first_repeated(ids)) is not None:
        raise UsageError(f"{path}: '{twice}' is listed twice; remove one")
    return ids


def find_official(request: Request) -> Path:
    """The folder VOC<year> of the official files. Raises DataMissingError."""
    assert request.root is not None
    year = parse_options(VocOptions, request).year
    root = request.root
    parents = (root / request.data.folder, root / "VOCdevkit", root)
    candidates = (*(parent / f"VOC{year}" for parent in parents), root)

    def holds(place: Path) -> bool:
        # The root itself may have any name, but must not be the folder of another year.
        other_year = place.name.startswith("VOC2") and not place.name.startswith(f"VOC{year}")
        return (place / "JPEGImages").is_dir() and not other_year

    # Names of archives, as on Kaggle. That of the test set has no masks.
    patterns = (f"VOC{year}*", f"VOC{year}*/VOC{year}*", f"VOC*/VOCdevkit/VOC{year}")
    unpacked = (place for pattern in patterns for place in sorted(root.glob(pattern)))
    wrapped = (place for place in unpacked if any((place / folder).is_dir() for _, folder in _TRUTHS.values()))
    return find_root(request, candidates, holds, f"folder JPEGImages of VOC{year}", wrapped=wrapped)
