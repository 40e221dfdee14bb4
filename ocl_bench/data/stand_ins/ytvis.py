"""Write videos as the training set of YouTube-VIS 2021, the end of which is the usual validation split.

train/JPEGImages/<10 hexadecimal digits>/00000.jpg, 00005.jpg, ...     every fifth frame was annotated
train/instances.json                                                  run-length codes of both kinds, null if not seen
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from ..scenes.store import central_window
from ..scenes.videos import RenderedVideo
from .coco import NO_SOURCE, file_head, uncompressed_counts

CATEGORIES = (
    "airplane", "bear", "bird", "boat", "car", "cat", "cow", "deer", "dog", "duck", "earless_seal", "elephant", "fish",
    "flying_disc", "fox", "frog", "giant_panda", "giraffe", "horse", "leopard", "lizard", "monkey", "motorbike",
    "mouse", "parrot", "person", "rabbit", "shark", "skateboard", "snake", "snowboard", "squirrel", "surfboard",
    "tennis_racket", "tiger", "train", "truck", "turtle", "whale", "zebra",
)  # fmt: skip
"""Names of the 40 categories of 2021, ids from 1; rendered shapes have the first ones."""

SHAPES = ((96, 128), (128, 96), (128, 128))
"""Height and width of the central part that is written; the video with number n has entry n modulo 3."""

_EVERY = 5


def write(folder: Path, split: str, videos: Iterable[RenderedVideo], first: int) -> None:
    """Write one split (train or validation), always as train/: only these videos have annotations.

    Video k gets the id first + k + 1. Its folder is named first + k in hexadecimal digits.
    """
    images = folder / "train" / "JPEGImages"
    listed: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, video in enumerate(videos, start=first):
        video = crop_video(video, SHAPES[number % len(SHAPES)])
        name = f"{number:010x}"
        (images / name).mkdir(parents=True)
        files = [f"{name}/{_EVERY * t:05d}.jpg" for t in range(len(video.frames))]
        for file, frame in zip(files, video.frames, strict=True):
            Image.fromarray(frame).save(images / file, quality=95, subsampling=0)
        _, height, width = video.objects.shape
        size = {"height": height, "width": width}
        listed.append({**NO_SOURCE, **size, "id": number + 1, "length": len(files), "file_names": files})
        for label, category in enumerate(video.categories, start=1):
            entry = {"id": len(annotations) + 1, "video_id": number + 1, "category_id": category, "iscrowd": 0}
            annotations.append({**entry, **size, "length": 1, **_tube(video.objects == label, packed=label % 2 == 1)})
    kinds = [{"supercategory": "object", "id": k, "name": name} for k, name in enumerate(CATEGORIES, start=1)]
    head = file_head("rendered videos in the layout of YouTube-VIS 2021")
    content = {**head, "videos": listed, "categories": kinds, "annotations": annotations}
    (folder / "train" / "instances.json").write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")


def crop_video(video: RenderedVideo, shape: tuple[int, int]) -> RenderedVideo:
    """The central part of a video. Objects that it never shows are left out, the others renumbered."""
    window = (slice(None), *central_window(video.objects.shape[1:], shape))
    cropped = RenderedVideo(video.frames[window], video.objects[window], video.categories)
    return cropped.keep(cropped.objects)


def _tube(masks: np.ndarray, *, packed: bool) -> dict[str, Any]:
    """Segmentations, boxes and areas of one object, from its masks (T, H, W) bool; None where it is not seen.

    packed: whether run-length codes are compressed. Official files have both kinds.
    """
    codes: list[dict[str, Any] | None] = []
    boxes: list[list[float] | None] = []
    areas: list[float | None] = []
    for mask in masks:
        if not mask.any():
            codes.append(None)
            boxes.append(None)
            areas.append(None)
            continue
        code = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
        codes.append(
            {"size": list(mask.shape), "counts": code["counts"].decode()} if packed else uncompressed_counts(mask)
        )
        boxes.append([float(value) for value in rle.toBbox(code)])
        areas.append(float(rle.area(code)))
    return {"segmentations": codes, "bboxes": boxes, "areas": areas}
