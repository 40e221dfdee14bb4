"""Renders and encodes the scenes of a training while it trains, in the order in which its first epoch needs them.

The functions give what those of `data.py` give, and leave the same files. Who asks for a row too early waits for it.
Chunks that are not complete are kept beside the others as `.part` files: a training that was killed goes on with them.
"""

from __future__ import annotations

import copy
import os
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..core.errors import UsageError
from ..core.paths import cache_root
from ..data.rendered import ensure_files
from ..data.scenes.sampler import sample_scene
from ..data.scenes.store import Store
from . import data
from .background import Background, Job, in_processes
from .data import CACHE, CROPPED, MOST_OBJECTS, SIDES, ChunkedArray, PaddedImages, TrainingScenes
from .recipe import SceneSelection

GROUP = 8
"""Scenes that a process renders at once: few, because a step waits for the slowest of its scenes."""

FEW = 64
"""So many scenes are rendered before the first step: processes take longer to start."""

Kinds = Mapping[str, tuple[tuple[int, ...], type]]
"""Name of each array -> shape of its rows, type of its numbers."""

Keep = Callable[[Sequence[int], Mapping[str, Tensor]], None]
"""Keeps rows of these numbers, by name of the array."""


def training_scenes(background: Background, scenes: SceneSelection) -> TrainingScenes:
    """`data.training_scenes`, in the background.

    Raises:
        UsageError: The renderer does not know the variant or the revision.
    """
    source = scenes.variant, scenes.revision, scenes.split
    try:
        sample_scene(*source, 0, 0)
    except ValueError as error:
        raise UsageError(f"field 'train.scenes': {error}") from error

    def produce(job: Job, keep: Keep) -> None:
        def store(rows: list[int], made: tuple[np.ndarray, np.ndarray]) -> None:
            keep(rows, {"images": torch.from_numpy(made[0]), "labels": torch.from_numpy(made[1])})

        in_processes(job, partial(_rendered, *source), GROUP, store)

    side = (CROPPED, CROPPED)
    kinds: Kinds = {"images": ((3, *side), np.uint8), "labels": (side, np.uint8)}
    folder = cache_root() / CACHE / "scenes" / scenes.key
    arrays = _growing(background, folder, kinds, scenes.count, produce, f"rendering ahead, {scenes.key}")
    return TrainingScenes(arrays["images"], arrays["labels"], scenes.key)


