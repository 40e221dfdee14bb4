"""Caches rendered training scenes and their frozen features in chunks. Chunks are written atomically and memory-mapped.

A chunk holds `CHUNK` consecutive scenes. Scene i is a pure function of (variant, revision, split, i). All trainings on
one revision therefore share its chunks, whatever number of scenes they use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ..core.errors import UsageError
from ..core.files import check_regular, write_atomically
from ..core.log import progress_bar
from ..core.paths import cache_root
from ..core.processors import processors
from ..data.rendered import ensure_files
from ..data.scenes.salient import SIZE as SALIENT_SIZE
from ..data.scenes.store import SIZE, open_store
from ..data.stand_ins.layouts import ensure_scenes
from .recipe import SceneSelection

CACHE = "training"
"""Folder of the cache. Rename it when arrays are written differently: those of earlier versions are then not read."""

CHUNK = 64
"""Scenes in one file of the cache."""

RENDERED = 160
"""Side of rendered scenes in pixels."""

CROPPED = 128
"""Side after CLEVRTEX's official central crop of 0.8. Scenes are rendered so small that no resampling is needed."""

SIDES = {"things": SIZE, "salient": SALIENT_SIZE}
"""Variant with classes -> largest side of its scenes in pixels."""

MOST_OBJECTS = 16
"""Upper bound on the number of objects in a training scene."""

READER_THREADS = 4
"""Threads that decode and crop the images or frames of a reader."""


