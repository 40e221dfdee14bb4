"""Clips of videos to learn from: which frames, and where their features come from.

A video is cut into pieces of T frames from its first frame on, a remainder is dropped, and each visit of a video takes
one piece at random, as in SlotContrast's code (arXiv:2412.14295). A video shorter than T is taken whole and its last
frame repeated, so that all clips of a batch are of one length; such clips are counted.

Features of rendered videos, as they are and mirrored, are kept in the cache; those of a reader are computed at each
step.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from ..cards.protocols import Protocol as Rules
from ..cards.task import TaskSpec
from ..core.errors import SampleError, UsageError
from ..core.files import write_atomically
from ..core.paths import cache_root
from ..core.types import Sample, Truth, Video
from ..data import open_data
from ..data.base import OpenData, SampleSequence
from ..data.scenes.store import Store
from ..data.scenes.videos import RenderedVideo
from ..data.stand_ins.layouts import ensure_scenes
from ..data.transforms import prepare
from .checkpoint import state_sha256
from .data import hold_out, open_scenes, save_array, track
from .recipe import Recipe

READERS = 4
"""Threads that read clips of a reader."""

FRAMES_AT_ONCE = 24
"""Frames that are encoded together for the cache."""


class VideoOptions(BaseModel):
    """Options of `train.objective` for the kind `video`.

    encoder: card of the frozen encoder; encoder_checkpoint: its weights instead of the bundled ones. teacher: card of
    a trained SlotContrast, for a SlotMatch; teacher_checkpoint: its weights instead of the bundled ones. images:
    `scenes` (rendered videos of the recipe) or `reader` (those of the task). split: of the reader. clip: frames T.
    flip: half of the clips are mirrored, all their frames alike. chunk: frames that an encoder sees at once.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["video"]
    encoder: str = "encoder"
    encoder_checkpoint: str = ""
    teacher: str = ""
    teacher_checkpoint: str = ""
    images: Literal["scenes", "reader"] = "scenes"
    split: str = "train"
    clip: int = Field(default=4, gt=0)
    flip: bool = True
    chunk: int = Field(default=32, gt=0)


def clip_frames(length: int, clip: int, uniform: float) -> list[int]:
    """Numbers of the frames of one clip of `clip` frames of a video of `length` frames.

    uniform: in [0, 1), chooses the piece. Raises ValueError for a video without a frame.
    """
    if length < 1:
        raise ValueError("a video without a frame")
    start = int(uniform * (length // clip)) * clip
    return [min(start + offset, length - 1) for offset in range(clip)]


class Source(Protocol):
    """Videos to train on."""

    @property
    def note(self) -> str:
        """One line about them; other videos make another training."""
        ...

    def __len__(self) -> int: ...

    def clips(self, indices: np.ndarray, uniform: np.ndarray, flips: np.ndarray, clip: int) -> dict[str, Tensor]:
        """Clips of `clip` frames of these videos (B,), one row each, by numbers (B,) in [0, 1) and mirrored or not.

        `padded` (B,) bool, and either `features` (B, T, P, F) float16 (with a teacher `teacher_features` too), or
        `video` (B, T, 3, H, W) float32 in [0, 1].
        """
        ...


@dataclass(frozen=True)
class FeatureVideos:
    """Features of N videos by one encoder, as memory maps (T, P, F) float16: as they are, and mirrored."""

    plain: tuple[np.ndarray, ...]
    mirrored: tuple[np.ndarray, ...] | None

    def clip(self, index: int, frames: Sequence[int], flip: bool) -> np.ndarray:
        """(T, P, F) float16."""
        videos = self.mirrored if flip and self.mirrored is not None else self.plain
        return np.asarray(videos[index][frames])


@dataclass(frozen=True)
class CachedVideos:
    """Videos of which only the features are needed; with a teacher those of its encoder too."""

    features: FeatureVideos
    teacher_features: FeatureVideos | None
    note: str

    def __len__(self) -> int:
        return len(self.features.plain)

    def clips(self, indices: np.ndarray, uniform: np.ndarray, flips: np.ndarray, clip: int) -> dict[str, Tensor]:
        """`features`, `teacher_features` and `padded`."""
        lengths = [len(self.features.plain[index]) for index in indices]
        frames = [clip_frames(n, clip, u) for n, u in zip(lengths, uniform, strict=True)]
        rows = list(zip(indices.tolist(), frames, flips.tolist(), strict=True))
        result = {"padded": torch.tensor([length < clip for length in lengths])}
        for name in ("features", "teacher_features"):
            if (videos := getattr(self, name)) is not None:
                result[name] = torch.from_numpy(np.stack([videos.clip(*row) for row in rows]))
        return result


@dataclass(frozen=True)
class ReadVideos:
    """Videos of a reader, prepared by a task's protocol: a broken frame raises SampleError. size: side in pixels."""

    data: OpenData
    rules: Rules
    size: int
    note: str
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(READERS))

    def __len__(self) -> int:
        return len(self.data)

    def clips(self, indices: np.ndarray, uniform: np.ndarray, flips: np.ndarray, clip: int) -> dict[str, Tensor]:
        """`video` and `padded`."""
        rows = list(self.pool.map(partial(self._read, clip), indices.tolist(), uniform.tolist(), flips.tolist()))
        return {
            "video": torch.stack([video for video, _ in rows]),
            "padded": torch.tensor([short for _, short in rows]),
        }

    def _read(self, clip: int, index: int, uniform: float, flip: bool) -> tuple[Tensor, bool]:
        video: Video = self.data.reader[index]
        if not len(video):
            raise SampleError(video.id, "has no frame")
        numbers = clip_frames(len(video), clip, uniform)
        images = {t: prepare(video.frames[t], self.rules, self.size)[0] for t in sorted(set(numbers))}
        stacked = torch.stack([images[t] for t in numbers])
        return stacked.flip(-1) if flip else stacked, len(video) < clip


@dataclass(frozen=True)
class Networks:
    """The frozen encoders of a training, in evaluation mode on `device`, and the side in pixels of their frames."""

    encoder: nn.Module
    teacher_encoder: nn.Module | None
    input_size: int
    device: torch.device


def videos_of_scenes(
    task: TaskSpec, recipe: Recipe, options: VideoOptions, networks: Networks, *, progress: bool
) -> tuple[CachedVideos, OpenData]:
    """Rendered videos with the features of the encoders, and videos of split `val`, which no evaluation shows.

    Raises UsageError for scenes that do not move, and for encoders that want frames of another size.
    """
    scenes = recipe.scenes
    if scenes.variant != "motion":
        raise UsageError(f"field 'train.scenes.variant': '{scenes.variant}' does not move; use motion")
    store = ensure_scenes(open_scenes(scenes, scenes.split), scenes.count, progress=progress)
    found = [
        None if encoder is None else cached_features(encoder, store, networks, options.flip, progress=progress)
        for encoder in (networks.encoder, networks.teacher_encoder)
    ]
    assert found[0] is not None
    held_out = ensure_scenes(open_scenes(scenes, "val"), recipe.validate_limit, progress=progress)
    return CachedVideos(found[0], found[1], scenes.note), rendered_data(held_out, task)


def cached_features(
    encoder: nn.Module, store: Store[RenderedVideo], networks: Networks, flip: bool, *, progress: bool = True
) -> FeatureVideos:
    """Features of the rendered videos of a store, cached under the hash of the encoder; flip: mirrored ones, too.

    encoder: (N, 3, H, W) in [0, 1] -> (N, F, h, w), computed in float32. Raises UsageError where videos have another
    size than `networks.input_size`.
    """
    key = f"{store.variant}-r{store.revision}-{store.split}"
    base = cache_root() / "training" / "video-features" / state_sha256(encoder)[:16]
    folders = [base / key, *([base / f"{key}-mirrored"] if flip else [])]
    paths = [[folder / f"{index:05d}.npy" for folder in folders] for index in range(len(store))]
    missing = [index for index, both in enumerate(paths) if not all(path.exists() for path in both)]
    for index in track(missing, "encoding videos" if progress and missing else ""):
        frames = torch.from_numpy(store[index].frames).permute(0, 3, 1, 2)
        if tuple(frames.shape[-2:]) != (networks.input_size, networks.input_size):
            raise UsageError(f"rendered videos have {frames.shape[-1]} pixels a side, not {networks.input_size}")
        for mirrored, path in enumerate(paths[index]):
            features = _encode(encoder, frames.flip(-1) if mirrored else frames, networks.device)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, partial(save_array, features))
    opened = [tuple(_open(both[number]) for both in paths) for number in range(len(folders))]
    return FeatureVideos(opened[0], opened[1] if flip else None)


