"""Small runs on a user's own images and videos, with predictions, for the tests of reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ocl_bench import evaluate
from ocl_bench.cards.task import TaskSpec
from ocl_bench.core.types import Batch, Prediction
from ocl_bench.results.record import Result, read_result

SIDE, COUNT, FRAMES = 32, 30, 5
BROKEN = "img007"
"""An image that cannot be read: its sample fails in every run."""
NASTY = "<script>alert(1)</script>"
"""A name that no model of ours can have, but one in a stranger's file; it must stay text."""
_COLOURS = np.array([[60, 60, 60], [220, 40, 40], [40, 60, 220], [230, 220, 40]], np.uint8)


def scene(number: int, shift: int = 0) -> np.ndarray:
    """(SIDE, SIDE) labels: one to three squares of several sizes."""
    random = np.random.default_rng(number)
    labels = np.zeros((SIDE, SIDE), np.uint8)
    for label in range(1, 2 + number % 3):
        size = int(random.integers(4, 11))
        top, left = (int(value) for value in random.integers(0, SIDE - size, 2))
        left = min(SIDE - size, left + shift)
        labels[top : top + size, left : left + size] = label
    return labels


def own_images(folder: Path) -> TaskSpec:
    """Write images and masks below `folder` and return their card."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(COUNT):
        name = f"img{number:03d}.png"
        _write(folder, name, scene(number))
    (folder / "images" / f"{BROKEN}.png").write_bytes(b"no image")
    return _card("own-images", "discovery", "folder", ["mbo_fg", "fg_ari"])


def own_videos(folder: Path, count: int = 3) -> TaskSpec:
    """Write frames and masks below `folder` and return their card."""
    for number in range(count):
        for frame in range(FRAMES):
            _write(folder, f"clip{number}/{frame:03d}.png", scene(number, frame), "frames")
    return _card("own-videos", "video", "video-folder", ["mbo_video", "fg_ari_video"])


def _write(folder: Path, name: str, labels: np.ndarray, images: str = "images") -> None:
    for place, pixels in ((images, _COLOURS[labels]), ("masks", labels)):
        path = folder / place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


def _card(name: str, family: str, reader: str, metrics: list[str]) -> TaskSpec:
    content = {
        "name": name,
        "version": 1,
        "family": family,
        "data": {"reader": reader},
        "protocol": {"input": SIDE, "score_at": SIDE},
        "metrics": metrics,
        "main": metrics[0],
    }
    return TaskSpec.model_validate(content)


class Colours:
    """Segments by colour. blocks: cut into blocks of this many pixels, so that objects are split and spill."""

    def __init__(self, blocks: int = 1) -> None:
        self.blocks = blocks

    def predict(self, batch: Batch) -> Prediction:
        video = batch.video is not None
        image = batch.video[0] if batch.video is not None else batch.image
        pixels = (image.permute(0, 2, 3, 1) * 255).round()
        distance = torch.stack([(pixels - torch.tensor(one)).abs().sum(3) for one in _COLOURS.astype(np.float32)], 1)
        labels = distance.argmin(1)
        coarse = labels[:, :: self.blocks, :: self.blocks]
        labels = coarse.repeat_interleave(self.blocks, 1).repeat_interleave(self.blocks, 2)
        labels[:, :, SIDE // 2 :] += 4 * (self.blocks > 1)  # objects in the middle get two segments
        return Prediction(masks=labels[None] if video else labels, mask_source="clusters")


class VideoColours(Colours):
    """The same for videos."""

    reads_video = True


def run_of(task: TaskSpec, root: Path, results: Path, model: Any, name: str, **keywords: Any) -> Result:
    """Evaluate a model with saved predictions."""
    settings = {"data_root": root, "results": results, "save_predictions": True, "progress": False, "device": "cpu"}
    return evaluate(model, task, name=name, **settings, **keywords)


def renamed(result: Result, name: str) -> Result:
    """The result with another name in its file, as a stranger may write it."""
    assert result.path is not None
    content = json.loads(result.path.read_text())
    content["model"]["name"] = name
    result.path.write_text(json.dumps(content))
    return read_result(result.path)
