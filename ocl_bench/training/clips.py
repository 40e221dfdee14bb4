"""Chooses the frames of video clips for training and supplies their pixels or features.

A video is cut into pieces of T frames from its first frame on; a remainder is dropped. Each visit of a video takes one
piece at random, as in SlotContrast's code (arXiv:2412.14295). A video shorter than T is padded with copies of its last
frame, because all clips of a batch need one length; the log counts these clips.

The features of rendered videos are cached, plain and mirrored. Videos of a reader are encoded again at each step.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from PIL import Image
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
from ..data.rendered import ensure_files
from ..data.scenes.store import Store
from ..data.stand_ins.layouts import ensure_scenes
from ..data.transforms import prepare
from .checkpoint import state_sha256
from .data import CACHE, open_array, open_scenes, reader_pool, save_array, track
from .held_out import hold_out
from .recipe import Recipe

MOVING = ("motion", "collisions", "contacts")
"""Variants of scenes whose samples are videos."""

FRAMES_AT_ONCE = 24
"""Frames that are encoded together for the cache; bounds the memory of the encoder."""


class VideoOptions(BaseModel):
    """Options of `train.objective` for the kind `video`.

    Attributes:
        encoder: Card of the frozen encoder.
        encoder_checkpoint: File with its weights, instead of the bundled ones.
        teacher: Card of a trained SlotContrast; only for a SlotMatch.
        teacher_checkpoint: File with the teacher's weights, instead of the bundled ones.
        images: `scenes` trains on the rendered videos of the recipe, `reader` on the videos of the task.
        split: Split of the reader.
        clip: Number of frames T of a clip.
        flip: Mirror half of the clips. All frames of a clip are mirrored alike.
        chunk: Number of frames that an encoder sees at once.
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
    """Frame numbers of one clip.

    Args:
        length: Number of frames of the video.
        clip: Number of frames of the clip.
        uniform: Number in [0, 1) that chooses the piece.

    Raises:
        ValueError: The video has no frame.
    """
    if length < 1:
        raise ValueError("a video without a frame")
    start = int(uniform * (length // clip)) * clip  # 0 for a video that is shorter than a clip
    return [min(start + offset, length - 1) for offset in range(clip)]


class VideoSource(Protocol):
    """Videos to train on."""

    @property
    def note(self) -> str:
        """One line that describes the videos. A resume is refused when it changes."""
        ...

    def __len__(self) -> int: ...

    def clips(self, indices: np.ndarray, uniform: np.ndarray, flips: np.ndarray, clip: int) -> dict[str, Tensor]:
        """One clip of each chosen video.

        Args:
            indices: (B,) numbers of the videos.
            uniform: (B,) numbers in [0, 1) that choose the pieces, see `clip_frames`.
            flips: (B,) bool, which clips are mirrored.
            clip: Number of frames T.

        Returns:
            `padded` (B,) bool, True where the video is shorter than T; and either `features` (B, T, P, F) float16,
            with a teacher also `teacher_features`, or `video` (B, T, 3, H, W) float32 in [0, 1].
        """
        ...


@dataclass(frozen=True)
class FeatureVideos:
    """Features of N videos by one encoder, one memory map (T, P, F) float16 for each video, plain and mirrored."""

    plain: tuple[np.ndarray, ...]
    mirrored: tuple[np.ndarray, ...] | None

    def clip(self, index: int, frames: Sequence[int], flip: bool) -> np.ndarray:
        """Features (T, P, F) float16 of some frames of a video."""
        videos = self.mirrored if flip and self.mirrored is not None else self.plain
        return np.asarray(videos[index][frames])


@dataclass(frozen=True)
class CachedVideos:
    """Videos whose cached features stand for the pixels. `teacher_features` come from the teacher's encoder."""

    features: FeatureVideos
    teacher_features: FeatureVideos | None
    note: str

    def __len__(self) -> int:
        return len(self.features.plain)

    def clips(self, indices: np.ndarray, uniform: np.ndarray, flips: np.ndarray, clip: int) -> dict[str, Tensor]:
        """Return `features`, `teacher_features` (with a teacher) and `padded`."""
        lengths = [len(self.features.plain[index]) for index in indices]
        frames = [clip_frames(n, clip, u) for n, u in zip(lengths, uniform, strict=True)]
        rows = list(zip(indices.tolist(), frames, flips.tolist(), strict=True))
        result = {"padded": torch.tensor([length < clip for length in lengths])}
        for name in ("features", "teacher_features"):
            if (videos := getattr(self, name)) is not None:
                result[name] = torch.from_numpy(np.stack([videos.clip(*row) for row in rows]))
        return result


@dataclass(frozen=True)
class FrameFeatures:
    """Features of all frames of some videos, one video after the other, for models of images.

    Attributes:
        videos: One memory map (T, P, F) float16 for each video.
    """

    videos: tuple[np.ndarray, ...]

    @cached_property
    def _places(self) -> list[tuple[int, int]]:
        """Video and frame of each row."""
        return [(number, frame) for number, video in enumerate(self.videos) for frame in range(len(video))]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, indices: Sequence[int] | np.ndarray) -> Tensor:
        """Features (n, P, F) of the chosen frames."""
        places = (self._places[int(index)] for index in indices)
        return torch.from_numpy(np.stack([self.videos[video][frame] for video, frame in places]))


@dataclass(frozen=True)
class ReadVideos:
    """Videos of a reader, prepared by a task's protocol. A broken frame raises SampleError.

    Attributes:
        data: The videos.
        rules: Protocol of the task: how frames are cropped and resized.
        size: Side of the prepared frames in pixels.
        note: One line that describes the videos.
    """

    data: OpenData
    rules: Rules
    size: int
    note: str
    pool: ThreadPoolExecutor = field(default_factory=reader_pool)

    def __len__(self) -> int:
        return len(self.data)

    def clips(self, indices: np.ndarray, uniform: np.ndarray, flips: np.ndarray, clip: int) -> dict[str, Tensor]:
        """Return `video` and `padded`."""
        rows = list(self.pool.map(partial(self._read, clip), indices.tolist(), uniform.tolist(), flips.tolist()))
        return {
            "video": torch.stack([video for video, _ in rows]),
            "padded": torch.tensor([short for _, short in rows]),
        }

    def _read(self, clip: int, index: int, uniform: float, flip: bool) -> tuple[Tensor, bool]:
        """Frames (T, 3, H, W) of one clip, and whether its video is shorter than T."""
        video: Video = self.data.reader[index]
        if not len(video):
            raise SampleError(video.id, "has no frame")
        numbers = clip_frames(len(video), clip, uniform)
        # A padded clip repeats its last frame; each frame is decoded once.
        images = {t: prepare(video.frames[t], self.rules, self.size)[0] for t in sorted(set(numbers))}
        stacked = torch.stack([images[t] for t in numbers])
        return stacked.flip(-1) if flip else stacked, len(video) < clip


@dataclass(frozen=True)
class FrozenEncoders:
    """The frozen encoders of a training, in evaluation mode on `device`. `input_size`: side of frames in pixels."""

    encoder: nn.Module
    teacher_encoder: nn.Module | None
    input_size: int
    device: torch.device


def videos_of_scenes(
    task: TaskSpec, recipe: Recipe, flip: bool, frozen: FrozenEncoders, *, progress: bool
) -> tuple[CachedVideos, OpenData]:
    """Rendered videos with cached features to train on, and rendered videos of split `val` to validate on.

    Args:
        task: Gives the name of the validation data.
        recipe: Names the scenes and the number of validation videos.
        flip: Also cache the features of the mirrored videos.
        frozen: Encoders of the features.
        progress: Draw progress bars.

    Raises:
        UsageError: The scenes do not move.
    """
    scenes = recipe.scenes
    if scenes.variant not in MOVING:
        raise UsageError(
            f"field 'train.scenes.variant': '{scenes.variant}' does not move; use one of {', '.join(MOVING)}"
        )
    store = ensure_scenes(open_scenes(scenes, scenes.split), scenes.count, progress=progress)
    features, teacher_features = (
        None if encoder is None else cached_features(encoder, store, frozen, flip, progress=progress)
        for encoder in (frozen.encoder, frozen.teacher_encoder)
    )
    assert features is not None
    held_out = ensure_scenes(open_scenes(scenes, "val"), recipe.validate_limit, progress=progress)
    return CachedVideos(features, teacher_features, scenes.note), rendered_data(held_out, task)


def cached_features(
    encoder: nn.Module, store: Store[Any], frozen: FrozenEncoders, flip: bool, *, progress: bool = True
) -> FeatureVideos:
    """Features of the rendered videos of a store, computed in float32 and cached under the hash of the encoder.

    Frames of another size are resized as in evaluation, by Pillow's bilinear filter.

    Args:
        encoder: Maps (N, 3, H, W) in [0, 1] to (N, F, h, w).
        store: The rendered videos.
        frozen: Gives the device and the expected side of frames.
        flip: Compute the features of the mirrored frames as well.
        progress: Draw a progress bar.
    """
    key = f"{store.variant}-r{store.revision}-{store.split}-{frozen.input_size}"
    base = cache_root() / CACHE / "video-features" / state_sha256(encoder)[:16]
    folders = [base / key, *([base / f"{key}-mirrored"] if flip else [])]
    videos = {f"{index:05d}.npy": index for index in range(len(store))}

    def encode(folder: Path, mirrored: bool, names: Sequence[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in track(sorted(names), "encoding videos" if progress else ""):
            frames = _sized(store[videos[name]].frames, frozen.input_size)
            features = _encode(encoder, frames.flip(-1) if mirrored else frames, frozen.device)
            write_atomically(folder / name, partial(save_array, features))

    for mirrored, folder in enumerate(folders):
        ensure_files(folder, videos, partial(encode, folder, bool(mirrored)))
    arrays = [tuple(open_array(folder / name) for name in videos) for folder in folders]
    return FeatureVideos(arrays[0], arrays[1] if flip else None)


def _sized(frames: np.ndarray, side: int) -> Tensor:
    """Frames (T, H, W, 3) uint8 as (T, 3, side, side) uint8."""
    if frames.shape[1:3] != (side, side):
        resized = (Image.fromarray(frame).resize((side, side), Image.Resampling.BILINEAR) for frame in frames)
        frames = np.stack([np.asarray(frame) for frame in resized])
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


@torch.no_grad()
def _encode(encoder: nn.Module, frames: Tensor, device: torch.device) -> np.ndarray:
    """Features (T, P, F) float16 of frames (T, 3, H, W) uint8."""
    parts = [encoder(part.to(device).float() / 255) for part in frames.split(FRAMES_AT_ONCE)]
    features: np.ndarray = torch.cat(parts).flatten(2).transpose(1, 2).half().cpu().numpy()
    return np.ascontiguousarray(features)


def rendered_data(store: Store[Any], task: TaskSpec) -> OpenData:
    """Wrap rendered videos, with their truth, as the data of a task."""
    ids = tuple(f"{store.split}-{index:05d}" for index in range(len(store)))
    note = f"{len(store)} rendered videos of split {store.split} for task {task.name}"
    return OpenData(
        _RenderedVideos(ids, store), "embedded", f"{store.variant}-r{store.revision}", store.folder, ids, note
    )


@dataclass(frozen=True)
class _RenderedVideos(SampleSequence[Video]):
    """Reads the videos of a store as samples of the suite."""

    ids: tuple[str, ...]
    store: Store[Any]

    def __getitem__(self, index: int) -> Video:
        position = range(len(self))[index]  # accepts negative numbers and raises IndexError beyond the end
        video, name = self.store[position], self.ids[position]
        categories = getattr(video, "categories", ())  # bodies that collide have none
        pairs = zip(video.frames, video.objects.astype(np.int16), strict=True)
        samples = [Sample(name, frame, Truth(labels, categories)) for frame, labels in pairs]
        return Video(name, samples, tuple(f"{t:05d}" for t in range(len(samples))))


def videos_of_reader(
    task: TaskSpec,
    recipe: Recipe,
    options: VideoOptions,
    frozen: FrozenEncoders,
    data_root: Path | None,
    *,
    progress: bool,
) -> tuple[ReadVideos, OpenData]:
    """Videos of a task's data to train on, and `validate_limit` held-out videos, evenly spread over the split.

    Raises:
        UsageError: The split has too few videos.
    """
    data = open_data(task, data_root=data_root, split=options.split, progress=progress)
    trained, held_out = hold_out(data, options.split, recipe.validate_limit)
    note = f"{len(trained)} videos of task {task.name}, {options.split} split, {data.kind} {data.revision}"
    return ReadVideos(trained, task.protocol, frozen.input_size, note), held_out
