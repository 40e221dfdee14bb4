"""The bank of k-NN: the unit feature and the label of each image of the fit split, on disk and resumable.

    <cache>/banks/<first two of the key>/<key>/features.npy    (N, D) float32, memory-mapped
                                               labels.npy      (N, 2) int64: label, position in the fit split
                                               progress.json   how many images are done, replaced atomically
    <cache>/banks/<first two of the key>/<key>.lock             held while somebody works on the bank

N is the number of images. Images that fail take no row, and the unused rows are at the end. The files get their final
size before the first image is predicted, because a full disk should be noticed then. No file is ever loaded whole.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast
from zlib import crc32

import numpy as np

from ..cards.protocols import BOXES_FILE, HEAD_VERSION
from ..core.errors import UsageError
from ..core.files import check_regular, digest, parse_json, read_text, write_atomically
from ..core.log import logger, progress_bar
from ..core.paths import cache_root
from ..families.knn import Bank, Knn
from ..results.record import Failure

if TYPE_CHECKING:
    from ..data import OpenData
    from .plan import Plan

_BLOCK, _SECONDS = 1024, 20.0  # images or seconds between two writes of the progress, whichever comes first
_PREPARED = ("crop", "short_side", "interpolation", "boxes", "overlap")  # protocol fields that change a feature or row
_FEATURES, _LABELS, _PROGRESS = "features.npy", "labels.npy", "progress.json"


@dataclass(frozen=True)
class _Progress:
    """How far a bank is.

    Attributes:
        images: number of images of the fit split.
        length: numbers of a feature.
        done: images that were predicted, or failed.
        rows: images that have a row in the files.
        zeros: rows whose feature is zero everywhere.
        failed: images that failed and are left out.
        first: why the first of them failed.
        key: name of its folder.
        features_crc32, labels_crc32: of the rows, to tell them from those of another bank and from edited ones.
    """

    images: int
    length: int = 0
    done: int = 0
    rows: int = 0
    zeros: int = 0
    failed: int = 0
    first: str = ""
    key: str = ""
    features_crc32: int = 0
    labels_crc32: int = 0


@dataclass(frozen=True)
class _Row:
    """An image of the bank: its id, position in the fit split, label, and (D,) float32 feature."""

    id: str
    position: int
    label: int | None
    feature: np.ndarray

    def problem(self, length: int) -> str:
        """Why it cannot be used among features of `length` numbers; empty where it can."""
        if self.label is None:
            return "has no label (Truth.label); k-NN needs data with a class for each image"
        if len(self.feature) != length:
            return f"the model gives a feature of {len(self.feature)} numbers, and gave {length} before"
        return ""


@dataclass
class _Files:
    """The memory-mapped arrays of a bank with its progress. arrays: None before the first row, as D is unknown then."""

    folder: Path
    progress: _Progress
    arrays: tuple[np.memmap, np.memmap] | None = None

    def bank(self) -> Bank:
        """The rows so far as a bank. Raises UsageError when there are none."""
        if self.arrays is None or not self.progress.rows:
            raise UsageError(f"no image of the fit split could be used; first: {self.progress.first}")
        features, labels = (array[: self.progress.rows] for array in self.arrays)
        features.flags.writeable = False  # a stray write would change the file
        return Bank(features, np.array(labels[:, 0]), np.array(labels[:, 1]), self.progress.failed, self.progress.zeros)

    def append(self, rows: list[_Row]) -> list[Failure]:
        """Add rows at the end; the first ones create the files.

        Returns:
            The failures of images without a label, or whose feature is longer or shorter than that of the first image.

        Raises:
            UsageError: when the files cannot be written.
        """
        usable: list[_Row] = []
        failed: list[Failure] = []
        for row in rows:
            length = self.progress.length or len((usable or rows)[0].feature)
            if problem := row.problem(length):
                failed.append(Failure(id=row.id, error=f"sample {row.id}: {problem}"))
            else:
                usable.append(row)
        if not usable:
            return failed
        if self.arrays is None:
            self.progress = replace(self.progress, length=len(usable[0].feature))
            with _write_errors(self.folder):
                self.arrays = _create_arrays(self.folder, self.progress)
        place = slice(self.progress.rows, self.progress.rows + len(usable))
        self.arrays[0][place] = np.stack([row.feature for row in usable])
        self.arrays[1][place] = [(row.label, row.position) for row in usable]
        before = self.progress
        self.progress = replace(
            before,
            rows=place.stop,
            zeros=before.zeros + sum(not row.feature.any() for row in usable),
            features_crc32=crc32(self.arrays[0][place].data, before.features_crc32),
            labels_crc32=crc32(self.arrays[1][place].data, before.labels_crc32),
        )
        return failed

    def keep(self) -> None:
        """Flush the rows to the disk, and then write the progress.

        In this order a killed run finds no more rows announced than there are.
        """
        text = json.dumps(asdict(self.progress))
        with _write_errors(self.folder):
            for array in self.arrays or ():
                array.flush()
            write_atomically(self.folder / _PROGRESS, lambda target: target.write_text(text, encoding="utf-8"))


def bank_for(plan: Plan, train: OpenData) -> Bank:
    """The bank of the plan's model on the fit split `train`, read from the cache or extracted now.

    A finished bank is reused and an unfinished one is continued. A damaged bank is extracted again, and with
    `plan.refit` every bank is. Images that fail are left out; a warning says how many and why the first one failed. Of
    several processes or ranks (torchrun), one extracts while the others wait; if it dies, the next one continues. No
    key can name a live object, so its bank is temporary: it is deleted together with the `Bank`, at the latest when the
    process ends.

    Raises:
        UsageError: when more than a tenth of the images fail, or the cache cannot be written.
    """
    if not plan.model.reusable:
        return _temporary_bank(plan, train)
    key = bank_key(plan, train)
    folder = cache_root() / "banks" / key[:2] / key
    with _locked(folder):
        if plan.refit:
            shutil.rmtree(folder, ignore_errors=True)
        return _complete_bank(folder, plan, train)


def bank_key(plan: Plan, train: OpenData) -> str:
    """SHA-256 of everything that can change a row of the bank of `train`, and of nothing else.

    The vote (temperature, k, ties) and the name of a card are not part of it: cards that prepare images alike share a
    bank. Device, batch size and threads are left out as in the key of a result, since they change only the rounding.
    """
    from .loop import input_size
    from .plan import DTYPE

    data, model, protocol = plan.task.data, plan.model, plan.task.protocol
    return digest(
        {
            "version": HEAD_VERSION,
            # The path of a box file may differ between machines; its content is part of the revision.
            "data": [data.reader, {name: value for name, value in data.options.items() if name != BOXES_FILE}],
            "images": [train.kind, train.revision, digest(list(train.ids))],
            "protocol": {name: getattr(protocol, name) for name in _PREPARED} | {"input": input_size(model, plan.task)},
            "pooling": [plan.task.family, *plan.family.any_of(plan.adapter)],
            "model": [model.name, dict(model.options), model.checkpoint_sha256, model.source_sha256],
            "noise_seed": plan.noise_seeds[0],
            "dtype": DTYPE,
        }
    )


def with_bank(plan: Plan, train: OpenData) -> Knn:
    """The plan's adapter with the bank of `train`. Its classes are those of the bank and those of either split."""
    adapter = cast(Knn, plan.adapter)
    bank = bank_for(plan, train)
    for text in _remarks(plan, train, bank, adapter.k):
        logger.info("%s", text)
    return adapter.with_bank(bank, [*train.categories, *plan.data.categories], plan.device)


