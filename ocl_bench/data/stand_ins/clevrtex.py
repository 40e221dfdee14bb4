"""Write rendered scenes in CLEVRTEX's official layout (karazijal/clevrtex-generation, `generate.py`).

    <folder>/<number // 1000>/CLEVRTEX_<variant>_<6 digits>.png, .._flat.png (palette mask), .json (metadata)

The image, the mask and the metadata are written; the official albedo, depth, normal and shadow files have no stand-in.
"""

from __future__ import annotations

import colorsys
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...core.files import write_atomically
from ..serving import serve_jobs

SHARD = 1000
"""Scenes per numbered folder in the official data."""

CHUNK = 16
"""Number of scenes that are rendered together."""

MASK_SUFFIX = "_flat.png"


@dataclass(frozen=True)
class WriteJob:
    """Scenes to render and write. Scene i of the split gets the number `first + i`."""

    folder: str
    variant: str
    revision: int
    split: str
    seed: int
    size: int
    first: int
    indices: tuple[int, ...]

    @property
    def module(self) -> str:
        """The module whose `main` does such jobs."""
        return __name__

    def run(self, on_chunk: Callable[[int], None]) -> None:
        """Render and write the scenes in this process."""
        write_scenes(self, on_chunk)

    def to_json(self) -> str:
        """The job as text for a worker process; `from_json` reads it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> WriteJob:
        """The job that `to_json` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "indices": tuple(fields["indices"])})


def scene_path(folder: Path, variant: str, number: int) -> Path:
    """Path of the image of a scene; its mask and metadata have the same stem."""
    return Path(folder) / str(number // SHARD) / f"CLEVRTEX_{variant}_{number:06d}.png"


def scene_files(variant: str, number: int) -> tuple[str, str, str]:
    """Names of metadata, mask and image of a scene, relative to the folder of the variant."""
    image = scene_path(Path(), variant, number)
    return image.with_suffix(".json").as_posix(), _mask_path(image).as_posix(), image.as_posix()


def write_scenes(job: WriteJob, on_chunk: Callable[[int], None]) -> None:
    """Render and write the scenes of a job; `on_chunk(n)` is called after each n of them."""
    from .. import scenes

    for start in range(0, len(job.indices), CHUNK):
        indices = job.indices[start : start + CHUNK]
        rendered = scenes.render(job.variant, job.revision, job.split, indices, size=job.size, seed=job.seed)
        for position, i in enumerate(indices):
            image = rendered.image[position].permute(1, 2, 0).cpu().numpy()
            labels = rendered.labels[position].cpu().numpy()
            write_scene(Path(job.folder), job.variant, job.first + i, image, labels, rendered.objects[position])
        on_chunk(len(indices))


def write_scene(
    folder: Path, variant: str, number: int, image: np.ndarray, labels: np.ndarray, objects: list[dict[str, Any]]
) -> None:
    """Write one scene, each file atomically.

    Args:
        folder: of the variant.
        variant: goes into the file names.
        number: of the scene.
        image: (H, W, 3) uint8.
        labels: (H, W) uint8, 0 for the background and i for entry i - 1 of `objects`.
        objects: metadata of each object.

    Raises:
        ValueError: a label has no object.
    """
    if int(labels.max(initial=0)) > len(objects):
        raise ValueError(f"scene {number}: mask label {labels.max()} but {len(objects)} objects")
    path = scene_path(folder, variant, number)
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = _palette_image(labels)
    metadata = {
        "num_objects": len(objects),
        "split": variant,
        "image_index": number,
        "image_filename": path.name,
        "mask_filename": _mask_path(path).name,
        "objects": [{**entry, "index": i} for i, entry in enumerate(objects, start=1)],
    }
    # The image comes last: a process that sees an image finds its mask and its metadata.
    text = json.dumps(metadata, default=_plain)
    write_atomically(path.with_suffix(".json"), lambda place: place.write_text(text, encoding="utf-8"))
    write_atomically(_mask_path(path), lambda place: mask.save(place, format="PNG"))
    write_atomically(path, lambda place: Image.fromarray(image).save(place, format="PNG", compress_level=1))


@cache
def mask_palette() -> tuple[int, ...]:
    """256 different colours as a flat tuple R, G, B, ..: black for the background, then hues a golden angle apart."""
    # All must differ, because some loaders (DIAS) tell objects apart by colour and not by palette number.
    colours = [(0, 0, 0)]
    for i in range(1, 256):
        red, green, blue = colorsys.hsv_to_rgb(i * 0.618034 % 1, 1 - 0.5 * (i % 3) / 2, 1 - 0.45 * (i % 5) / 4)
        colours.append((round(255 * red), round(255 * green), round(255 * blue)))
    return tuple(value for colour in colours for value in colour)


def main() -> None:
    """Run as a worker process, see `serve_jobs`."""
    from .. import scenes  # noqa: F401 - the ray caster is loaded before a job is asked for

    serve_jobs(lambda line, on_chunk: WriteJob.from_json(line).run(on_chunk))


def _palette_image(labels: np.ndarray) -> Image.Image:
    image = Image.fromarray(labels.astype(np.uint8))
    image.putpalette(mask_palette())
    return image


def _mask_path(image: Path) -> Path:
    return image.with_name(image.stem + MASK_SUFFIX)


def _plain(value: Any) -> Any:
    """An array or tensor in the metadata as a list."""
    return value.tolist()
