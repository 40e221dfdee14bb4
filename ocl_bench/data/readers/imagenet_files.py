"""List the images of ImageNet's folders and their classes by name; no image is opened."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import DataMissingError, UsageError
from ..images import one_line

_SUFFIXES = frozenset({".jpeg", ".jpg", ".png"})
_KAGGLE = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "")


@dataclass(frozen=True)
class Place:
    """Where ImageNet lies. images: folder that holds train and val. base: the data root."""

    images: Path
    base: Path


@dataclass(frozen=True)
class Listing:
    """The images of a split, sorted by class, then by name.

    Attributes:
        ids: `<wnid>/<name>` of each image.
        labels: (N,) int32 index of each image's class in `classes`.
        suffixes: suffix of each file.
        flat: whether all files lie in one folder, not in folders of their classes.
        classes: wnids of all classes, sorted.
        remark: what the user should know, '' for nothing.
    """

    ids: tuple[str, ...]
    labels: np.ndarray
    suffixes: Sequence[str]
    flat: bool
    classes: tuple[str, ...]
    remark: str


def find_place(base: Path, split: str) -> Place | None:
    """The place of a split below `base`, in ImageFolder's or Kaggle's layout; None when it is not there."""
    for inner in _KAGGLE:
        if (base / inner / split).is_dir():
            return Place((base / inner).resolve(), base.resolve())
    return None


def look_around(place: Place) -> list[Path]:
    """Folders in which tables and boxes may lie: that of the images, the data root, and those above Kaggle's images."""
    folders = [place.images, place.base]
    if place.images.name == "CLS-LOC":
        folders += [place.images.parents[1], place.images.parents[2]]
    return list(dict.fromkeys(folders))


def list_split(place: Place, split: str) -> Listing:
    """List a split.

    Raises:
        UsageError: a class of the split is not in train, or two images have the same id.
        DataMissingError: there is no image, or no table of their classes.
    """
    classes = _read_classes(place)
    folder = place.images / split
    wnids, ignored = _list_folders(folder)
    flat = split == "val" and not wnids
    owners: list[str] = []
    stems: list[str] = []
    suffixes: list[str] = []
    for wnid in wnids:
        names, kinds, others = _list_images(folder / wnid)
        owners.extend([wnid] * len(names))
        stems.extend(names)
        suffixes.extend(kinds)
        ignored += others
    if flat:
        names, kinds, ignored = _list_images(folder)
        # Sorted by class like folders are, so that a flat val and one in folders give the same order.
        rows = sorted(zip(_flat_classes(place, folder, names), names, kinds, strict=True))
        owners, stems, suffixes = ([row[k] for row in rows] for k in range(3))
    if not stems:
        raise DataMissingError(f"{folder}: no image {' or '.join(sorted(_SUFFIXES))} in it; unpack the archive again")
    # The rank among the classes of train, not of this split: a class without an image in val must not shift the others.
    numbers = {wnid: index for index, wnid in enumerate(classes)}
    present = dict.fromkeys(owners)
    strangers = [wnid for wnid in present if wnid not in numbers]
    if strangers:
        what = f"class '{strangers[0]}' has images, but is not in train ({len(strangers)} such classes)"
        raise UsageError(f"{folder}: {what}; train and val must be of the same classes")
    ids = tuple(map("/".join, zip(owners, stems, strict=True)))
    labels = np.fromiter(map(numbers.__getitem__, owners), dtype=np.int32, count=len(owners))
    empty = [wnid for wnid in classes if wnid not in present]
    return Listing(ids, labels, suffixes, flat, classes, _remark(split, empty, len(classes), ignored))


def _remark(split: str, empty: list[str], count: int, ignored: int) -> str:
    """What the user should know: classes without an image, of `count` classes, and files that were left out."""
    parts = [f"; {len(empty)} of {count} classes have no image in {split}, first {empty[0]}"] if empty else []
    parts += [f"; {ignored} files that are not images are left out"] if ignored else []
    return "".join(parts)