def _remarks(plan: Plan, train: OpenData, bank: Bank, k: int) -> Iterator[str]:
    """One line for each unusual property of a bank: fewer images than the largest k, classes without images, zeros."""
    task, count = plan.task.name, len(bank.labels)
    if k > count:
        yield f"task {task}: the bank has {count} images, fewer than k = {k}: a larger k takes all of them"
    absent = sorted(set(train.categories) - set(bank.labels.tolist()))
    if absent:
        first = f"first {train.categories[absent[0]]}: nothing votes for them"
        yield f"task {task}: {len(absent)} of {len(train.categories)} classes have no image in the bank, {first}"
    if bank.zeros:
        what = f"gives zeros for {bank.zeros} of {count} images of the bank"
        yield f"model {plan.model.name}: {what}: their cosine with every image is 0"


def _temporary_bank(plan: Plan, train: OpenData) -> Bank:
    """A bank whose files are deleted when the `Bank` is no longer used."""
    place = cache_root() / "banks"
    with _write_errors(place):
        place.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="temporary-", dir=place))
    try:
        bank = _complete_bank(folder, plan, train)
    except BaseException:  # also when the user interrupts it
        shutil.rmtree(folder, ignore_errors=True)
        raise
    # Not a context manager: the adapter reads the memory map for as long as it exists.
    weakref.finalize(bank, shutil.rmtree, folder, ignore_errors=True)
    return bank


