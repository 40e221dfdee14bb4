"""Rendered videos in the cache, shared by all layouts: a video is rendered once on a machine.

<cache>/scenes/motion-r1/<split>[-seed<N>]/00000.npz     one video each
"""

from __future__ import annotations

import json
import os
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ..paths import cache_root
from .motion import sample_video
from .sampler import REVISIONS, Scene

CHUNK = 1
SIZE = 128

MIN_VISIBLE = 0.004
"""Objects that never show this share of a frame are left out of the video."""

_FRAMES_AT_ONCE = 8
"""Rays of that many frames are cast together: more are no faster, as they leave the processor's cache."""


@dataclass(frozen=True)
class RenderedVideo:
    """One video of T frames.

    frames: (T, H, W, 3) uint8. objects: (T, H, W) uint8, 0 ground, i = object i in all frames; each one is seen in some
    frame. categories: category of object i at index i - 1, the id of its shape + 1.
    """

    frames: np.ndarray
    objects: np.ndarray
    categories: tuple[int, ...]

    def keep(self, shown: np.ndarray) -> RenderedVideo:
        """The video with the objects whose numbers occur in `shown`, numbered anew; the others become ground."""
        kept = [number for number in range(1, len(self.categories) + 1) if (shown == number).any()]
        table = np.zeros(len(self.categories) + 1, dtype=np.uint8)
        table[kept] = np.arange(1, len(kept) + 1)
        categories = tuple(self.categories[number - 1] for number in kept)
        return RenderedVideo(self.frames, table[self.objects], categories)


@dataclass(frozen=True)
class VideoStore:
    """The first videos of one split. Video i is a pure function of these fields and i."""

    variant: str = "motion"
    revision: int = 1
    split: str = "test"
    seed: int = 0
    count: int = 0

    @property
    def folder(self) -> Path:
        """Where the videos are."""
        split = self.split if self.seed == 0 else f"{self.split}-seed{self.seed}"
        return cache_root() / "scenes" / f"{self.variant}-r{self.revision}" / split

    @property
    def chunk(self) -> int:
        """Scenes in a chunk."""
        return CHUNK

    def first(self, count: int) -> VideoStore:
        """The store that ends after `count` scenes."""
        return replace(self, count=count)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> RenderedVideo:
        return read_video(self._path(range(self.count)[index]))

    def __iter__(self) -> Iterator[RenderedVideo]:
        for number in range(self.count):
            yield read_video(self._path(number))

    def missing(self, count: int) -> list[int]:
        """Numbers of the first `count` videos that are not there."""
        return [number for number in range(count) if not self._path(number).is_file()]

    def render(self, chunks: Sequence[int], on_chunk: Callable[[int], None]) -> None:
        """Render and write videos, each atomically; `on_chunk(1)` is called after each."""
        for number in chunks:
            write_video(self._path(number), render_video(self.revision, self.split, number, seed=self.seed))
            on_chunk(CHUNK)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.npz"

    def check_revision(self) -> None:
        """Raise ValueError when this version does not render the revision."""
        if self.variant != "motion" or REVISIONS["motion"] != self.revision:
            raise ValueError(f"variant '{self.variant}' revision {self.revision} is not rendered by this version")

    def to_json(self) -> str:
        """As text for a worker process."""
        return json.dumps(asdict(self))


def render_video(revision: int, split: str, index: int, *, size: int = SIZE, seed: int = 0) -> RenderedVideo:
    """Render video `index` of a split at size x size pixels. Raises ValueError for an unknown split or revision."""
    scenes = sample_video(revision, split, index, seed)
    while True:
        image, hit = _cast(scenes, size)
        count = len(scenes[0].objects)
        seen = [max(int((frame == k).sum()) for frame in hit) >= MIN_VISIBLE * size * size for k in range(count)]
        if all(seen):
            categories = tuple(one.shape + 1 for one in scenes[0].objects)
            return RenderedVideo(image, (hit + 1).astype(np.uint8), categories)
        # A sliver of an object without a number would be taken for ground, so it and its shadow go wholly.
        scenes = tuple(
            replace(scene, objects=[one for one, kept in zip(scene.objects, seen, strict=True) if kept])
            for scene in scenes
        )


def _cast(scenes: Sequence[Scene], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames (T, size, size, 3) uint8 and the index of the object that each pixel shows, -1 for ground."""
    import torch

    from .caster import build_world, cast

    images, hits = [], []
    with torch.no_grad():
        for start in range(0, len(scenes), _FRAMES_AT_ONCE):
            world = build_world(list(scenes[start : start + _FRAMES_AT_ONCE]))
            image, hit, _, _ = cast(world, size, min_visible=0.0)
            images.append((image * 255 + 0.5).to(torch.uint8).numpy())
            hits.append(hit.numpy())
    return np.concatenate(images), np.concatenate(hits)


def write_video(path: Path, video: RenderedVideo) -> None:
    """Write a video as one compressed file: whoever sees it sees all of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    categories = np.array(video.categories, dtype=np.uint8)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(scratch, "wb") as file:
        np.savez_compressed(file, frames=video.frames, objects=video.objects, categories=categories)
    os.replace(scratch, path)


def read_video(path: Path) -> RenderedVideo:
    """The video of a file. Raises OSError naming the file when it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as content:
            categories = tuple(int(one) for one in content["categories"])
            return RenderedVideo(content["frames"], content["objects"], categories)
    except (ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise OSError(5, f"damaged ({error}); delete it, it is rendered again", str(path)) from error


def main() -> None:
    """Worker process: a store and its videos as JSON on stdin, the number of videos after each on stdout."""
    import torch

    torch.set_num_threads(1)
    job = json.loads(sys.stdin.read())
    VideoStore(**job["store"]).render(job["chunks"], lambda n: print(n, flush=True))
