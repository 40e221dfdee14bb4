"""Score masks of videos that exist already: one id-map PNG for each frame, `<folder>/<video>/<frame>.png`.

They go through the corridor like a model: here one that looks its masks up. An id means the same segment in all frames.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch

from ...cards.model import ModelCard
from ...cards.task import TaskSpec
from ...core.errors import SampleError, UsageError
from ...core.types import Batch, MaskSource, Prediction, Video
from ...data import OpenData
from ...families.video import VideoAdapter
from ...models.loading import LoadedModel
from ..plan import Plan, make_plan
from .label_maps import read_prediction

FindMask = Callable[[str, str, int], Path]
"""Video id, name of the frame and noise seed to the file of the mask."""


def masks_of(folder: Path, data: OpenData) -> FindMask:
    """Where a user's masks are. Raises UsageError when a frame has none; videos that cannot be read need none."""
    missing, total = [], 0
    for video in _readable(data):
        paths = [folder / video.id / f"{name}.png" for name in video.names]
        if any(".." in path.parts for path in paths):
            raise UsageError(f"video id '{video.id}' is not usable as a folder below {folder}")
        missing += [path for path in paths if not path.is_file()]
        total += len(paths)
    if missing:
        first = missing[0].relative_to(folder)
        remedy = "write one id-map PNG for each frame, <video>/<frame>.png"
        raise UsageError(f"{folder}: {len(missing)} of {total} masks are missing, first {first}; {remedy}")
    return lambda video_id, name, seed: folder / video_id / f"{name}.png"


def _readable(data: OpenData) -> Iterator[Video]:
    """The videos that can be opened; the corridor counts the others."""
    for index in range(len(data.ids)):
        with suppress(SampleError):
            yield data.reader[index]


def video_plan(
    task: TaskSpec,
    data: OpenData,
    find: FindMask,
    name: str,
    *,
    background: int | None,
    mask_source: str = "none",
    noise_seeds: Sequence[int] = (0,),
    limit: int | None = None,
    split: str | None = None,
) -> Plan:
    """The plan that scores masks from files.

    background: id of the pixels without a segment, which is no proposal in J and F, as DAVIS has it; in FG-ARI and mBO
    it is a segment all the same. None: every id is a segment. mask_source: for the signature, as a result has it.
    """
    source, _, link = mask_source.partition("+linked-")
    lookup = _VideoLookup(task, data, find, source, link)
    content = hashlib.sha256()
    for video in _readable(data):
        for seed in noise_seeds:
            for path in (find(video.id, frame, seed) for frame in video.names):
                content.update(path.read_bytes() if path.is_file() else b"")
    card = ModelCard(name="supplied-masks", source="user:object", input=8, notes=("masks from files",))
    model = LoadedModel(lookup, card, name, content.hexdigest(), 0, None, {}, bundled=False)
    plan = make_plan(model, task, data=data, noise_seeds=noise_seeds, limit=limit, split=split, device="cpu")
    return replace(plan, adapter=VideoAdapter(task, no_segment=background))


class _VideoLookup:
    """A model of videos that reads its masks from files, each of the frame's own size or of the scored one."""

    reads_video = True

    def __init__(self, task: TaskSpec, data: OpenData, find: FindMask, source: str, link: str) -> None:
        self.task, self.data, self.find = task, data, find
        self.source, self.link = cast(MaskSource, source), link
        self.position = {video_id: index for index, video_id in enumerate(data.ids)}
        self.video: Video | None = None

    def predict(self, batch: Batch) -> Prediction:
        """Label maps (1, T, H, W). Raises SampleError for a mask that is missing, broken or of another size."""
        assert batch.video is not None
        video = self._open(batch.ids[0])
        frames = range(batch.start, batch.start + batch.video.shape[1])
        paths = [self.find(video.id, video.names[frame], batch.noise_seed) for frame in frames]
        maps = [
            read_prediction(path, video.frames[frame], self.task) for path, frame in zip(paths, frames, strict=True)
        ]
        return Prediction(masks=torch.from_numpy(np.stack(maps))[None], mask_source=self.source, link=self.link)

    def _open(self, video_id: str) -> Video:
        """The video; it is kept until another one is asked for, as opening may mean to read megabytes."""
        if self.video is None or self.video.id != video_id:
            self.video = self.data.reader[self.position[video_id]]
        return self.video
