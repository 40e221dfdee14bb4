"""Write rendered contacts in the layout of Physion, with frames as pictures, as SlotFormer extracts them.

PhysionTestMP4s/Collide/mp4s-redyellow/contact_0000-redyellow_img/000000.png
PhysionTestMP4s/labels.csv
PhysionTrainMP4s/Collide_readout_MP4s/contact_0000_img/000000.png
PhysionTrainMP4s/readout_labels.csv
stand-in.json                                       what differs from the official videos of 150 frames

The eight scenarios of Physion are not imitated: everything is a collision.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from ..physion import OUTCOME, PLACES
from ..scenes.collision_videos import RenderedCollisions
from ..scenes.collisions import SEEN
from ..scenes.contact_videos import touch

_STRIDE = 2
"""Frames of a video from one that counts to the next."""


def write(folder: Path, split: str, videos: Iterable[RenderedCollisions], first: int) -> None:
    """Write the split `test` or `readout`."""
    del first
    root = folder / "Physion"
    place = PLACES[split]
    labels = []
    for number, video in enumerate(videos):
        stem = f"contact_{number:04d}{place.marks[0]}_img"
        frames = root / place.folder("Collide") / stem
        frames.mkdir(parents=True)
        for position, frame in enumerate(video.frames):
            Image.fromarray(frame).save(frames / f"{position:06d}.png", compress_level=1)
        labels.append((place.label_of(stem), touch(video.world)))
    with (root / place.labels).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("", OUTCOME), *labels])
    (root / "stand-in.json").write_text(json.dumps({"seen_frames": SEEN, "stride": _STRIDE}), encoding="utf-8")
