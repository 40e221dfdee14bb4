"""List the images of ImageNet's folders and their classes by name; no image is opened."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import DataMissingError, UsageError
from ...core.files import check_regular, read_text
from ..images import one_line
from ..listings import UNKNOWN, Listed, Listings, folder_stamp
from .frames import IMAGES, name_some

_SUFFIXES = frozenset(IMAGES)
_TINY = "val_annotations.txt"
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
        folder: folder of the images.
        ids: `<wnid>/<name>` of each image; the name has the folders below that of the class in it.
        labels: (N,) int32 index of each image's class in `classes`.
        suffixes: suffix of each file.
        flat: whether all files lie in one folder, not in folders of their classes.
        classes: wnids of all classes, sorted.
        remark: what the user should know, '' for nothing.
    """

    folder: Path
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


def list_split(place: Place, split: str, *, anew: bool = False) -> Listing:
    """List a split; with `anew`, whatever is remembered of its folders.

    Raises:
        UsageError: a class of the split is not in train, or two images have the same id.
        DataMissingError: there is no image, or no table of their classes.
    """
    classes = _read_classes(place)
    folder = place.images / split
    wnids, strays = _list_folders(folder)
    if split == "val" and wnids == ["images"] and (folder / _TINY).is_file():
        folder, wnids, strays = folder / "images", [], []
    flat = split == "val" and not wnids
    remembered = Listings.load(folder, anew=anew)
    owners: list[str] = []
    stems: list[str] = []
    suffixes: list[str] = []
    for wnid in wnids:
        names, kinds, others = _list_images(folder / wnid, remembered)
        owners.extend([wnid] * len(names))
        stems.extend(names)
        suffixes.extend(kinds)
        strays += [f"{wnid}/{name}" for name in others]
    if flat:
        names, kinds, strays = _list_images(folder, remembered)
        # Sorted by class like folders are, so that a flat val and one in folders give the same order.
        rows = sorted(zip(_flat_classes(place, folder, names), names, kinds, strict=True))
        owners, stems, suffixes = ([row[k] for row in rows] for k in range(3))
    remembered.keep()
    if not stems:
        raise DataMissingError(f"{folder}: no image ({', '.join(IMAGES)}) in it; unpack the archive again")
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
    return Listing(folder, ids, labels, suffixes, flat, classes, _remark(split, empty, len(classes), strays))


