"""Rendered scenes with classes in the cache, shared by all layouts: a scene is rendered once on a machine.

<cache>/scenes/things-r1/<split>[-seed<N>]/00000.npz     16 scenes each
"""

from __future__ import annotations

import importlib
import json
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np

from ...core.files import write_atomically
from ...core.paths import cache_root
from ..serving import serve_jobs
from .sampler import REVISIONS

Rendered = TypeVar("Rendered")
"""One scene or video of the cache."""


@dataclass(frozen=True)
class Store(ABC, Generic[Rendered]):
    """The first `count` scenes of one split in the cache, in files of `chunk` scenes.

    Scene i is a pure function of the fields and i. The module of each store has a function `main`, which renders chunks
    in a worker process.
    """

    chunk: ClassVar[int]
    """Number of scenes in a file."""

    variant: str = ""
    revision: int = 1
    split: str = "test"
    seed: int = 0
    count: int = 0

    @staticmethod
    @abstractmethod
    def read(path: Path) -> list[Rendered]:
        """The scenes of a file. Raises OSError naming the file when it is damaged."""

    @abstractmethod
    def write(self, path: Path, indices: range) -> None:
        """Render these scenes and write them as one file."""

    @property
    def folder(self) -> Path:
        """The folder of the files."""
        split = self.split if self.seed == 0 else f"{self.split}-seed{self.seed}"
        return cache_root() / "scenes" / f"{self.variant}-r{self.revision}" / split

    def first(self, count: int) -> Self:
        """This store, ending after `count` scenes."""
        return replace(self, count=count)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Rendered:
        number, position = divmod(range(self.count)[index], self.chunk)
        return self.read(self._path(number))[position]

    def __iter__(self) -> Iterator[Rendered]:
        for number in range(-(-self.count // self.chunk)):
            yield from self.read(self._path(number))[: self.count - number * self.chunk]

    def file(self, number: int) -> list[Rendered]:
        """The scenes of a file. Raises OSError naming the file when it is damaged."""
        return self.read(self._path(number))

    def files(self, count: int) -> dict[str, int]:
        """Name -> number of the files of the first `count` scenes."""
        return {self._path(number).name: number for number in range(-(-count // self.chunk))}

    def render(self, chunks: Sequence[int], on_chunk: Callable[[int], None]) -> None:
        """Render and write files, each atomically; `on_chunk(n)` is called after each n scenes."""
        for number in chunks:
            self.write(self._path(number), range(number * self.chunk, (number + 1) * self.chunk))
            on_chunk(self.chunk)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.npz"

    def check_revision(self) -> None:
        """Raise ValueError when this version does not render the revision."""
        if self.variant != type(self).variant or self.revision not in REVISIONS[self.variant]:
            raise ValueError(f"variant '{self.variant}' revision {self.revision} is not rendered by this version")

    def to_json(self) -> str:
        """The fields as text for a worker process."""
        return json.dumps(asdict(self))


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write arrays as one compressed file, atomically."""

    def save(place: Path) -> None:
        # An open file: numpy would add `.npz` to a name that does not end with it.
        with open(place, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, save)


@contextmanager
def read_arrays(path: Path) -> Iterator[Any]:
    """The arrays of a file by name, inside of a `with`. Raises OSError naming the file when it is damaged."""
    try:
        # Opened here, because np.load(path) leaves a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            yield content
    except (ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise OSError(5, f"damaged ({error}); delete it, it is rendered again", str(path)) from error


def serve(kind: type[Store[Any]]) -> None:
    """Run as a worker process, see `serve_jobs`: a job is a store and its chunks as JSON."""

    def render(line: str, on_chunk: Callable[[int], None]) -> None:
        job = json.loads(line)
        kind(**job["store"]).render(job["chunks"], on_chunk)

    serve_jobs(render)


_STORES = {
    "things": "store:SceneStore",
    "salient": "salient:SalientStore",
    "motion": "videos:VideoStore",
    "collisions": "collision_videos:CollisionStore",
    "contacts": "contact_videos:ContactStore",
}


def open_store(variant: str, revision: int, split: str, seed: int) -> Store[Any]:
    """The store of a variant, which has no scene yet. Raises ValueError for a variant without a store."""
    if variant not in _STORES:
        raise ValueError(f"variant '{variant}' is not rendered by this version; there are {', '.join(_STORES)}")
    module, _, name = _STORES[variant].partition(":")
    store_class: type[Store[Any]] = getattr(importlib.import_module(f".{module}", __package__), name)
    return store_class(variant, revision, split, seed)


CHUNK = 16
SIZE = 160
SHAPES = ((120, 160), (160, 120), (160, 160), (128, 160), (160, 128))
"""Height and width of the central part that is kept of the rendered square; scene i has entry i modulo 5."""


@dataclass(frozen=True)
class ClassedScene:
    """One scene, cropped to its size.

    image: (H, W, 3) uint8. objects: (H, W) uint8, 0 for the ground, else the number of the object. stuff: (H, W) uint8
    class index of the ground, 255 on objects. classes: class index of object i at index i - 1.
    """

    image: np.ndarray
    objects: np.ndarray
    stuff: np.ndarray
    classes: tuple[int, ...]

    @property
    def semantic(self) -> np.ndarray:
        """(H, W) uint8 class index of each pixel, things and stuff."""
        table = np.array([0, *self.classes], dtype=np.uint8)
        return np.where(self.objects > 0, table[self.objects], self.stuff).astype(np.uint8)


@dataclass(frozen=True)
class SceneStore(Store[ClassedScene]):
    """Scenes with classes, in files of 16."""

    chunk = CHUNK

    variant: str = "things"

    @staticmethod
    def read(path: Path) -> list[ClassedScene]:
        """The scenes of a file."""
        return read_chunk(path)

    def write(self, path: Path, indices: range) -> None:
        """Render these scenes and write them as one file."""
        from . import render

        windows = [central_window((SIZE, SIZE), SHAPES[index % len(SHAPES)]) for index in indices]
        scenes = render(self.variant, self.revision, self.split, indices, size=SIZE, seed=self.seed, windows=windows)
        cropped = [
            crop_scene(
                scenes.image[k].permute(1, 2, 0).numpy(),
                scenes.labels[k].numpy(),
                scenes.stuff[k].numpy(),
                [entry["category"] for entry in scenes.objects[k]],
                SHAPES[index % len(SHAPES)],
            )
            for k, index in enumerate(indices)
        ]
        write_chunk(path, cropped)


def crop_scene(
    image: np.ndarray, labels: np.ndarray, stuff: np.ndarray, classes: Sequence[int], shape: tuple[int, int]
) -> ClassedScene:
    """The central part of a square scene. Objects outside it are left out, the others renumbered.

    Args:
        image: (S, S, 3) uint8.
        labels: (S, S) uint8 number of the object, 0 for the ground.
        stuff: (S, S) uint8 class index of the ground.
        classes: class index of object i at index i - 1.
        shape: height and width of the part.
    """
    window = central_window(labels.shape, shape)
    image, labels, stuff = image[window], labels[window], stuff[window]
    table, numbers = renumbering(labels, len(classes))
    return ClassedScene(image, table[labels], stuff, tuple(classes[number - 1] for number in numbers))


def central_window(sides: Sequence[int], shape: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the central part, of this height and width, of a picture with these sides."""
    top, left = ((side - length) // 2 for side, length in zip(sides, shape, strict=True))
    return slice(top, top + shape[0]), slice(left, left + shape[1])


def renumbering(labels: np.ndarray, count: int) -> tuple[np.ndarray, list[int]]:
    """A table (count + 1,) uint8 from old to new numbers of the objects 1 .. `count`, and the old numbers that stay.

    Objects that occur in `labels` are numbered without gaps; all others become 0.
    """
    present = [number for number in range(1, count + 1) if (labels == number).any()]
    table = np.zeros(count + 1, dtype=np.uint8)
    table[present] = np.arange(1, len(present) + 1)
    return table, present


def write_chunk(path: Path, scenes: Sequence[ClassedScene]) -> None:
    """Write scenes as one file."""
    arrays: dict[str, np.ndarray] = {}
    for position, scene in enumerate(scenes):
        maps = np.concatenate([scene.image, scene.objects[..., None], scene.stuff[..., None]], axis=2)
        arrays[f"maps{position}"] = maps
        arrays[f"classes{position}"] = np.array(scene.classes, dtype=np.uint8)
    write_arrays(path, **arrays)


def read_chunk(path: Path) -> list[ClassedScene]:
    """The scenes of a file. Raises OSError naming the file when it is damaged."""
    with read_arrays(path) as content:
        count = sum(name.startswith("maps") for name in content.files)
        # Channels 0 to 2 are the image, 3 the objects, 4 the stuff.
        maps = [content[f"maps{k}"] for k in range(count)]
        classes = [tuple(int(c) for c in content[f"classes{k}"]) for k in range(count)]
    return [ClassedScene(m[..., :3], m[..., 3], m[..., 4], c) for m, c in zip(maps, classes, strict=True)]


def main() -> None:
    """Run as a worker process, see `serve`."""
    serve(SceneStore)
