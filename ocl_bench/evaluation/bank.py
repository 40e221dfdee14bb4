"""The bank of k-NN: the unit feature and the label of each image of the fit split, on disk and resumable.

    <cache>/banks/<first two of the key>/<key>/features.npy    (N, D) float32, memory-mapped
                                               labels.npy      (N, 2) int64: label, position in the fit split
                                               progress.json   how many images are done, replaced atomically
    <cache>/banks/<first two of the key>/<key>.lock             held while somebody works on the bank

N is the number of images; those that fail leave unused rows at the end. The files grow to their final size at once, so
that a full disk is noticed before the first image. Nothing is ever loaded whole.
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

import numpy as np

from ..cards.protocols import BOXES_FILE, HEAD_VERSION
from ..core.errors import UsageError
from ..core.files import digest, write_atomically
from ..core.log import logger, progress_bar
from ..core.paths import cache_root
from ..families.knn import Bank, Knn

if TYPE_CHECKING:
    from ..data import OpenData
    from .plan import Plan

_BLOCK, _SECONDS = 1024, 20.0  # images or time between two writes of the progress, whichever is over first
_PREPARED = ("crop", "short_side", "interpolation", "boxes", "overlap")  # the rules that change what a model sees
_FEATURES, _LABELS, _PROGRESS = "features.npy", "labels.npy", "progress.json"


@dataclass(frozen=True)
class _Progress:
    """How far a bank is. images: of the split, of which `done` were looked at, `rows` are in the files, `zeros` of them
    empty, and `failed` are left out, the first for the reason `first`. length: of a feature.
    """

    images: int
    length: int = 0
    done: int = 0
    rows: int = 0
    zeros: int = 0
    failed: int = 0
    first: str = ""


@dataclass
class _Files:
    """The memory-mapped arrays of a bank with its progress."""

    folder: Path
    progress: _Progress
    arrays: tuple[np.memmap, np.memmap] | None = None

    def bank(self) -> Bank:
        """What is done so far. Raises UsageError when that is nothing."""
        if self.arrays is None or not self.progress.rows:
            raise UsageError(f"no image of the fit split could be used; first: {self.progress.first}")
        features, labels = (array[: self.progress.rows] for array in self.arrays)
        features.flags.writeable = False
        return Bank(features, np.array(labels[:, 0]), np.array(labels[:, 1]), self.progress.failed, self.progress.zeros)

    def append(self, features: list[np.ndarray], labels: list[tuple[int, int]], model: str) -> None:
        """Write rows, each a feature and its (label, position); the files are made with the first. model: its name."""
        length = len(features[0])
        if self.arrays is None:
            self.progress = replace(self.progress, length=length)
            with _written(self.folder):
                self.arrays = _made(self.folder, self.progress)
        if length != self.progress.length:
            before = self.progress.length
            raise UsageError(f"model {model}: gives features of {length} numbers, and gave {before} before")
        rows = slice(self.progress.rows, self.progress.rows + len(features))
        self.arrays[0][rows], self.arrays[1][rows] = np.stack(features), labels
        zeros = self.progress.zeros + sum(not feature.any() for feature in features)
        self.progress = replace(self.progress, rows=rows.stop, zeros=zeros)

    def keep(self) -> None:
        """Bring rows to the disk, then say so: a killed run finds no more announced than is there."""
        text = json.dumps(asdict(self.progress))
        with _written(self.folder):
            for array in self.arrays or ():
                array.flush()
            write_atomically(self.folder / _PROGRESS, lambda target: target.write_text(text, encoding="utf-8"))


def bank_for(plan: Plan, train: OpenData) -> Bank:
    """The bank of the plan's model on `train`: from the cache, else extracted as the plan's adapter reads predictions.

    A finished bank is reused, an unfinished one goes on where it stopped, a damaged one or `plan.refit` starts anew.
    Images that fail are left out, counted and named on stderr. Of several processes or ranks (torchrun), one extracts
    and the others wait; should it die, the next one goes on. The bank of a live object, which no key can name, is
    temporary and goes with the `Bank`, at the latest when the process ends.

    Raises UsageError when more than a tenth of the images fail, one has no label, or the cache cannot be written.
    """
    if not plan.model.reusable:
        return _temporary(plan, train)
    key = bank_key(plan, train)
    folder = cache_root() / "banks" / key[:2] / key
    with _alone(folder):
        if plan.refit:
            shutil.rmtree(folder, ignore_errors=True)
        return _extracted(folder, plan, train)


def bank_key(plan: Plan, train: OpenData) -> str:
    """SHA-256 of everything that can change a feature of `train` or its row, and of nothing that cannot.

    Votes do not (temperature, k, ties), nor the name of a card: cards that prepare images alike share a bank. Device,
    batch size and threads change rounding only, as in the key of a result. The content of a box file is part of the
    revision.
    """
    from .loop import input_size
    from .plan import DTYPE

    data, model, protocol = plan.task.data, plan.model, plan.task.protocol
    return digest(
        {
            "version": HEAD_VERSION,
            "data": [data.reader, {name: value for name, value in data.options.items() if name != BOXES_FILE}],
            "images": [train.kind, train.revision, digest(list(train.ids))],
            "protocol": {name: getattr(protocol, name) for name in _PREPARED} | {"input": input_size(plan)},
            "pooling": [plan.task.family, *getattr(plan.adapter, "any_of", ())],
            "model": [model.name, dict(model.options), model.checkpoint_sha256, model.source_sha256],
            "noise_seed": plan.noise_seeds[0],
            "dtype": DTYPE,
        }
    )


def with_bank(plan: Plan, train: OpenData) -> Knn:
    """The plan's adapter with the bank of `train`; classes are those of the bank and those that the data declares."""
    adapter = cast(Knn, plan.adapter)
    bank = bank_for(plan, train)
    for text in _remarks(plan, train, bank, adapter.k):
        logger.info("%s", text)
    return adapter.with_bank(bank, [*train.categories, *plan.data.categories], plan.device)