def _remark(split: str, empty: list[str], count: int, strays: list[str]) -> str:
    """What the user should know: classes without an image, of `count` classes, and files that were left out."""
    parts = [f"; {len(empty)} of {count} classes have no image in {split}, first {empty[0]}"] if empty else []
    parts += [f"; {len(strays)} files that are not images are left out ({name_some(strays)})"] if strays else []
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
        lines = [line.split(",")[0].strip() for line in read_text(table).splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        text = "the index of a class is its rank in the folder train or in labels.txt, but neither is there"
        raise DataMissingError(f"{place.images}: {text}; add train, or labels.txt with one wnid per line") from error
    wnids = [line for line in lines if line]
    if not wnids or len(set(wnids)) < len(wnids):
        raise UsageError(f"{table}: {'names a class twice' if wnids else 'is empty'}; write one line per class")
    return tuple(sorted(wnids))


def _list_folders(folder: Path) -> tuple[list[str], list[str]]:
    """Sorted names of the folders in a folder, and of its other entries; hidden ones are in neither."""
    with os.scandir(folder) as entries:
        kinds = {entry.name: entry.is_dir() for entry in entries if not entry.name.startswith(".")}
    names = sorted(name for name, is_folder in kinds.items() if is_folder)
    return names, sorted(kinds.keys() - {*names})


def _list_images(folder: Path, remembered: Listings) -> tuple[list[str], list[str], list[str]]:
    """Sorted stems of the images in a folder and below it, their suffixes, and the names of other files.

    Stems and names are relative to the folder; what is hidden is left out.
    """
    found, others = remembered.get(folder.name, lambda: _list_names(folder, "", ()))
    pairs = sorted(map(os.path.splitext, found))
    for first, second in pairwise(pairs):
        if first[0] == second[0]:
            raise UsageError(f"{folder}: '{''.join(first)}' and '{''.join(second)}' have one id; remove one")
    # One string for each suffix: 1.28 million equal strings would take 60 MB.
    shared = {suffix: suffix for _, suffix in pairs}
    return [stem for stem, _ in pairs], [shared[suffix] for _, suffix in pairs], sorted(others)


def _list_names(folder: Path, below: str, inside: tuple[str, ...]) -> Listed:
    """Names of the images and of the other files in `folder`, each after the prefix `below`, and of all folders in it.

    Also the stamp of each folder, taken before it is listed.

    inside: real paths of the folders above, as a link may lead back to one of them.
    """
    images, others, stamps = [], [], {str(folder): folder_stamp(folder)}
    for name in os.listdir(folder):
        if name.startswith("."):
            continue
        if os.path.splitext(name)[1].lower() in _SUFFIXES:
            images.append(below + name)
        elif not os.path.isdir(folder / name):
            others.append(below + name)
            if os.path.islink(folder / name):
                # It may lead to a folder tomorrow, and this folder would not show it.
                stamps[str(folder)] = UNKNOWN
        elif os.path.realpath(folder / name) not in (above := (*inside, os.path.realpath(folder))):
            inner = _list_names(folder / name, f"{below}{name}/", above)
            images += inner[0]
            others += inner[1]
            stamps |= inner[2]
    return images, others, stamps


def _flat_classes(place: Place, folder: Path, stems: Sequence[str]) -> list[str]:
    """The wnid of each image of a flat val, from Kaggle's table or the devkit's, whichever is found first."""
    if (folder.parent / _TINY).is_file() and folder.name == "images":
        return _looked_up(_read_tiny(folder.parent / _TINY), folder.parent / _TINY, folder, stems)
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
    return _looked_up(table, around, folder, stems)


def _looked_up(table: dict[str, str], around: Path, folder: Path, stems: Sequence[str]) -> list[str]:
    """The wnid of each image in a table that lies in (or is) `around`. Raises UsageError for an image without one."""
    missing = [stem for stem in stems if stem not in table]
    if missing:
        what = f"{len(missing)} images of {folder} are not listed, first {missing[0]}"
        raise UsageError(f"{around}: {what}; images must have their names of ILSVRC")
    return [table[stem] for stem in stems]


def _read_solution(path: Path) -> dict[str, str]:
    """Image name -> wnid from Kaggle's table ImageId,PredictionString; the string is `wnid x1 y1 x2 y2` per box."""
    try:
        rows = csv.DictReader(io.StringIO(read_text(path), newline=""))
        return {row["ImageId"]: row["PredictionString"].split()[0] for row in rows}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, AttributeError, IndexError) as error:
        what = "is not the table ImageId,PredictionString of Kaggle"
        raise UsageError(f"{path}: {what} ({type(error).__name__}: {error}); download it again") from error


def _read_tiny(path: Path) -> dict[str, str]:
    """Image name -> wnid from the table of Tiny ImageNet: file name, wnid and a box, between tabulators."""
    try:
        rows = [line.split() for line in read_text(path).splitlines() if line.strip()]
        return {os.path.splitext(row[0])[0]: row[1] for row in rows}
    except (OSError, UnicodeDecodeError, IndexError) as error:
        what = "is not the table of Tiny ImageNet, file name and wnid in each line"
        raise UsageError(f"{path}: {what} ({one_line(error)}); unpack the archive again") from error


def _read_devkit(folder: Path) -> dict[str, str]:
    """Name of each validation image -> wnid, from the devkit."""
    from scipy.io import loadmat

    truth, meta = folder / "ILSVRC2012_validation_ground_truth.txt", folder / "meta.mat"
    try:
        numbers = [int(line) for line in read_text(truth).split()]
    except (OSError, ValueError) as error:
        raise DataMissingError(f"{truth}: cannot be read ({error}); unpack ILSVRC2012_devkit_t12 again") from error
    try:
        check_regular(meta)
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
