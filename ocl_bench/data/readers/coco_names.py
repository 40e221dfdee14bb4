"""What the images of a COCO file are called: as samples, in lists, and in results files.

A results file names an image by its `id` in the JSON file. Rows and saved predictions need a text: the file name
without suffix. In the official files that is the id with zeros in front, and nothing more is needed; in files of the
same form the two have nothing to do with each other, so the ids are kept beside the names.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ...core.errors import DataMissingError, UsageError
from ..options import first_repeated, read_lines
from .frames import IMAGES


def sample_ids(images: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Sample id of each image: the file name without suffix.

    Where two images share it, all are called by their paths without suffix, and where that does not help, with suffix.
    """
    paths = [PurePosixPath(image["file_name"]) for image in images]
    for names in ([path.stem for path in paths], [str(path.parent / path.stem) for path in paths]):
        if first_repeated(names) is None:
            return tuple(names)
    return tuple(str(path) for path in paths)


def image_ids(images: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, int | str]:
    """Sample id -> id in the JSON file; empty where the names say the same, as in the official files.

    The order has to agree as well, since it decides between detections with equal scores: by name, 10 is before 9.
    """
    numbers = [image["id"] for image in images]
    same = all(str(number).zfill(len(name)) == name for number, name in zip(numbers, names, strict=True))
    if same and [number for _, number in sorted(zip(names, numbers, strict=True))] == sorted(numbers):
        return {}
    return dict(zip(names, numbers, strict=True))


def check_ids(content: dict[str, Any], path: Path) -> None:
    """Raise UsageError when two images or categories share an id or file name, or image ids have no order."""
    numbers = [image["id"] for image in content["images"]]
    for field, values in (
        ("images", numbers),
        ("images", [str(PurePosixPath(image["file_name"])) for image in content["images"]]),
        ("categories", [category["id"] for category in content["categories"]]),
    ):
        if (twice := first_repeated(values)) is not None:
            raise UsageError(f"{path}: two {field} are called {twice!r}; download the file again")
    texts = sum(isinstance(number, str) for number in numbers)
    if texts not in (0, len(numbers)):
        raise UsageError(f"{path}: images[].id is text in {texts} of {len(numbers)} images; make all of them numbers")
    if not texts and (large := [number for number in numbers if not -(2**63) <= number < 2**63]):
        raise UsageError(f"{path}: images[].id has {len(str(large[0]))} digits; write numbers of at most 64 bits")


def choose(
    root: Path, name: str, split: str, images: Sequence[dict[str, Any]], names: Sequence[str], lacking: str
) -> list[int]:
    """Positions of the images that the list `name` of a card holds, in its order.

    A line is a file name with or without suffix and folders, as far as it fits one image only.

    Args:
        root: of the data; the list lies below it.
        name: `data.options.ids`; `{split}` becomes the split.
        split: of the images.
        images: entries of the JSON file.
        names: their sample ids.
        lacking: what is said of lines that fit no image, after their number; `{}` becomes the first of them.

    Raises:
        DataMissingError: the list cannot be read, is empty, or has a line that fits no image.
        UsageError: the list lies elsewhere, a line fits several images, or an image is listed twice.
    """
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise UsageError(f"data.options.ids '{name}' must lie below the data root")
    path = root / name.replace("{split}", split)
    lines = [PurePosixPath(line) for line in read_lines(path, "list of images", "correct data.options.ids")]
    if not lines:
        raise DataMissingError(f"{path}: lists no image; correct data.options.ids")
    files = [PurePosixPath(image["file_name"]) for image in images]
    by_name: dict[str, list[int]] = {}
    for position, file in enumerate(files):
        for spelling in dict.fromkeys((file.name, file.stem)):
            by_name.setdefault(spelling, []).append(position)
    found = [_fitting(line, by_name, files) for line in lines]
    missing = [line for line, positions in zip(lines, found, strict=True) if not positions]
    if missing:
        raise DataMissingError(f"{path}: {len(missing)} {lacking.format(missing[0])}")
    for line, positions in zip(lines, found, strict=True):
        if len(positions) > 1:
            shown = " and ".join(str(files[position]) for position in positions[:2])
            raise UsageError(f"{path}: '{line}' is {shown}; write folder and suffix")
    chosen = [positions[0] for positions in found]
    if (twice := first_repeated(chosen)) is not None:
        raise UsageError(f"{path}: '{names[twice]}' is listed twice; remove one")
    return chosen


def _fitting(line: PurePosixPath, by_name: dict[str, list[int]], files: Sequence[PurePosixPath]) -> list[int]:
    """Positions of the files that a line may mean; of those that fit, only the one that it names in full."""
    named = by_name.get(line.name, [])
    # A suffix is only taken off when it is one of images: `clip.001` and `clip.002` are two names.
    if not named and line.suffix.lower() in IMAGES:
        named = by_name.get(line.stem, [])
    fitting = [position for position in named if _agree(line, files[position])]
    full = [
        position for position in fitting if line in (files[position], files[position].parent / files[position].stem)
    ]
    return full if len(full) == 1 else fitting


def _agree(first: PurePosixPath, second: PurePosixPath) -> bool:
    """Whether the folders of two paths are the same as far as both have them."""
    return all(one == other for one, other in zip(first.parts[-2::-1], second.parts[-2::-1], strict=False))