def _complete_bank(folder: Path, plan: Plan, train: OpenData) -> Bank:
    """The bank in `folder`, after its missing images were predicted."""
    files = _open_files(folder, train)
    if files is None:
        with _write_errors(folder):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        files = _Files(folder, _Progress(len(train.ids), key=folder.name))
    if files.progress.done < len(train.ids):
        _extract(files, plan, train)
    if files.progress.failed:
        logger.warning("left out: %s (--force reads them again)", _failures(files.progress))
    return files.bank()


def _extract(files: _Files, plan: Plan, train: OpenData) -> None:
    """Predict the images after the last one of the bank, with the runner that predicts the scored images."""
    from .loop import Runner

    runner, count = Runner(replace(plan, data=train)), len(train.ids)
    written, since = files.progress.done, time.monotonic()
    with progress_bar(f"{plan.model.name}: features of the bank", count, unit="images") as advance:
        advance(written)
        with runner.reading([range(written, count)]) as reads:
            for read in reads:
                items, unreadable = read.get()
                items, outputs, unpredicted = runner.outputs(items, plan.noise_seeds[0])
                # By id, as images that failed are missing among the items.
                positions = {train.ids[position]: position for position in read.unit}
                rows = [
                    _Row(item.id, positions[item.id], item.truth.label, feature)
                    for item, feature in zip(items, outputs, strict=True)
                ]
                _add(files, len(read.unit), rows, [*unreadable, *unpredicted])
                waited = time.monotonic() - since > _SECONDS
                done = files.progress.done
                if done - written >= _BLOCK or waited or done == count:
                    files.keep()
                    written, since = done, time.monotonic()
                advance(len(read.unit))


def _add(files: _Files, images: int, rows: list[_Row], failed: list[Failure]) -> None:
    """Add the rows of the next images. Raises UsageError when more than a tenth of all images fail."""
    failed = failed + files.append(rows)
    before = files.progress
    files.progress = replace(
        before,
        done=before.done + images,
        failed=before.failed + len(failed),
        first=before.first or (failed[0].error if failed else ""),
    )
    if files.progress.failed > before.images / 10:
        shutil.rmtree(files.folder, ignore_errors=True)  # else images that were repaired would stay left out
        raise UsageError(f"more than a tenth fail: {_failures(files.progress)}")


def _failures(progress: _Progress) -> str:
    return f"{progress.failed} of {progress.images} images of the fit split fail, first: {progress.first}"


def _open_files(folder: Path, train: OpenData) -> _Files | None:
    """The files of a finished or unfinished bank of these images; None when missing, damaged or of another key."""
    try:
        progress = _Progress(**parse_json(read_text(folder / _PROGRESS)))
        if (progress.images, progress.key) != (len(train.ids), folder.name):
            return None
        if not progress.rows:  # every image so far has failed, and no file was created
            return _Files(folder, progress)
        # Writable, because an unfinished bank is continued in the same files.
        for name in (_FEATURES, _LABELS):
            check_regular(folder / name)
        arrays = [np.load(folder / name, mmap_mode="r+") for name in (_FEATURES, _LABELS)]
    except (OSError, ValueError, TypeError, EOFError):
        return None
    features, labels = arrays
    expected = (progress.images, progress.length), (progress.images, 2), np.float32, np.int64
    if (features.shape, labels.shape, features.dtype, labels.dtype) != expected:
        return None
    recorded = progress.features_crc32, progress.labels_crc32
    found = crc32(features[: progress.rows]), crc32(labels[: progress.rows])
    return _Files(folder, progress, (features, labels)) if found == recorded else None


def _create_arrays(folder: Path, progress: _Progress) -> tuple[np.memmap, np.memmap]:
    """New files of the final size, whose disk space is reserved where the system can do so."""
    arrays = []
    for name, width, dtype in ((_FEATURES, progress.length, np.float32), (_LABELS, 2, np.int64)):
        path, shape = folder / name, (progress.images, width)
        arrays.append(np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape))
        if hasattr(os, "posix_fallocate"):  # a full disk would otherwise kill the process while it writes to the map
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return arrays[0], arrays[1]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Wait until no other process works on the bank. A process that dies releases its lock."""
    import fcntl  # here, because Windows has no fcntl

    with _write_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_name(f"{folder.name}.lock").open("w")
    with lock:
        with _write_errors(folder):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.info("waiting for another process that works on this bank (lock: %s)", lock.name)
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _write_errors(place: Path) -> Iterator[None]:
    """Turn errors of the file system into a UsageError that names the remedy."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"{place}: cannot be written ({reason}); set OCL_BENCH_CACHE elsewhere") from error
