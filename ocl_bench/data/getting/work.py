"""What `ocl-bench data` does: look for data, get them, check them, link them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...cards.task import TaskSpec
from ...core.errors import DataMissingError, OclBenchError, SampleError, UsageError
from ...core.log import logger, progress_bar
from .. import open_data, spread
from .catalogue import Archive, DataSet
from .download import download
from .unpack import unpack

TRIED = 20
"""Samples that `verify` reads, spread evenly."""

_UNPACKED = 4
"""An archive may unpack to this many times its size: those of the data sets here hold images, which hardly shrink."""


@dataclass(frozen=True)
class Place:
    """What is there for a task. found: the note of the reader; '' when there is nothing, and `problem` says why."""

    task: str
    found: str
    problem: str


@dataclass(frozen=True)
class Check:
    """What `verify` found for a task.

    Attributes:
        samples: number of samples in the split.
        revision: of the data, made of the content of the annotations.
        tried: number of samples that were read.
        failed: errors of those that could not be read.
    """

    task: str
    samples: int
    revision: str
    tried: int
    failed: tuple[str, ...] = field(default=())


def look(tasks: Sequence[TaskSpec], root: Path) -> list[Place]:
    """What would be read for each task; one sample of each is listed, none is decoded."""
    places = []
    for task in tasks:
        try:
            places.append(Place(task.name, open_data(task, data_root=root, limit=1).note, ""))
        except OclBenchError as error:
            places.append(Place(task.name, "", " ".join(str(error).split())))
    return places


def announce(data_set: DataSet, archives: Sequence[Archive], root: Path) -> list[str]:
    """What `get` would do, as lines for people."""
    size = sum(archive.bytes for archive in archives)
    lines = [f"{data_set.name}: {len(archives)} files, {_size(size)}", f"terms: {data_set.terms}"]
    lines += [f"  {archive.url} ({_size(archive.bytes)})" for archive in archives[:12]]
    lines += [f"  and {len(archives) - 12} more"] if len(archives) > 12 else []
    unhashed = sum(archive.known_hash is None for archive in archives)
    lines += [f"{unhashed} of them without a published hash: only their sizes are checked"] if unhashed else []
    lines += [f"not certain: {data_set.note}"] if data_set.note else []
    return [*lines, f"into {root} ({_size(shutil.disk_usage(_existing(root)).free)} free)"]


def get(archives: Sequence[Archive], root: Path, *, keep: bool = False, progress: bool = True) -> int:
    """Download archives and unpack them below a data root; what is already there is not downloaded again.

    Args:
        archives: what to get.
        root: the data root; it is made.
        keep: keep the archives after they were unpacked.
        progress: draw a progress bar on stderr.

    Returns:
        The number of files that were written.

    Raises:
        UsageError: a hash is wrong, or an archive is refused.
        DataMissingError: a server refuses.
        OSError: the disk refuses.
    """
    files = 0
    for archive in archives:
        folder = root / archive.into
        done = _marker(root, archive)
        if done.is_file():
            logger.info("%s: was got earlier; delete %s to get it again", archive.name, done)
            continue
        target = (root / ".downloads" if archive.packed else folder) / archive.name
        with progress_bar(archive.name, archive.bytes, progress, "B") as advance:
            path = download(archive.url, target, archive.known_hash, advance=advance)
        files += _unpacked(archive, path, folder, keep) if archive.packed else 1
        done.parent.mkdir(parents=True, exist_ok=True)
        done.write_text(archive.url, encoding="utf-8")
    return files


def _unpacked(archive: Archive, path: Path, folder: Path, keep: bool) -> int:
    """Unpack an archive and those in it. Returns the number of files."""
    most = _UNPACKED * path.stat().st_size
    count = unpack(path, folder, most)
    for name in archive.inner:
        inner = folder / name
        count += unpack(inner, inner.parent, most) - 1
        inner.unlink()
    if not keep:
        path.unlink()
    return count


def verify(
    tasks: Sequence[TaskSpec], root: Path, *, advance: Callable[[int], None] = lambda count: None
) -> list[Check]:
    """Read all files of the data of each task, and decode some samples.

    Raises:
        DataMissingError: no task has data below the root.
        UsageError: data are damaged as a whole, or an image is not the one that an earlier verification recorded.
    """
    checks, missing = [], []
    for task in tasks:
        try:
            data = open_data(task, data_root=root, verify=True)
        except DataMissingError as error:
            missing.append((task, error))
            continue
        failed = []
        chosen = spread(data, TRIED)
        for position in range(len(chosen)):
            try:
                sample = chosen.reader[position]
                if hasattr(sample, "frames"):
                    _ = [sample.frames[t] for t in (0, len(sample) - 1)]
            except SampleError as error:
                failed.append(str(error))
            advance(1)
        checks.append(Check(task.name, len(data), data.revision, len(chosen), tuple(failed)))
    if not checks and missing:
        raise missing[0][1]
    for task, problem in missing:
        logger.info("%s: not verified, %s", task.name, problem)
    return checks


def link(data_set: DataSet, target: Path, root: Path) -> Path:
    """Make `<root>/<folder of the data set>` a link to data that lie elsewhere.

    Raises:
        DataMissingError: the target is not there.
        UsageError: something is in the place of the link, or the target is the root.
    """
    if not target.is_dir():
        raise DataMissingError(f"{target}: there is no such folder")
    if target.resolve() == root.resolve():
        raise UsageError(f"{target}: is the data root itself, whose data are found without a link")
    place = root / data_set.folder
    if place.is_symlink() and place.resolve() == target.resolve():
        return place
    if place.exists() or place.is_symlink():
        raise UsageError(f"{place}: is there already; remove it, or give another --data-root")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target.resolve(), target_is_directory=True)
    return place


def _marker(root: Path, archive: Archive) -> Path:
    """The file that says that an archive was unpacked."""
    return root / ".downloads" / f"{archive.into.replace('/', '-')}-{archive.name}.done"


def _existing(path: Path) -> Path:
    """The path, or the first folder above it that is there."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
