"""Write videos as a DAVIS 2017 tree of the unsupervised task.

DAVIS/JPEGImages/480p/<sequence>/00000.jpg
DAVIS/Annotations_unsupervised/480p/<sequence>/00000.png     palette of VOC, 0 unlabelled, 1.. objects, no void
DAVIS/ImageSets/2017/<split>.txt

As in the official data, only objects of the first frame have a label (the official tool counts them there); objects
that enter later have none.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from ..scenes.videos import RenderedVideo
from .voc import voc_palette


def write(folder: Path, split: str, videos: Iterable[RenderedVideo], first: int) -> None:
    """Write the split `train` or `val`; video k becomes the sequence rendered-<first + k>."""
    root = folder / "DAVIS"
    names = []
    palette = voc_palette()
    for number, video in enumerate(videos, start=first):
        name = f"rendered-{number:06d}"
        images, masks = (root / kind / "480p" / name for kind in ("JPEGImages", "Annotations_unsupervised"))
        images.mkdir(parents=True)
        masks.mkdir(parents=True)
        video = video.keep(video.objects[0])
        for position, (frame, objects) in enumerate(zip(video.frames, video.objects, strict=True)):
            Image.fromarray(frame).save(images / f"{position:05d}.jpg", quality=95, subsampling=0)
            mask = Image.fromarray(objects)
            mask.putpalette(palette)
            mask.save(masks / f"{position:05d}.png")
        names.append(name)
    lists = root / "ImageSets" / "2017"
    lists.mkdir(parents=True, exist_ok=True)
    (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
