"""Frames that are read one at a time, and lists of files in the order of time, for the readers of videos."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import overload

from ...core.errors import SampleError
from ...core.types import Sample, Video

_FIRST = (".jpg", ".jpeg", ".png")
IMAGES = (*_FIRST, ".webp", ".bmp", ".tif", ".tiff")
MASKS = (".png",)


class LazyFrames(Sequence[Sample]):
    """The frames of a video; each is read when it is asked for, and none is kept in memory.

    The first frame that is read sets the size of the video; a later frame of another size raises SampleError.

    Args:
        video_id: for messages.
        names: name of each frame.
        read: gives frame t. Raises SampleError when its files are missing or broken.
        remedy: what the user can do; it ends each message.
    """

    def __init__(self, video_id: str, names: Sequence[str], read: Callable[[int], Sample], remedy: str) -> None:
        self._video_id, self._names, self._read, self._remedy = video_id, names, read, remedy
        self._first: tuple[str, tuple[int, ...]] | None = None

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...

    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        positions = range(len(self))[index]
        return self._checked(positions) if isinstance(positions, int) else [self._checked(t) for t in positions]

    def _checked(self, position: int) -> Sample:
        sample, name = self._read(position), self._names[position]
        shape = sample.image.shape[:2]
        first_name, first_shape = self._first = self._first or (name, shape)
        if shape != first_shape:
            sizes = f"{shape[1]}x{shape[0]}, frame {first_name} has {first_shape[1]}x{first_shape[0]}"
            raise SampleError(self._video_id, f"frame {name}: size {sizes}; {self._remedy}")
        return sample


def lazy_video(video_id: str, names: Sequence[str], read: Callable[[int], Sample], remedy: str) -> Video:
    """A video of these frames, see `LazyFrames` for the arguments. Raises SampleError when there is no frame."""
    if not names:
        raise SampleError(video_id, f"video without frames; {remedy}")
    return Video(video_id, LazyFrames(video_id, tuple(names), read, remedy), tuple(names))


def in_time(names: Iterable[str]) -> list[str]:
    """Names of frames in the order of the numbers in them: `f2` before `f10`, `-5` before `3`, `0a` after `09`.

    Names are hexadecimal numbers if all can be, one has a letter, and they are equally long or count without a gap.
    """
    names = sorted(names)
    if all(re.fullmatch("[0-9a-f]+|[0-9A-F]+", name) for name in names) and not all(map(str.isdecimal, names)):
        numbers = sorted(int(name, 16) for name in names)
        if len({len(name) for name in names}) == 1 or numbers == list(range(numbers[0], numbers[0] + len(names))):
            return sorted(names, key=lambda name: int(name, 16))
    return sorted(names, key=_by_numbers)


def _by_numbers(name: str) -> tuple[tuple[str | int, ...], str]:
    """Key that sorts a name by the numbers in it."""
    # re.split with a group gives text and numbers in turn, numbers at odd positions. A dash that follows a letter or a
    # digit is no sign. The name itself comes last, so that `f2` and `f02` have a fixed order.
    parts = re.split(r"((?<![0-9A-Za-z])-[0-9]+|[0-9]+)", name)
    return tuple(int(part) if position % 2 else part for position, part in enumerate(parts)), name


def list_files(folder: Path, suffixes: tuple[str, ...], video_id: str) -> dict[str, str]:
    """Stem -> name of the files of a folder that have one of the suffixes; hidden files are left out.

    Empty for a folder that is not there. Raises SampleError when two files have the same stem.
    """
    if not folder.is_dir():
        return {}
    try:
        return by_stem((path.name for path in folder.iterdir()), suffixes)[0]
    except ValueError as error:
        raise SampleError(video_id, f"{folder}: {error} are one frame; remove one") from error


def by_stem(names: Iterable[str], suffixes: tuple[str, ...]) -> tuple[dict[str, str], list[str]]:
    """Stem -> name of the names that have one of the suffixes, and the other names; hidden ones are in neither.

    A JPEG or PNG goes before a file of the same stem in another format, which is then one of the others. Raises
    ValueError, whose text is both names, when two files of one rank have the same stem.
    """
    chosen: dict[str, str] = {}
    others = []
    visible = (name for name in names if not name.startswith("."))
    for later, name in sorted((Path(name).suffix.lower() not in _FIRST, name) for name in visible):
        path = Path(name)
        if path.suffix.lower() not in suffixes:
            others.append(name)
            continue
        other = chosen.setdefault(path.stem, name)
        if other != name and later and Path(other).suffix.lower() in _FIRST:
            others.append(name)
        elif other != name:
            raise ValueError(f"'{other}' and '{name}'")
    return chosen, sorted(others)


def name_some(names: Sequence[str]) -> str:
    """The first three names, for a note about files that are not read."""
    shown = ", ".join(names[:3]) + (", .." if len(names) > 3 else "")
    return shown.encode("utf-8", "backslashreplace").decode()  # a name need not be text


def files_below(root: Path, folders: Iterable[Path], suffixes: tuple[str, ...] = ()) -> list[str]:
    """Names, relative to `root`, of all files that lie directly in the folders; hidden files are left out.

    suffixes: of the files that are wanted, in small letters or capitals; all without any.
    """
    files = []
    for folder in folders:
        if (root / folder).is_dir():
            with os.scandir(root / folder) as entries:
                names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
            if suffixes:
                names = [name for name in names if Path(name).suffix.lower() in suffixes]
            files += [(folder / name).as_posix() for name in names]
    return files
