"""One shard of videos: frames are read, predicted and counted in clips, so that memory does not grow with a video."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas
import torch

from ..core.errors import SampleError
from ..core.types import Batch, Prediction, Video
from ..families.video import VideoAdapter
from ..models.frames import video_model
from ..results.record import Failure
from .loop import Item, ask, input_size, make_item, on_device
from .shards import Shard

if TYPE_CHECKING:
    from .plan import Plan


class VideoRunner:
    """Computes shards of a plan of the video family. A clip has `plan.batch_size` frames, unless the model wants all.

    A video of which one frame cannot be read or predicted fails as a whole: a score of the rest would be another one.
    """

    def __init__(self, plan: Plan, predictions: Path | None = None) -> None:
        self.plan = plan
        self.predictions = predictions
        self.input_size = input_size(plan)
        self.model = video_model(plan.model.model)
        self.adapter = cast(VideoAdapter, plan.adapter)
        self.source = ""
        self.seconds_model = 0.0

    def shard(self, positions: Sequence[int], advance: Callable[[int], None] = lambda count: None) -> Shard:
        """Rows of these positions in `plan.data.ids`."""
        start, self.seconds_model = time.perf_counter(), 0.0
        rows: list[dict[str, Any]] = []
        failed: list[Failure] = []
        for position in positions:
            try:
                rows += self._video(position)
            except SampleError as error:
                failed.append(Failure(id=self.plan.data.ids[position], error=str(error)))
            advance(1)
        types = {"id": "object", "noise_seed": "int64", "n_objects": "int64"}
        types |= self.adapter.columns(self.plan.task)
        frame = pandas.DataFrame(rows, columns=list(types)).astype(types)
        return Shard(frame, tuple(failed), self.source, time.perf_counter() - start, self.seconds_model)

    def _video(self, position: int) -> list[dict[str, Any]]:
        """A row for each noise seed."""
        video: Video = self.plan.data.reader[position]
        if not len(video):
            raise SampleError(video.id, "has no frame")
        return [{"id": video.id, "noise_seed": seed, **self._score(video, seed)} for seed in self.plan.noise_seeds]

    def _score(self, video: Video, seed: int) -> dict[str, Any]:
        tally = self.adapter.tally(self.plan.task)
        for start, items, outputs in self.clips(video, seed):
            tally.add([item.truth for item in items], outputs)
            if self.predictions is not None:
                for name, output in zip(video.names[start:], outputs, strict=False):
                    self.adapter.write(self.predictions, f"{video.id}/{name}", seed, output)
        return tally.row()

    def clips(self, video: Video, seed: int) -> Any:
        """First frame, items and outputs of one clip after another."""
        length = len(video) if getattr(self.model, "whole_video", False) else self.plan.batch_size
        state = None
        for start in range(0, len(video), length):
            items = self._read(video, range(start, min(start + length, len(video))))
            prediction = self._predict(items, start, seed, state)
            state = prediction.state
            if not self.adapter.finite(prediction).all():
                raise SampleError(video.id, f"model {self.plan.model.name}: the prediction is not finite")
            shapes = [(int(one.truth.labels.shape[0]), int(one.truth.labels.shape[1])) for one in items]
            yield start, items, self.adapter.outputs(prediction, shapes, self.input_size)

    def _read(self, video: Video, frames: Sequence[int]) -> list[Item]:
        return [make_item(video.frames[frame], self.plan, self.input_size) for frame in frames]

    def _predict(self, items: list[Item], start: int, seed: int, state: Any) -> Prediction:
        plan = self.plan
        clip = on_device(torch.stack([item.image for item in items])[None], plan)
        batch = Batch((items[0].id,), clip[:, 0], video=clip, start=start, state=state, noise_seed=seed)
        begin = time.perf_counter()
        prediction = ask(plan, self.model, batch, [item.truth for item in items])
        self.seconds_model += time.perf_counter() - begin
        prediction = self.adapter.check(prediction, len(items), plan.model.name)
        self.source = self.adapter.source(prediction)
        return prediction