@dataclass(frozen=True)
class ChunkedArray:
    """N rows in memory maps of `CHUNK` rows each. `array[indices]` copies the chosen rows.

    wait: returns when these rows are there; None where all of them are.
    """

    chunks: tuple[np.ndarray, ...]
    count: int
    wait: Callable[[Sequence[int] | np.ndarray], None] | None = None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, indices: Sequence[int] | np.ndarray) -> Tensor:
        """Rows (n, ...) in the order of `indices`."""
        if self.wait is not None:
            self.wait(indices)
        rows = [self.chunks[int(i) // CHUNK][int(i) % CHUNK] for i in indices]
        return torch.from_numpy(np.stack(rows))


@dataclass(frozen=True)
class TrainingScenes:
    """Cropped training scenes.

    Attributes:
        images: (N, 3, 128, 128) uint8.
        labels: (N, 128, 128) uint8, 0 is background. Only objectives whose model card declares `supervision: boxes`
            may read them.
        key: Name of the scenes; part of the path of cached features.
    """

    images: ChunkedArray
    labels: ChunkedArray
    key: str

    def __len__(self) -> int:
        return len(self.images)


def training_scenes(scenes: SceneSelection, *, workers: int | None = None, progress: bool = True) -> TrainingScenes:
    """Open the training scenes. Missing chunks are rendered in parallel processes.

    Args:
        scenes: Which scenes.
        workers: Number of processes; by default the number of usable CPU cores.
        progress: Draw a progress bar.

    Raises:
        UsageError: The renderer does not know the variant or the revision.
    """
    folder = cache_root() / CACHE / "scenes" / scenes.key
    make = partial(_render_chunk, str(folder), scenes.variant, scenes.revision, scenes.split)

    def render(missing: list[int]) -> None:
        _in_parallel(make, missing, workers, f"rendering {scenes.key}" if progress else "")

    try:
        ensure_chunks(folder, ("images", "labels"), scenes.count, render)
    except ValueError as error:
        raise UsageError(f"field 'train.scenes': {error}") from error
    return TrainingScenes(
        images=open_chunks(folder, "images", scenes.count),
        labels=open_chunks(folder, "labels", scenes.count),
        key=scenes.key,
    )


def _render_chunk(folder: str, variant: str, revision: int, split: str, chunk: int) -> None:
    """Render one chunk and store it."""
    images, labels = render_rows(variant, revision, split, range(chunk * CHUNK, (chunk + 1) * CHUNK))
    save_chunk(Path(folder), "images", chunk, images)
    save_chunk(Path(folder), "labels", chunk, labels)


def render_rows(variant: str, revision: int, split: str, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Images and labels of `TrainingScenes` of these scenes. The process goes on with one thread of torch."""
    from ..data.scenes import render  # loads the ray caster only when something has to be rendered

    torch.set_num_threads(1)  # the processes already use all cores
    margin = (RENDERED - CROPPED) // 2
    crop = slice(margin, margin + CROPPED)
    rendered = render(variant, revision, split, list(indices), size=RENDERED, windows=[(crop, crop)] * len(indices))
    return rendered.image[:, :, crop, crop], rendered.labels[:, crop, crop]


@dataclass(frozen=True)
class PaddedImages:
    """Images of different sizes, each in the upper left corner of a square.

    Attributes:
        images: (N, 3, S, S) uint8, black outside the image.
        sizes: (N, 2) int64 height and width.
        key: Name of the images.
    """

    images: ChunkedArray
    sizes: ChunkedArray
    key: str

    def __len__(self) -> int:
        return len(self.images)


def padded_scenes(scenes: SceneSelection, *, progress: bool = True) -> PaddedImages:
    """Images of training scenes, without labels, in the sizes that evaluation uses.

    Scenes with classes (`things`, `salient`) have several sizes. All others are those of `training_scenes`.
    """
    if scenes.variant not in SIDES:
        square = training_scenes(scenes, progress=progress)
        side = np.full((CHUNK, 2), CROPPED, dtype=np.int64)
        return PaddedImages(square.images, ChunkedArray((side,) * len(square.images.chunks), scenes.count), square.key)
    folder = cache_root() / CACHE / "images" / scenes.key
    pad = partial(_pad_chunk, folder, SIDES[scenes.variant])
    chunks_of_scenes(scenes, folder, ("images", "sizes"), pad, progress=progress)
    images, sizes = (open_chunks(folder, kind, scenes.count) for kind in ("images", "sizes"))
    return PaddedImages(images, sizes, scenes.key)


def scene_boxes(scenes: SceneSelection, *, progress: bool = True) -> ChunkedArray:
    """Boxes of all visible objects of training scenes: rows (`MOST_OBJECTS`, 4) float32 xyxy pixels, NaN where absent.

    Only objectives whose model card declares `supervision: boxes` may read them.
    """
    folder = cache_root() / CACHE / "boxes" / scenes.key
    if scenes.variant in SIDES:
        chunks_of_scenes(scenes, folder, ("boxes",), partial(_box_chunk, folder), progress=progress)
    else:
        labels = training_scenes(scenes, progress=progress).labels

        def make(missing: list[int]) -> None:
            for chunk in missing:
                maps = torch.from_numpy(np.array(labels.chunks[chunk]))
                save_chunk(folder, "boxes", chunk, object_boxes(maps, MOST_OBJECTS))

        ensure_chunks(folder, ("boxes",), scenes.count, make)
    return open_chunks(folder, "boxes", scenes.count)


def chunks_of_scenes(
    scenes: SceneSelection,
    folder: Path,
    kinds: Sequence[str],
    save: Callable[[int, list[Any]], None],
    *,
    progress: bool = True,
) -> None:
    """Call `save(chunk, scenes)` for each chunk that is not in `folder` as it was written.

    Args:
        scenes: Which scenes.
        folder: Folder of the cached arrays.
        kinds: Names of the arrays that `save` writes.
        save: Writes the arrays of one chunk.
        progress: Draw a progress bar.
    """

    def make(missing: list[int]) -> None:
        rendered: list[Any] = []
        # Whole chunks are rendered, also beyond `scenes.count`: a training with more scenes can use them.
        store = ensure_scenes(open_scenes(scenes, scenes.split), (missing[-1] + 1) * CHUNK, progress=progress)
        for index, scene in enumerate(store):
            rendered = [*rendered, scene] if index % CHUNK else [scene]
            if len(rendered) == CHUNK and index // CHUNK in missing:
                save(index // CHUNK, rendered)

    ensure_chunks(folder, kinds, scenes.count, make)


def open_scenes(scenes: SceneSelection, split: str) -> Any:
    """The store of a split of the scenes. Raises UsageError for a variant that has no store."""
    try:
        return open_store(scenes.variant, scenes.revision, split, 0)
    except ValueError as error:
        raise UsageError(f"field 'train.scenes': {error}") from error


def _pad_chunk(folder: Path, side: int, chunk: int, scenes: Sequence[Any]) -> None:
    """Pad the images of one chunk and store them."""
    for kind, rows in padded_rows(side, scenes).items():
        save_chunk(folder, kind, chunk, rows)


def padded_rows(side: int, scenes: Sequence[Any]) -> dict[str, Tensor]:
    """Images and sizes of `PaddedImages` of these scenes."""
    padded = np.zeros((len(scenes), 3, side, side), dtype=np.uint8)
    for row, scene in zip(padded, scenes, strict=True):
        row[:, : scene.image.shape[0], : scene.image.shape[1]] = scene.image.transpose(2, 0, 1)
    sizes = np.array([scene.image.shape[:2] for scene in scenes], dtype=np.int64)
    return {"images": torch.from_numpy(padded), "sizes": torch.from_numpy(sizes)}


def _box_chunk(folder: Path, chunk: int, scenes: Sequence[Any]) -> None:
    """Store the boxes of one chunk."""
    save_chunk(folder, "boxes", chunk, box_rows(scenes))


def box_rows(scenes: Sequence[Any]) -> Tensor:
    """Rows of `scene_boxes`: boxes of the scene where it has boxes, otherwise those of its objects' pixels."""
    rows = torch.full((len(scenes), MOST_OBJECTS, 4), float("nan"))
    for row, scene in zip(rows, scenes, strict=True):
        if hasattr(scene, "boxes"):
            boxes = torch.tensor([box for _, box in scene.boxes]).view(-1, 4)
            row[: len(boxes)] = boxes
        else:
            row.copy_(object_boxes(torch.from_numpy(scene.objects)[None].int(), MOST_OBJECTS)[0])
    return rows


def frozen_features(
    encode: Callable[[Tensor], Tensor],
    scenes: TrainingScenes,
    encoder_key: str,
    *,
    device: torch.device,
    flip: bool = False,
    progress: bool = True,
) -> ChunkedArray:
    """Features of the training scenes by a frozen encoder: rows (P, D) float16, computed in float32 and cached.

    Args:
        encode: Maps (B, 3, H, W) float32 in [0, 1] to (B, D, h, w).
        scenes: The scenes to encode.
        encoder_key: Hash of the encoder, see `state_sha256`. It names the folder in the cache.
        device: Where features are computed.
        flip: Encode the mirrored images instead.
        progress: Draw a progress bar.
    """
    folder = features_folder(encoder_key, scenes, flip)

    def make(missing: list[int]) -> None:
        for chunk in track(missing, "encoding scenes" if progress else ""):
            images = torch.from_numpy(np.array(scenes.images.chunks[chunk]))
            save_chunk(folder, "features", chunk, feature_rows(encode, images, device, flip))

    ensure_chunks(folder, ("features",), len(scenes), make)
    return open_chunks(folder, "features", len(scenes))


def features_folder(encoder_key: str, scenes: TrainingScenes, flip: bool) -> Path:
    """Folder of the features that an encoder has of these scenes, or of the mirrored ones."""
    return cache_root() / CACHE / "features" / encoder_key[:16] / (scenes.key + ("-flipped" if flip else ""))


def feature_rows(encode: Callable[[Tensor], Tensor], images: Tensor, device: torch.device, flip: bool) -> Tensor:
    """Rows (B, P, D) of `frozen_features` of images (B, 3, H, W) uint8."""
    pixels = images.to(device).float() / 255
    with torch.no_grad():
        return encode(pixels.flip(-1) if flip else pixels).flatten(2).transpose(1, 2).half()


def object_boxes(labels: Tensor, most: int) -> Tensor:
    """Boxes of the objects in label maps: (B, H, W) integers -> (B, most, 4) float32 xyxy pixels, NaN where absent.

    Row k belongs to label k + 1. x2 and y2 are exclusive.
    """
    height, width = labels.shape[-2:]
    # Numbers of the labels' own type: the comparison of bytes with wide integers would widen all pixels.
    numbers = torch.arange(1, most + 1, device=labels.device).to(labels.dtype)
    present = labels.unsqueeze(1) == numbers.view(1, most, 1, 1)
    columns, rows = present.any(2), present.any(3)
    x, y = torch.arange(width, device=labels.device), torch.arange(height, device=labels.device)
    # The smallest and largest place where a label occurs; absent pixels get a value that never wins.
    sides = [
        torch.where(columns, x, width).amin(2),
        torch.where(rows, y, height).amin(2),
        torch.where(columns, x, -1).amax(2) + 1,
        torch.where(rows, y, -1).amax(2) + 1,
    ]
    boxes = torch.stack(sides, dim=-1).float()
    return boxes.masked_fill(~columns.any(2, keepdim=True), float("nan"))


def chunk_path(folder: Path, kind: str, chunk: int) -> Path:
    """File of one chunk of an array."""
    return folder / f"{kind}-{chunk:06d}.npy"


def ensure_chunks(folder: Path, kinds: Sequence[str], count: int, make: Callable[[list[int]], None]) -> None:
    """Call `make` with the numbers of those chunks of `count` rows that are not in the cache as they were written."""
    numbers = range(-(-count // CHUNK))
    chunks = {chunk_path(folder, kind, number).name: number for number in numbers for kind in kinds}
    ensure_files(folder, chunks, lambda names: make(sorted({chunks[name] for name in names})))


def save_chunk(folder: Path, kind: str, chunk: int, rows: Tensor) -> None:
    """Write one chunk of an array."""
    array = np.ascontiguousarray(rows.cpu().numpy())
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(chunk_path(folder, kind, chunk), partial(save_array, array))


def save_array(array: np.ndarray, path: Path) -> None:
    """Write an array as a file that can be memory-mapped."""
    with path.open("wb") as file:  # np.save would append .npy to the name of a temporary file
        np.save(file, array, allow_pickle=False)


def open_chunks(folder: Path, kind: str, count: int) -> ChunkedArray:
    """The array whose chunks are all there."""
    chunks = (open_array(chunk_path(folder, kind, chunk)) for chunk in range(-(-count // CHUNK)))
    return ChunkedArray(tuple(chunks), count)


def open_array(path: Path) -> np.ndarray:
    """Memory map of a cached array. Raises UsageError for a damaged file."""
    try:
        check_regular(path)
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read ({error}); remove it, it will be written again") from error
    return array


def reader_pool() -> ThreadPoolExecutor:
    """Threads for the images of a reader."""
    return ThreadPoolExecutor(READER_THREADS)


def _in_parallel(work: Callable[[int], None], chunks: list[int], workers: int | None, title: str) -> None:
    """Call `work` for every chunk, in several processes where there is more than one chunk and core."""
    workers = min(len(chunks), workers or processors())
    if workers <= 1:
        for chunk in track(chunks, title if chunks else ""):
            work(chunk)
        return
    # spawn: a forked child of a process with torch threads can deadlock
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for _ in track(pool.map(work, chunks), title, total=len(chunks)):
            pass


def track(items: Iterable[Any], title: str, total: int | None = None) -> Iterator[Any]:
    """The items, with a progress bar or a line in the log; without a title neither."""
    count = total if total is not None else len(cast(Sized, items))
    with progress_bar(title, count, bool(title), "pieces") as advance:
        for item in items:
            yield item
            advance(1)
