"""Training scenes and frozen features, cached in chunks that are written atomically and read through memory maps.

A chunk holds `CHUNK` consecutive scenes. Scene i is a pure function of (variant, revision, split, i), so chunks are
shared by every training that uses the same revision, whatever number of scenes it asks for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ..core.errors import UsageError
from ..core.files import write_atomically
from ..core.log import progress_bar
from ..core.paths import cache_root
from ..core.types import Sample, Truth
from ..data.base import OpenData, subset
from ..data.scenes.salient import SIZE as SALIENT_SIZE
from ..data.scenes.store import SIZE, open_store
from ..data.stand_ins.layouts import ensure_scenes
from .recipe import Scenes

CHUNK = 64
RENDERED = 160
CROPPED = 128
"""Side in pixels after the official central crop of 0.8: 128 of 160, without resampling."""

SIDES = {"things": SIZE, "salient": SALIENT_SIZE}
"""Scenes with classes and their largest side in pixels."""

MOST_OBJECTS = 16
"""More objects than any training scene has."""

Renderer = Callable[..., Any]


@dataclass(frozen=True)
class ChunkedArray:
    """N rows in files of `CHUNK` rows each, as memory maps; `array[indices]` copies the asked rows."""

    chunks: tuple[np.ndarray, ...]
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, indices: Sequence[int] | np.ndarray) -> Tensor:
        """Rows (n, ...) in the order asked."""
        rows = [self.chunks[int(i) // CHUNK][int(i) % CHUNK] for i in indices]
        return torch.from_numpy(np.stack(rows))


@dataclass(frozen=True)
class TrainingScenes:
    """Cropped training scenes.

    images: (N, 3, 128, 128) uint8. labels: (N, 128, 128) uint8, 0 background; only objectives whose model card says
    `supervision: boxes` may look at them. key: name of the scenes, part of the key of cached features.
    """

    images: ChunkedArray
    labels: ChunkedArray
    key: str

    def __len__(self) -> int:
        return len(self.images)


def training_scenes(
    scenes: Scenes, *, workers: int | None = None, progress: bool = True, renderer: Renderer | None = None
) -> TrainingScenes:
    """Open the training scenes, rendering the missing chunks in parallel processes.

    renderer: a picklable stand-in for `data.scenes.render` (tests). Raises UsageError for a variant or revision
    that the renderer refuses.
    """
    key = f"{scenes.variant}-r{scenes.revision}-{scenes.split}"
    folder = cache_root() / "training" / "scenes" / key
    chunk_count = -(-scenes.count // CHUNK)
    missing = [chunk for chunk in range(chunk_count) if not _chunk_path(folder, "labels", chunk).exists()]
    make = partial(_render_chunk, str(folder), scenes.variant, scenes.revision, scenes.split, renderer)
    try:
        _in_parallel(make, missing, workers, f"rendering {key}" if progress else "")
    except ValueError as error:
        raise UsageError(f"field 'train.scenes': {error}") from error
    return TrainingScenes(
        images=_open_chunks(folder, "images", scenes.count),
        labels=_open_chunks(folder, "labels", scenes.count),
        key=key,
    )


def _render_chunk(folder: str, variant: str, revision: int, split: str, renderer: Renderer | None, chunk: int) -> None:
    """Render one chunk and store it; labels are written last, so a chunk with labels is complete."""
    torch.set_num_threads(1)
    indices = list(range(chunk * CHUNK, (chunk + 1) * CHUNK))
    rendered = (renderer or _default_renderer())(variant, revision, split, indices, size=RENDERED)
    margin = (RENDERED - CROPPED) // 2
    crop = slice(margin, margin + CROPPED)
    _save_chunk(Path(folder), "images", chunk, rendered.image[:, :, crop, crop])
    _save_chunk(Path(folder), "labels", chunk, rendered.labels[:, crop, crop])


def _default_renderer() -> Renderer:
    from ..data.scenes import render

    return render


@dataclass(frozen=True)
class PaddedImages:
    """Images of several sizes, each in the upper left corner of a square.

    images: (N, 3, S, S) uint8, black beyond the image. sizes: (N, 2) int64 height and width. key: name of the images.
    """

    images: ChunkedArray
    sizes: ChunkedArray
    key: str

    def __len__(self) -> int:
        return len(self.images)


def padded_scenes(scenes: Scenes, *, progress: bool = True) -> PaddedImages:
    """The images of training scenes in the sizes in which evaluation shows them, without any label.

    Scenes with classes (`things`, `salient`) have several sizes, others are those of `training_scenes`.
    """
    if scenes.variant not in SIDES:
        square = training_scenes(scenes, progress=progress)
        side = np.full((CHUNK, 2), CROPPED, dtype=np.int64)
        return PaddedImages(square.images, ChunkedArray((side,) * len(square.images.chunks), scenes.count), square.key)
    key = f"{scenes.variant}-r{scenes.revision}-{scenes.split}"
    folder = cache_root() / "training" / "images" / key
    pad = partial(_pad_chunk, folder, SIDES[scenes.variant])
    chunks_of_scenes(scenes, folder, "sizes", pad, progress=progress)
    return PaddedImages(_open_chunks(folder, "images", scenes.count), _open_chunks(folder, "sizes", scenes.count), key)


def scene_boxes(scenes: Scenes, *, progress: bool = True) -> ChunkedArray:
    """Boxes of all visible objects of training scenes: rows (`MOST_OBJECTS`, 4) float32 xyxy pixels, NaN where absent.

    Only objectives whose model card says `supervision: boxes` may look at them.
    """
    key = f"{scenes.variant}-r{scenes.revision}-{scenes.split}"
    folder = cache_root() / "training" / "boxes" / key
    if scenes.variant in SIDES:
        chunks_of_scenes(scenes, folder, "boxes", partial(_box_chunk, folder), progress=progress)
    else:
        labels = training_scenes(scenes, progress=progress).labels
        for chunk in range(len(labels.chunks)):
            if not _chunk_path(folder, "boxes", chunk).exists():
                maps = torch.from_numpy(np.array(labels.chunks[chunk]))
                _save_chunk(folder, "boxes", chunk, object_boxes(maps, MOST_OBJECTS))
    return _open_chunks(folder, "boxes", scenes.count)


def chunks_of_scenes(
    scenes: Scenes, folder: Path, last: str, save: Callable[[int, list[Any]], None], *, progress: bool = True
) -> None:
    """Hand the scenes of each chunk that `folder` lacks to `save(chunk, scenes)`, which writes array `last` last."""
    missing = [c for c in range(-(-scenes.count // CHUNK)) if not _chunk_path(folder, last, c).exists()]
    if not missing:
        return
    rendered: list[Any] = []
    store = ensure_scenes(open_scenes(scenes, scenes.split), (missing[-1] + 1) * CHUNK, progress=progress)
    for index, scene in enumerate(store):
        rendered = [*rendered, scene] if index % CHUNK else [scene]
        if len(rendered) == CHUNK and index // CHUNK in missing:
            save(index // CHUNK, rendered)


def held_out_scenes(scenes: Scenes, count: int, *, progress: bool = True) -> list[Sample]:
    """Scenes of the same variant from the split `val`, which neither training nor any evaluation shows."""
    store = ensure_scenes(open_scenes(scenes, "val"), count, progress=progress)
    return [
        Sample(f"val-{index}", one.image, Truth(one.objects.astype(np.int16), classes=one.semantic.astype(np.int16)))
        for index, one in enumerate(store)
    ]


def hold_out(data: OpenData, split: str, count: int) -> tuple[OpenData, OpenData]:
    """Opened data of a training split in two: what is trained on, and `count` samples, evenly spread, that validate.

    Raises UsageError where nothing would be left to train on.
    """
    if len(data) <= count:
        raise UsageError(f"{data.root}: split {split} has {len(data)} samples, {count} are held out")
    held = [position * len(data) // count for position in range(count)]
    return subset(data, sorted(set(range(len(data))) - set(held))), subset(data, held)


def open_scenes(scenes: Scenes, split: str) -> Any:
    """The store of training scenes, or of another split of them. Raises UsageError for a variant without one."""
    try:
        return open_store(scenes.variant, scenes.revision, split, 0)
    except ValueError as error:
        raise UsageError(f"field 'train.scenes': {error}") from error


def _pad_chunk(folder: Path, side: int, chunk: int, scenes: Sequence[Any]) -> None:
    """Sizes are written last, so a chunk with sizes is complete."""
    padded = np.zeros((len(scenes), 3, side, side), dtype=np.uint8)
    for row, scene in zip(padded, scenes, strict=True):
        row[:, : scene.image.shape[0], : scene.image.shape[1]] = scene.image.transpose(2, 0, 1)
    _save_chunk(folder, "images", chunk, torch.from_numpy(padded))
    sizes = np.array([scene.image.shape[:2] for scene in scenes], dtype=np.int64)
    _save_chunk(folder, "sizes", chunk, torch.from_numpy(sizes))


def _box_chunk(folder: Path, chunk: int, scenes: Sequence[Any]) -> None:
    """Boxes of scenes that know their own, else those of their objects' pixels."""
    rows = torch.full((len(scenes), MOST_OBJECTS, 4), float("nan"))
    for row, scene in zip(rows, scenes, strict=True):
        if hasattr(scene, "boxes"):
            own = torch.tensor([box for _, box in scene.boxes]).view(-1, 4)
            row[: len(own)] = own
        else:
            row.copy_(object_boxes(torch.from_numpy(scene.objects)[None].int(), MOST_OBJECTS)[0])
    _save_chunk(folder, "boxes", chunk, rows)