@torch.no_grad()
def _encode(encoder: nn.Module, frames: Tensor, device: torch.device) -> np.ndarray:
    """Frames (T, 3, H, W) uint8 -> features (T, P, F) float16."""
    parts = [encoder(some.to(device).float() / 255) for some in frames.split(FRAMES_AT_ONCE)]
    features: np.ndarray = torch.cat(parts).flatten(2).transpose(1, 2).half().cpu().numpy()
    return np.ascontiguousarray(features)


def _open(path: Path) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read ({error}); remove it, it is made again") from error
    return array


def rendered_data(store: Store[RenderedVideo], task: TaskSpec) -> OpenData:
    """Rendered videos as data of a task, with their truth."""
    ids = tuple(f"{store.split}-{index:05d}" for index in range(len(store)))
    note = f"{len(store)} rendered videos of split {store.split} for task {task.name}"
    return OpenData(_Rendered(ids, store), "embedded", f"{store.variant}-r{store.revision}", store.folder, ids, note)


@dataclass(frozen=True)
class _Rendered(SampleSequence[Video]):
    ids: tuple[str, ...]
    store: Store[RenderedVideo]

    def __getitem__(self, index: int) -> Video:
        position = range(len(self))[index]
        video, name = self.store[position], self.ids[position]
        pairs = zip(video.frames, video.objects.astype(np.int16), strict=True)
        samples = [Sample(name, frame, Truth(labels, video.categories)) for frame, labels in pairs]
        return Video(name, samples, tuple(f"{t:05d}" for t in range(len(samples))))


def videos_of_reader(
    task: TaskSpec, recipe: Recipe, options: VideoOptions, networks: Networks, data_root: Path | None, *, progress: bool
) -> tuple[ReadVideos, OpenData]:
    """Videos of a task's data; `validate_limit` of them, evenly spread over the split, are held out.

    Raises UsageError for a split with too few videos.
    """
    data = open_data(task, data_root=data_root, split=options.split, progress=progress)
    trained, held_out = hold_out(data, options.split, recipe.validate_limit)
    note = f"{len(trained)} videos of task {task.name}, {options.split} split, {data.kind} {data.revision}"
    return ReadVideos(trained, task.protocol, networks.input_size, note), held_out
