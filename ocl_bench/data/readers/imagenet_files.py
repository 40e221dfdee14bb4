"""Which images ImageNet's folders hold, and of which class each is: names only, no file is opened."""

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

_SUFFIXES = frozenset({".jpeg", ".jpg", ".png"})
_KAGGLE = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "")


@dataclass(frozen=True)
class Place:
    """images: folder that holds train and val. base: where the search began; tables and boxes may be there, too."""

    images: Path
    base: Path


@dataclass(frozen=True)
class Listing:
    """Images of a split, by class, then by name.

    ids: <wnid>/<name>. labels: (N,) int32, rank of the wnid in `classes`. suffixes: of the files. flat: whether they
    lie in one folder. remark: what the user should know, '' for nothing.
    """

    ids: tuple[str, ...]
    labels: np.ndarray
    suffixes: Sequence[str]
    flat: bool
    classes: tuple[str, ...]
    remark: str


def find_place(base: Path, split: str) -> Place | None:
    """The folder with the folder of this split in it, by ImageFolder's or Kaggle's layout."""
    for inner in _KAGGLE:
        if (base / inner / split).is_dir():
            return Place((base / inner).resolve(), base.resolve())
    return None


def look_around(place: Place) -> list[Path]:
    """Folders in which tables and boxes may lie: that of the images, the data root, and Kaggle's above it."""
    folders = [place.images, place.base]
    if place.images.name == "CLS-LOC":
        folders += [place.images.parents[1], place.images.parents[2]]
    return list(dict.fromkeys(folders))


def list_split(place: Place, split: str) -> Listing:
    """List a split. Raises UsageError when classes or names make no sense, DataMissingError when nothing is there."""
    classes = _read_classes(place)
    folder = place.images / split
    found, ignored = _list_folders(folder)
    flat = split == "val" and not found
    owners: list[str] = []
    stems: list[str] = []
    suffixes: list[str] = []
    for wnid in found:
        names, kinds, others = _list_images(folder / wnid)
        owners.extend([wnid] * len(names))
        stems.extend(names)
        suffixes.extend(kinds)
        ignored += others
    if flat:
        names, kinds, ignored = _list_images(folder)
        rows = sorted(zip(_flat_classes(place, folder, names), names, kinds, strict=True))
        owners, stems, suffixes = ([row[k] for row in rows] for k in range(3))
    if not stems:
        raise DataMissingError(f"{folder}: no image {' or '.join(sorted(_SUFFIXES))} in it; unpack the archive again")
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
    parts = [f"; {len(empty)} of {count} classes have no image in {split}, first {empty[0]}"] if empty else []
    parts += [f"; {ignored} files that are no images are left out"] if ignored else []
    return "".join(parts)


def _read_classes(place: Place) -> tuple[str, ...]:
    """Sorted wnids: folders of train, or lines of labels.txt where there is no train."""
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
        text = "neither the folder train nor labels.txt is there, and the number of a class is its rank in them"
        raise DataMissingError(f"{place.images}: {text}; add train, or labels.txt with one wnid per line") from error
    wnids = [line for line in lines if line]
    if not wnids or len(set(wnids)) < len(wnids):
        raise UsageError(f"{table}: {'names a class twice' if wnids else 'is empty'}; write one line per class")
    return tuple(sorted(wnids))


def _list_folders(folder: Path) -> tuple[list[str], int]:
    """Sorted names of the visible folders in a folder, and the number of other visible entries."""
    with os.scandir(folder) as entries:
        kinds = {entry.name: entry.is_dir() for entry in entries if not entry.name.startswith(".")}
    names = sorted(name for name, is_folder in kinds.items() if is_folder)
    return names, len(kinds) - len(names)


def _list_images(folder: Path) -> tuple[list[str], list[str], int]:
    """Stems of the images in a folder, sorted, their suffixes, and the number of other visible files."""
    visible = [name for name in os.listdir(folder) if not name.startswith(".")]
    pairs = sorted(pair for pair in map(os.path.splitext, visible) if pair[1].lower() in _SUFFIXES)
    for one, other in pairwise(pairs):
        if one[0] == other[0]:
            raise UsageError(f"{folder}: '{''.join(one)}' and '{''.join(other)}' have one id; remove one")
    # Interned, as most suffixes are equal: 1.28 million strings of their own would take 60 MB.
    shared = {suffix: suffix for _, suffix in pairs}
    return [stem for stem, _ in pairs], [shared[suffix] for _, suffix in pairs], len(visible) - len(pairs)


def _flat_classes(place: Place, folder: Path, stems: Sequence[str]) -> list[str]:
    """The wnid of each image of a flat val, by Kaggle's table or by that of the devkit."""
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
    """Kaggle's table: ImageId,PredictionString, where the string is `wnid x1 y1 x2 y2` once per box."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(file)}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, AttributeError, IndexError) as error:
        what = "is not the table ImageId,PredictionString of Kaggle"
        raise UsageError(f"{path}: {what} ({type(error).__name__}: {error}); download it again") from error


def _read_devkit(folder: Path) -> dict[str, str]:
    """Name of each validation image -> wnid: line n of the truth is the ILSVRC2012_ID, from 1, of image n."""
    from scipy.io import loadmat

    truth, meta = folder / "ILSVRC2012_validation_ground_truth.txt", folder / "meta.mat"
    try:
        numbers = [int(line) for line in truth.read_text(encoding="ascii").split()]
    except (OSError, ValueError) as error:
        raise DataMissingError(f"{truth}: cannot be read ({error}); unpack ILSVRC2012_devkit_t12 again") from error
    try:
        synsets: Any = loadmat(meta, squeeze_me=True)["synsets"]
        wnids = {int(one["ILSVRC2012_ID"]): str(one["WNID"]) for one in np.atleast_1d(synsets)}
    # scipy has errors of its own here, and lets through those of zlib and of numpy.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataMissingError(f"{meta}: no table of synsets ({reason}); unpack ILSVRC2012_devkit_t12 again") from error
    unknown = [number for number in numbers if number not in wnids]
    if unknown:
        raise UsageError(f"{truth}: id {unknown[0]} is not in meta.mat; unpack ILSVRC2012_devkit_t12 again")
    return {f"ILSVRC2012_val_{line:08d}": wnids[number] for line, number in enumerate(numbers, start=1)}
