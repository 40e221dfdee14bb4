"""Rendered videos in the cache, shared by all layouts: a video is rendered once on a machine.

<cache>/scenes/motion-r1/<split>[-seed<N>]/00000.npz     one video each
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .motion import sample_video
from .sampler import Scene
from .store import Store, read_arrays, renumbering, serve, write_arrays

SIZE = 128

MIN_VISIBLE = 0.004
"""Objects that show less than this share in every frame are left out of the video."""

_FRAMES_AT_ONCE = 12
"""Number of frames whose rays are cast together. More are not faster."""


@dataclass(frozen=True)
class RenderedVideo:
    """One video of T frames.

    frames: (T, H, W, 3) uint8. objects: (T, H, W) uint8, 0 for the ground, i for object i in all frames; each object is
    seen in some frame. categories: category of object i at index i - 1, which is the id of its shape + 1.
    """

    frames: np.ndarray
    objects: np.ndarray
    categories: tuple[int, ...]

    def keep(self, shown: np.ndarray) -> RenderedVideo:
        """The video with only those objects whose numbers occur in `shown`, renumbered; the others become ground."""
        table, numbers = renumbering(shown, len(self.categories))
        categories = tuple(self.categories[number - 1] for number in numbers)
        return RenderedVideo(self.frames, table[self.objects], categories)


@dataclass(frozen=True)
class VideoStore(Store[RenderedVideo]):
    """Videos, each in a file of its own."""

    chunk = 1

    variant: str = "motion"

    @staticmethod
    def read(path: Path) -> list[RenderedVideo]:
        """The video of a file, alone in a list."""
        return [read_video(path)]

    def write(self, path: Path, indices: range) -> None:
        """Render the only video of `indices` and write it."""
        write_video(path, render_video(self.revision, self.split, indices[0], seed=self.seed))


def render_video(revision: int, split: str, index: int, *, size: int = SIZE, seed: int = 0) -> RenderedVideo:
    """Render video `index` of a split at size x size pixels. Raises ValueError for an unknown split or revision."""
    scenes = sample_video(revision, split, index, seed)
    while True:
        image, hit = _cast(scenes, size)
        count = len(scenes[0].objects)
        seen = [max(int((frame == k).sum()) for frame in hit) >= MIN_VISIBLE * size * size for k in range(count)]
        if all(seen):
            categories = tuple(thing.shape + 1 for thing in scenes[0].objects)
            return RenderedVideo(image, (hit + 1).astype(np.uint8), categories)
        # Without a number, a sliver of an object would count as ground. So the object is removed with its shadow, and
        # all frames are cast again: that uncovers others, which may then be seen enough.
        scenes = tuple(
            replace(scene, objects=[thing for thing, shown in zip(scene.objects, seen, strict=True) if shown])
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
            # 0: an object that is hidden in this frame may be visible in another one.
            image, hit, _, _ = cast(world, size, min_visible=0.0)
            images.append((image * 255 + 0.5).to(torch.uint8).numpy())
            hits.append(hit.numpy())
    return np.concatenate(images), np.concatenate(hits)


def write_video(path: Path, video: RenderedVideo) -> None:
    """Write a video as one file."""
    categories = np.array(video.categories, dtype=np.uint8)
    write_arrays(path, frames=video.frames, objects=video.objects, categories=categories)


def read_video(path: Path) -> RenderedVideo:
    """The video of a file. Raises OSError naming the file when it is damaged."""
    with read_arrays(path) as content:
        categories = tuple(int(category) for category in content["categories"])
        return RenderedVideo(content["frames"], content["objects"], categories)


def main() -> None:
    """Run as a worker process, see `serve`."""
    serve(VideoStore)