def _rendered(variant: str, revision: int, split: str, rows: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of these scenes, in a process."""
    images, labels = data.render_rows(variant, revision, split, rows)
    return np.ascontiguousarray(images), np.ascontiguousarray(labels)


def frozen_features(
    background: Background,
    encoder: nn.Module,
    scenes: TrainingScenes,
    encoder_key: str,
    *,
    device: torch.device,
    flip: bool = False,
) -> ChunkedArray:
    """`data.frozen_features`, in the background."""
    # The training sets the mode of its whole model, and this thread encodes at the same time.
    encode = copy.deepcopy(encoder).eval()
    first = data.feature_rows(encode, torch.zeros(1, 3, CROPPED, CROPPED, dtype=torch.uint8), device, flip)

    def produce(job: Job, keep: Keep) -> None:
        while rows := job.take(data.CHUNK):
            keep(rows, {"features": data.feature_rows(encode, scenes.images[rows], device, flip)})

    kinds: Kinds = {"features": (tuple(first.shape[1:]), np.float16)}
    folder = data.features_folder(encoder_key, scenes, flip)
    return _growing(background, folder, kinds, len(scenes), produce)["features"]


def padded_scenes(background: Background, scenes: SceneSelection) -> PaddedImages:
    """`data.padded_scenes` of scenes with classes, in the background."""
    side = SIDES[scenes.variant]
    kinds: Kinds = {"images": ((3, side, side), np.uint8), "sizes": ((2,), np.int64)}
    produce = _from_store(background, scenes, partial(data.padded_rows, side))
    arrays = _growing(background, cache_root() / CACHE / "images" / scenes.key, kinds, scenes.count, produce)
    return PaddedImages(arrays["images"], arrays["sizes"], scenes.key)


def scene_boxes(background: Background, scenes: SceneSelection) -> ChunkedArray:
    """`data.scene_boxes` of scenes with classes, in the background."""
    kinds: Kinds = {"boxes": ((MOST_OBJECTS, 4), np.float32)}
    produce = _from_store(background, scenes, lambda read: {"boxes": data.box_rows(read)})
    return _growing(background, cache_root() / CACHE / "boxes" / scenes.key, kinds, scenes.count, produce)["boxes"]


def finish_store(background: Background, scenes: SceneSelection) -> None:
    """Wait until nobody renders into the store of these scenes any more."""
    background.finish(str(data.open_scenes(scenes, scenes.split).folder))


def _from_store(
    background: Background, scenes: SceneSelection, rows_of: Callable[[Sequence[Any]], Mapping[str, Tensor]]
) -> Callable[[Job, Keep], None]:
    """Makes rows from the files of a store. A file holds several scenes; it is read when the first one is needed."""
    store = data.open_scenes(scenes, scenes.split)
    try:
        store.check_revision()
    except ValueError as error:
        raise UsageError(f"field 'train.scenes': {error}") from error

    def produce(job: Job, keep: Keep) -> None:
        files = background.once(str(store.folder), partial(_render_store, background, store, scenes.count))
        while first := job.take(1):
            number = first[0] // store.chunk
            in_file = range(number * store.chunk, min((number + 1) * store.chunk, job.count))
            files.wait([number])
            rows = [*first, *job.claim(in_file)]
            read = store.file(number)
            keep(rows, rows_of([read[row - in_file.start] for row in rows]))

    return produce


def _render_store(background: Background, store: Store[Any], count: int) -> Job:
    """The job that renders the files of a store: in the order in which their first scene is needed."""
    whole = -(-count // data.CHUNK) * data.CHUNK  # whole chunks: a training with more scenes can use them
    files = store.files(whole)
    order = dict.fromkeys([*(background.order(count) // store.chunk).tolist(), *files.values()])

    def work(job: Job) -> None:
        def render(names: Sequence[str]) -> None:
            missing = np.zeros(len(files), bool)
            missing[[files[name] for name in names]] = True
            job.begin(missing)
            store.folder.mkdir(parents=True, exist_ok=True)
            # Processes are killed in the end, and would leave what they have half written.
            with TemporaryDirectory(prefix=".ahead-", dir=store.folder.parent) as place:

                def keep(numbers: list[int], names: list[str]) -> None:
                    for name in names:
                        os.replace(Path(place, name), store.folder / name)
                    job.done(numbers)

                in_processes(job, partial(_written, store, place), 1, keep)

        ensure_files(store.folder, files, render)

    return background.start(
        work, len(files), order, f"rendering ahead, {store.variant}-r{store.revision}-{store.split}", store.chunk
    )


def _written(store: Store[Any], place: str, numbers: list[int]) -> list[str]:
    """Render files of a store into a folder, in a process. Returns their names."""
    torch.set_num_threads(1)
    names = {number: name for name, number in store.files((max(numbers) + 1) * store.chunk).items()}
    for number in numbers:
        store.write(Path(place, names[number]), range(number * store.chunk, (number + 1) * store.chunk))
    return [names[number] for number in numbers]


def _growing(
    background: Background,
    folder: Path,
    kinds: Kinds,
    count: int,
    produce: Callable[[Job, Keep], None],
    title: str = "",
) -> dict[str, ChunkedArray]:
    """Arrays whose missing rows a job makes.

    Args:
        background: Gets the job.
        folder: Folder of the chunks.
        kinds: The arrays.
        count: Number of rows.
        produce: Takes rows of the job and keeps them.
        title: See `Background.start`.
    """
    growth = _Growth(folder, kinds, -(-count // data.CHUNK), produce)
    # Whole chunks are made, also beyond `count`: a training with more scenes can use them.
    order = [*background.order(count).tolist(), *range(count, growth.chunks * data.CHUNK)]
    job = background.start(growth.work, len(order), order, title)
    job.wait_for_begin()
    return {kind: ChunkedArray(growth.maps(kind), count, job.wait) for kind in kinds}


@dataclass(frozen=True)
class _Growth:
    """Chunks of some arrays, and the parts of those that are missing."""

    folder: Path
    kinds: Kinds
    chunks: int
    produce: Callable[[Job, Keep], None]
    parts: dict[int, dict[str, _Part]] = field(default_factory=dict)

    def work(self, job: Job) -> None:
        """Make what is missing."""
        data.ensure_chunks(self.folder, tuple(self.kinds), self.chunks * data.CHUNK, partial(self._make, job))

    def _make(self, job: Job, missing: Sequence[int]) -> None:
        absent = np.zeros((self.chunks, data.CHUNK), bool)
        self.folder.mkdir(parents=True, exist_ok=True)
        for chunk in missing:
            self.parts[chunk] = {kind: _Part(self.folder, kind, chunk, *rest) for kind, rest in self.kinds.items()}
            absent[chunk] = ~np.all([part.present for part in self.parts[chunk].values()], axis=0)
        job.begin(absent.reshape(-1))
        self._complete(missing)
        self.produce(job, partial(self._keep, job))

    def _keep(self, job: Job, rows: Sequence[int], made: Mapping[str, Tensor]) -> None:
        for position, row in enumerate(rows):
            chunk, place = divmod(row, data.CHUNK)
            for kind, part in self.parts[chunk].items():
                part.write(place, np.ascontiguousarray(made[kind][position].cpu().numpy()))
        job.done(rows)
        self._complete({row // data.CHUNK for row in rows})

    def _complete(self, chunks: Iterable[int]) -> None:
        """Give those of these chunks that have all their rows their names."""
        for chunk in chunks:
            parts = self.parts[chunk].values()
            if all(part.present.all() for part in parts):
                for part in parts:
                    part.complete()

    def maps(self, kind: str) -> tuple[np.ndarray, ...]:
        """Memory maps of all chunks of an array, with rows that are not there yet."""
        return tuple(
            self.parts[chunk][kind].rows
            if chunk in self.parts
            else data.open_array(data.chunk_path(self.folder, kind, chunk))
            for chunk in range(self.chunks)
        )


class _Part:
    """A chunk of which some rows are there. Behind its rows the file has a mark of each one, until it is complete.

    Rows are written as to any file: a full disk is an error then, and would end the process if they were written to the
    memory map `rows`, which shows them.
    """

    def __init__(self, folder: Path, kind: str, chunk: int, shape: tuple[int, ...], number: type) -> None:
        self.target = data.chunk_path(folder, kind, chunk)
        self.place = self.target.with_name(f".{self.target.name}.part")
        self.rows, marks = self._resumed((data.CHUNK, *shape), np.dtype(number))
        # A row that was not written as a whole before a machine failed has another checksum.
        self.present = np.array([mark and mark == _mark(row) for row, mark in zip(self.rows, marks, strict=True)], bool)

    def _resumed(self, shape: tuple[int, ...], number: np.dtype[Any]) -> tuple[np.memmap[Any, Any], np.ndarray]:
        """Rows and marks that an earlier training left, otherwise those of a fresh file."""
        marks = 8 * shape[0]
        try:
            rows: np.memmap[Any, Any] = np.load(self.place, mmap_mode="r", allow_pickle=False)
            if (rows.shape, rows.dtype) == (shape, number) and self._end(rows) + marks == self.place.stat().st_size:
                return rows, np.fromfile(self.place, np.uint64, offset=self._end(rows))
        except (OSError, ValueError, EOFError):
            pass  # there is none, or it is damaged
        self.place.unlink(missing_ok=True)
        rows = np.lib.format.open_memmap(self.place, mode="w+", dtype=number, shape=shape)
        os.truncate(self.place, self._end(rows) + marks)
        return rows, np.zeros(shape[0], np.uint64)

    @staticmethod
    def _end(rows: np.memmap[Any, Any]) -> int:
        """Where the file ends when it is complete."""
        return int(rows.offset + rows.nbytes)

    def write(self, position: int, row: np.ndarray) -> None:
        """Write a row. Raises OSError naming the chunk."""
        try:
            with self.place.open("r+b") as file:
                file.seek(self.rows.offset + position * row.nbytes)
                file.write(row.data)
                file.seek(self._end(self.rows) + 8 * position)
                file.write(np.uint64(_mark(row)).tobytes())
        except OSError as error:  # that of a full disk names no file
            raise OSError(error.errno, error.strerror, str(self.target)) from error
        self.present[position] = True

    def complete(self) -> None:
        """Make it the chunk. The memory map stays what it is."""
        os.truncate(self.place, self._end(self.rows))
        os.replace(self.place, self.target)


def _mark(row: np.ndarray) -> int:
    """Checksum of a row, and never 0, which stands where there is none."""
    return zlib.crc32(np.ascontiguousarray(row).data) + 1
