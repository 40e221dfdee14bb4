"""Masks of images or videos that have no truth: the corridor of an evaluation up to the score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..cards.names import get_task
from ..cards.task import DataSpec, TaskSpec
from ..core.errors import UsageError
from ..core.log import progress_bar
from ..core.machine import choose_device, fixed_arithmetic
from ..core.types import Sample
from ..data.unlabelled import open_unlabelled
from ..families import find_family
from ..models.loading import get_model
from ..results.record import Failure
from .loop import Runner
from .plan import Plan, make_plan
from .reading import Item
from .video_loop import VideoRunner


@dataclass(frozen=True)
class SegmentMap:
    """The segments of one image, or of one frame.

    Attributes:
        name: the id of the image, or `<video id>/<frame>`.
        ids: (H, W) int64 from 1: slot k, or label k of a model that gives labels, is k + 1. No pixel is 0, which is no
            segment where videos are scored from files.
        image: (h, w, 3) uint8, what the ids are drawn on: the whole image, or the square that the model saw where a
            task crops or resizes.
    """

    name: str
    ids: np.ndarray
    image: np.ndarray


def prediction_plan(
    model: Any,
    folder: Path,
    *,
    task: str | None = None,
    video: bool = False,
    limit: int | None = None,
    seed: int = 0,
    device: str = "auto",
    batch_size: int = 16,
    checkpoint: Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> Plan:
    """The plan that predicts what lies in a folder, see `open_unlabelled`; other arguments are those of `evaluate`.

    Args:
        task: images are cropped and resized as by this task. None squeezes the whole image into the model's square.
        video: whether folders of images are videos. They also are for a task on videos, and for a model of videos.
        seed: of the slots' noise.

    Raises:
        UsageError: the task is not scored by masks alone, or is one of images where videos are asked for; the model
            needs the truth.
        DataMissingError: the folder is missing or holds no image.
    """
    device = choose_device(device)
    loaded = get_model(model, checkpoint=checkpoint, options=options, device=device)
    if loaded.needs_truth:
        raise UsageError(f"model {loaded.name}: needs the truth, which is not there; name another one")
    spec = get_task(task) if task is not None else None
    video = video or getattr(loaded.model, "reads_video", False)
    if spec is not None:
        _check(spec, video)
        video = find_family(spec.family).unit == "videos"
    data = open_unlabelled(folder, video, limit)
    card = spec or _whole_images(video)
    return make_plan(loaded, card, data=data, noise_seeds=(seed,), device=device, batch_size=batch_size, limit=limit)


def _check(task: TaskSpec, video: bool) -> None:
    """Raise UsageError for a task whose predictions are no masks, or that is one of images where videos are given."""
    family = find_family(task.family)
    if family.output != "label maps" or task.fit is not None:
        raise UsageError(f"task {task.name}: is not scored by masks alone; name one of discovery or video")
    if video and family.unit != "videos":
        raise UsageError(f"task {task.name}: is one of images, and these are videos; name one of the family video")


def _whole_images(video: bool) -> TaskSpec:
    """A card that crops nothing and keeps the size of each image."""
    family, metric = ("video", "mbo_video") if video else ("discovery", "mbo_fg")  # a card needs one
    about: dict[str, Any] = {"name": "predict", "version": 1, "data": DataSpec(reader="unlabelled")}
    return TaskSpec(family=family, protocol=cast(Any, {}), metrics=(metric,), main=metric, **about)


def segment_maps(plan: Plan, failed: list[Failure], *, progress: bool = True) -> Iterator[SegmentMap]:
    """The maps of all images, or of all frames of all videos, in order.

    A frame that fails ends its video, whose earlier frames have been given.

    Args:
        plan: of `prediction_plan`.
        failed: gets the images or videos that cannot be read or predicted.
        progress: whether to show a progress bar.

    Raises:
        UsageError: the model fails on everything (see `failures.Patience`).
    """
    maps = _of_videos if plan.by_clips else _of_images
    bar = progress_bar(f"{plan.model.name} on {plan.data.root}", len(plan.data.ids), progress, plan.family.unit)
    with fixed_arithmetic(plan.threads), bar as advance:
        for done, one in maps(plan, failed):
            if one is not None:
                yield one
            advance(done)


def _of_images(plan: Plan, failed: list[Failure]) -> Iterator[tuple[int, SegmentMap | None]]:
    """Maps, and the number of images that are done, which comes with None."""
    runner, reader = Runner(plan), plan.data.reader
    positions = {sample_id: position for position, sample_id in enumerate(plan.data.ids)}
    for first in range(0, len(positions), plan.batch_size):
        chosen = range(first, min(first + plan.batch_size, len(positions)))
        items, unreadable = runner.read(chosen)
        kept, outputs, unpredicted = runner.outputs(items, plan.noise_seeds[0])
        failed += unreadable + unpredicted
        for item, output in zip(kept, outputs, strict=True):
            yield 0, SegmentMap(item.id, output + 1, _picture(plan, item, reader, positions[item.id]))
        yield len(chosen), None


def _of_videos(plan: Plan, failed: list[Failure]) -> Iterator[tuple[int, SegmentMap | None]]:
    """Maps, and the number of videos that are done, which comes with None."""
    runner = VideoRunner(plan)
    for position in range(len(plan.data.ids)):
        with runner.failing_alone(position, failed):
            video = runner.video(position)
            for start, items, outputs in runner.clips(video, plan.noise_seeds[0]):
                for frame, (item, output) in enumerate(zip(items, outputs, strict=True), start):
                    ids = output.astype(np.int64) + 1  # the type of a video's ids is the smallest that holds them
                    name = f"{video.id}/{video.names[frame]}"
                    yield 0, SegmentMap(name, ids, _picture(plan, item, video.frames, frame))
        yield 1, None


def _picture(plan: Plan, item: Item, samples: Any, position: int) -> np.ndarray:
    """What a map is drawn on, (h, w, 3) uint8. samples: images, or the frames of a video, at whose `position` it is."""
    protocol = plan.task.protocol
    if protocol.crop != "none" or protocol.score_at is not None or protocol.shorter_side is not None:
        return item.pixels
    whole: Sample = samples[position]
    return whole.image