def _read_classes(place: Place) -> tuple[str, ...]:
    """Sorted wnids of all classes: the folders of train, or the lines of labels.txt when there is no train."""
    train, table = place.images / "train", place.images / "labels.txt"
    if train.is_dir():
        folders, _ = _list_folders(train)
        if not folders:
            raise DataMissingError(
                f"{train}: no class folder in it; unpack the archive of each class (n01440764.tar, ..)"
            )
        return tuple(folders)
    try:
        lines = [line.split(",")[0].strip() for line in table.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        text = "the index of a class is its rank in the folder train or in labels.txt, but neither is there"
        raise DataMissingError(f"{place.images}: {text}; add train, or labels.txt with one wnid per line") from error
    wnids = [line for line in lines if line]
    if not wnids or len(set(wnids)) < len(wnids):
        raise UsageError(f"{table}: {'names a class twice' if wnids else 'is empty'}; write one line per class")
    return tuple(sorted(wnids))


def _list_folders(folder: Path) -> tuple[list[str], int]:
    """Sorted names of the folders in a folder, and the number of its other entries; hidden ones are not counted."""
    with os.scandir(folder) as entries:
        kinds = {entry.name: entry.is_dir() for entry in entries if not entry.name.startswith(".")}
    names = sorted(name for name, is_folder in kinds.items() if is_folder)
    return names, len(kinds) - len(names)


def _list_images(folder: Path) -> tuple[list[str], list[str], int]:
    """Sorted stems of the images in a folder, their suffixes, and the number of other files that are not hidden."""
    visible = [name for name in os.listdir(folder) if not name.startswith(".")]
    pairs = sorted(pair for pair in map(os.path.splitext, visible) if pair[1].lower() in _SUFFIXES)
    for first, second in pairwise(pairs):
        if first[0] == second[0]:
            raise UsageError(f"{folder}: '{''.join(first)}' and '{''.join(second)}' have one id; remove one")
    # One string for each suffix: 1.28 million equal strings would take 60 MB.
    shared = {suffix: suffix for _, suffix in pairs}
    return [stem for stem, _ in pairs], [shared[suffix] for _, suffix in pairs], len(visible) - len(pairs)


def _flat_classes(place: Place, folder: Path, stems: Sequence[str]) -> list[str]:
    """The wnid of each image of a flat val, from Kaggle's table or the devkit's, whichever is found first."""
    for around in look_around(place):
        if (around / "LOC_val_solution.csv").is_file():
            table = _read_solution(around / "LOC_val_solution.csv")
            break
        devkit = around / "ILSVRC2012_devkit_t12" / "data"
        if devkit.is_dir():
            table = _read_devkit(devkit)
            break
    else:
        tables = "class folders, ILSVRC2012_devkit_t12/data or LOC_val_solution.csv"
        raise DataMissingError(f"{folder}: the classes of its images are not known; add {tables}")
    missing = [stem for stem in stems if stem not in table]
    if missing:
        what = f"{len(missing)} images of {folder} are not listed, first {missing[0]}"
        raise UsageError(f"{around}: {what}; images must have their names of ILSVRC")
    return [table[stem] for stem in stems]


def _read_solution(path: Path) -> dict[str, str]:
    """Image name -> wnid from Kaggle's table ImageId,PredictionString; the string is `wnid x1 y1 x2 y2` per box."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(file)}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, AttributeError, IndexError) as error:
        what = "is not the table ImageId,PredictionString of Kaggle"
        raise UsageError(f"{path}: {what} ({type(error).__name__}: {error}); download it again") from error


def _read_devkit(folder: Path) -> dict[str, str]:
    """Name of each validation image -> wnid, from the devkit."""
    from scipy.io import loadmat

    truth, meta = folder / "ILSVRC2012_validation_ground_truth.txt", folder / "meta.mat"
    try:
        numbers = [int(line) for line in truth.read_text(encoding="ascii").split()]
    except (OSError, ValueError) as error:
        raise DataMissingError(f"{truth}: cannot be read ({error}); unpack ILSVRC2012_devkit_t12 again") from error
    try:
        synsets: Any = loadmat(meta, squeeze_me=True)["synsets"]
        wnids = {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in np.atleast_1d(synsets)}
    # scipy has its own exceptions for damaged files, and also lets those of zlib and numpy through.
    except Exception as error:
        text = f"no table of synsets ({one_line(error)})"
        raise DataMissingError(f"{meta}: {text}; unpack ILSVRC2012_devkit_t12 again") from error
    unknown = [number for number in numbers if number not in wnids]
    if unknown:
        raise UsageError(f"{truth}: id {unknown[0]} is not in meta.mat; unpack ILSVRC2012_devkit_t12 again")
    # Line n holds the ILSVRC2012_ID of image n, both counted from 1. This id is not the class index that models use.
    return {f"ILSVRC2012_val_{line:08d}": wnids[number] for line, number in enumerate(numbers, start=1)}