def frozen_features(
    encode: Callable[[Tensor], Tensor],
    scenes: TrainingScenes,
    encoder_key: str,
    *,
    device: torch.device,
    flip: bool = False,
    progress: bool = True,
) -> ChunkedArray:
    """Features of the training scenes by a frozen encoder: rows (P, D) float16, cached under its hash and the scenes'.

    encode: (B, 3, H, W) float32 in [0, 1] -> (B, D, h, w). flip: features of the mirrored images instead.
    Computed in float32 on `device`.
    """
    folder = cache_root() / "training" / "features" / encoder_key[:16] / (scenes.key + ("-flipped" if flip else ""))
    missing = [c for c in range(len(scenes.images.chunks)) if not _chunk_path(folder, "features", c).exists()]
    for chunk in track(missing, "encoding scenes" if progress and missing else ""):
        images = torch.from_numpy(np.array(scenes.images.chunks[chunk])).to(device).float() / 255
        with torch.no_grad():
            features = encode(images.flip(-1) if flip else images)
        _save_chunk(folder, "features", chunk, features.flatten(2).transpose(1, 2).half())
    return _open_chunks(folder, "features", len(scenes))


def object_boxes(labels: Tensor, most: int) -> Tensor:
    """Boxes of the objects in label maps: (B, H, W) integers -> (B, most, 4) float32 xyxy pixels, NaN where absent.

    Row k is label k + 1; x2 and y2 are exclusive.
    """
    height, width = labels.shape[-2:]
    present = labels.unsqueeze(1) == torch.arange(1, most + 1, device=labels.device).view(1, most, 1, 1)
    columns, rows = present.any(2), present.any(3)
    x, y = torch.arange(width, device=labels.device), torch.arange(height, device=labels.device)
    sides = [
        torch.where(columns, x, width).amin(2),
        torch.where(rows, y, height).amin(2),
        torch.where(columns, x, -1).amax(2) + 1,
        torch.where(rows, y, -1).amax(2) + 1,
    ]
    boxes = torch.stack(sides, dim=-1).float()
    return boxes.masked_fill(~columns.any(2, keepdim=True), float("nan"))


def _chunk_path(folder: Path, kind: str, chunk: int) -> Path:
    return folder / f"{kind}-{chunk:06d}.npy"


def _save_chunk(folder: Path, kind: str, chunk: int, rows: Tensor) -> None:
    array = np.ascontiguousarray(rows.cpu().numpy())
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(_chunk_path(folder, kind, chunk), partial(save_array, array))


def save_array(array: np.ndarray, path: Path) -> None:
    """Write an array as a file that memory maps can read."""
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def _open_chunks(folder: Path, kind: str, count: int) -> ChunkedArray:
    chunks = []
    for chunk in range(-(-count // CHUNK)):
        path = _chunk_path(folder, kind, chunk)
        try:
            chunks.append(np.load(path, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError) as error:
            raise UsageError(f"{path}: cannot be read ({error}); remove it, it is made again") from error
    return ChunkedArray(tuple(chunks), count)


def _in_parallel(work: Callable[[int], None], chunks: list[int], workers: int | None, title: str) -> None:
    workers = min(len(chunks), workers or len(os.sched_getaffinity(0)))
    if workers <= 1:
        for chunk in track(chunks, title if chunks else ""):
            work(chunk)
        return
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