def _remarks(plan: Plan, train: OpenData, bank: Bank, k: int) -> Iterator[str]:
    """What is unusual about a bank: fewer images than the largest k, classes without images, zeros."""
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


def _temporary(plan: Plan, train: OpenData) -> Bank:
    place = cache_root() / "banks"
    with _written(place):
        place.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="temporary-", dir=place))
    try:
        bank = _extracted(folder, plan, train)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(bank, shutil.rmtree, folder, ignore_errors=True)
    return bank


def _extracted(folder: Path, plan: Plan, train: OpenData) -> Bank:
    """The bank in `folder`, after the images that are missing in it were predicted."""
    files = _opened(folder, train)
    if files is None:
        with _written(folder):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        files = _Files(folder, _Progress(len(train.ids)))
    if files.progress.done < len(train.ids):
        _extract(files, plan, train)
    if files.progress.failed:
        logger.warning("left out: %s (--force reads them again)", _failures(files.progress))
    return files.bank()


def _extract(files: _Files, plan: Plan, train: OpenData) -> None:
    """Predict the images from where the bank ends, exactly as those that are scored."""
    from .loop import Runner

    runner, count = Runner(replace(plan, data=train)), len(train.ids)
    kept, since = files.progress.done, time.monotonic()
    with progress_bar(f"{plan.model.name}: features of the bank", count, unit="images") as advance:
        advance(kept)
        for first in range(kept, count, plan.batch_size):
            chosen = range(first, min(first + plan.batch_size, count))
            items, unreadable = runner.read(chosen)
            items, outputs, unpredicted = runner.outputs(items, plan.noise_seeds[0])
            if items:
                place = {train.ids[position]: position for position in chosen}
                labels = [(_label(item.truth.label, item.id), place[item.id]) for item in items]
                files.append(outputs, labels, plan.model.name)
            failed = [*unreadable, *unpredicted]
            before = files.progress
            files.progress = replace(
                before,
                done=chosen.stop,
                failed=before.failed + len(failed),
                first=before.first or (failed[0].error if failed else ""),
            )
            if files.progress.failed > count / 10:
                shutil.rmtree(files.folder, ignore_errors=True)  # after a repair, all of them are read again
                raise UsageError(f"more than a tenth fail: {_failures(files.progress)}")
            waited = time.monotonic() - since > _SECONDS
            if chosen.stop - kept >= _BLOCK or waited or chosen.stop == count:
                files.keep()
                kept, since = chosen.stop, time.monotonic()
            advance(len(chosen))


def _failures(progress: _Progress) -> str:
    return f"{progress.failed} of {progress.images} images of the fit split fail, first: {progress.first}"


def _label(label: int | None, sample_id: str) -> int:
    if label is None:
        raise UsageError(f"sample {sample_id}: has no label (Truth.label); k-NN needs data with a class for each image")
    return label


def _opened(folder: Path, train: OpenData) -> _Files | None:
    """The files of a bank of these images, finished or not; None when they are missing or damaged."""
    try:
        progress = _Progress(**json.loads((folder / _PROGRESS).read_text(encoding="utf-8")))
        if progress.images != len(train.ids):
            return None
        if not progress.rows:
            return _Files(folder, progress)
        arrays = [np.load(folder / name, mmap_mode="r+") for name in (_FEATURES, _LABELS)]
    except (OSError, ValueError, TypeError, EOFError):
        return None
    features, labels = arrays
    expected = (progress.images, progress.length), (progress.images, 2), np.float32, np.int64
    if (features.shape, labels.shape, features.dtype, labels.dtype) != expected:
        return None
    return _Files(folder, progress, (features, labels)) if _unit(features[: progress.rows]) else None


def _unit(features: np.ndarray) -> bool:
    """Whether all rows have length 1, or 0 (an image in which the model sees nothing), so far as float32 can."""
    for first in range(0, len(features), 8192):
        squares = np.square(features[first : first + 8192]).sum(1)
        if not ((np.abs(squares - 1) < 1e-3) | (squares == 0)).all():
            return False
    return True


def _made(folder: Path, progress: _Progress) -> tuple[np.memmap, np.memmap]:
    """Empty files of the final size, whose space is reserved where the system can do so."""
    arrays = []
    for name, width, dtype in ((_FEATURES, progress.length, np.float32), (_LABELS, 2, np.int64)):
        path, shape = folder / name, (progress.images, width)
        arrays.append(np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape))
        if hasattr(os, "posix_fallocate"):  # else a full disk would kill the process in the middle of a write
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return arrays[0], arrays[1]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Only one process works on a bank; the lock goes with the process that holds it."""
    import fcntl

    with _written(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_name(f"{folder.name}.lock").open("w")
    with lock:
        with _written(folder):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.info("waiting for another process that works on this bank (lock: %s)", lock.name)
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _written(place: Path) -> Iterator[None]:
    """UsageError for what the file system refuses."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"{place}: cannot be written ({reason}); set OCL_BENCH_CACHE elsewhere") from error
