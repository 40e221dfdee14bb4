"""One shard of videos. Frames are read, predicted and counted clip by clip: memory does not grow with the video."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from ..core.errors import OclBenchError, SampleError, UsageError
from ..core.types import Batch, Prediction, Sample, Video
from ..families.base import ClipAdapter, LateTally, Tally
from ..models.frames import video_model
from ..results.record import Failure
from .failures import Patience, failure
from .loop import Item, input_size, make_item, on_device, predict_batch
from .shards import Shard, to_frame

if TYPE_CHECKING:
    from .plan import Plan


class VideoRunner:
    """Computes shards of a plan whose videos are predicted clip by clip.

    A clip has `plan.batch_size` frames, or all frames for a model that declares `whole_video`. When one frame cannot be
    read or predicted, its whole video fails: a score of the remaining frames would not be comparable.

    Args:
        plan: what is evaluated.
        predictions: folder in which the masks of the frames are saved, or None.
    """

    def __init__(self, plan: Plan, predictions: Path | None = None) -> None:
        self.plan = plan
        self.predictions = predictions
        self.input_size = input_size(plan.model, plan.task)
        self.model = video_model(plan.model.model)
        self.adapter = cast(ClipAdapter, plan.adapter)
        self.patience = Patience(len(plan.data.ids))
        self.source = ""
        self.seconds_model = 0.0

    def shard(self, positions: Sequence[int], advance: Callable[[int], None] = lambda count: None) -> Shard:
        """The rows of some videos.

        Args:
            positions: of the videos in `plan.data.ids`.
            advance: gets 1 after each video.
        """
        start, self.seconds_model = time.perf_counter(), 0.0
        rows: list[dict[str, Any]] = []
        failed: list[Failure] = []
        for position in positions:
            with self.failing_alone(position, failed):
                rows += self._video(position)
            advance(1)
        frame = to_frame(rows, self.adapter.columns(self.plan.task))
        return Shard(frame, tuple(failed), self.source, time.perf_counter() - start, self.seconds_model)

    @contextmanager
    def failing_alone(self, position: int, failed: list[Failure]) -> Iterator[None]:
        """Keep an error of one video in `failed`. Raises what `Patience.failed` raises."""
        sample_id = self.plan.data.ids[position]
        try:
            yield
        except SampleError as error:
            failed.append(Failure(id=sample_id, error=str(error)))
        except OclBenchError as error:
            failed.append(failure(sample_id, error, self.patience))
        else:
            self.patience.succeeded = True

    def _video(self, position: int) -> list[dict[str, Any]]:
        """The rows of one video, one for each noise seed."""
        video = self.video(position)
        return [{"id": video.id, "noise_seed": seed, **self._score(video, seed)} for seed in self.plan.noise_seeds]

    def video(self, position: int, fitting: bool = False) -> Video:
        """The frames of a video that count, see `Family.clip`. Raises SampleError for a video without a frame."""
        found: Sample | Video = self.plan.data.reader[position]
        video = cast(Callable[[], Video], found.video)() if isinstance(found, Sample) else found
        if not len(video):
            raise SampleError(video.id, "has no frame")
        return self.plan.family.clip(self.adapter, video, fitting)

    def _score(self, video: Video, seed: int) -> dict[str, Any]:
        """The row of one video with one noise seed; its masks are saved where the run saves predictions."""
        tally = self.adapter.tally(self.plan.task)
        for name, (_, output) in zip(video.names, self.shown(video, seed, tally), strict=True):
            if self.predictions is not None:  # now, as the frames of a whole video may not fit into memory
                self.adapter.write(self.predictions, f"{video.id}/{name}", seed, output)
        return tally.row()

    def shown(self, video: Video, seed: int, tally: Tally) -> Iterator[tuple[Item, Any]]:
        """Yields each frame and the output that is saved and drawn of it, and adds all frames to the tally."""
        waiting: list[Item] = []
        for _, items, outputs in self.clips(video, seed):
            tally.add([item.truth for item in items], outputs)
            if isinstance(tally, LateTally):
                waiting += items
            else:
                yield from zip(items, outputs, strict=True)
        if isinstance(tally, LateTally):
            yield from zip(waiting, tally.shown(), strict=True)

    def clips(self, video: Video, seed: int) -> Any:
        """Yields the index of the first frame, the items and the outputs of each clip, in order."""
        for start, items, prediction in self.predicted(video, seed):
            shapes = [(int(item.truth.labels.shape[0]), int(item.truth.labels.shape[1])) for item in items]
            yield start, items, self.adapter.outputs(prediction, shapes, self.input_size)

    def predicted(self, video: Video, seed: int) -> Iterator[tuple[int, list[Item], Prediction]]:
        """Yields the index of the first frame, the items and the prediction of each clip, in order.

        Raises SampleError for a prediction that is not finite, and UsageError for slots of another number or length.
        """
        length = max(1, len(video)) if getattr(self.model, "whole_video", False) else self.plan.batch_size
        state, slots = None, tuple[int, ...]()
        for frames in self._pieces(len(video), length):
            items = self._read(video, frames)
            prediction = self._predict(items, frames.start, seed, state)
            state = prediction.state
            slots = self._slot_shape(prediction, frames.start, slots)
            if not self.adapter.finite(prediction).all():
                raise SampleError(video.id, f"model {self.plan.model.name}: the prediction is not finite")
            yield frames.start, items, prediction

    def _slot_shape(self, prediction: Prediction, start: int, before: tuple[int, ...]) -> tuple[int, ...]:
        """Number and length of the slots, see `ClipAdapter.slot_shape`. before: those of the last clip, empty at first.

        A slot of a video model means the same object in all frames, which another number of slots contradicts. Those of
        an image model are linked by number. Those of a ceiling are numbered by the truth, and a clip has those of the
        objects in it.
        """
        found, model = self.adapter.slot_shape(prediction), self.plan.model
        if not found or not before:
            return found or before
        follows = getattr(model.model, "reads_video", False) and not model.needs_truth
        if follows and found[0] != before[0]:
            raise UsageError(
                f"model {model.name}: the prediction has {found[0]} slots from frame {start} on, {before[0]} before; a "
                "slot means the same object in all frames: give as many slots for each clip, with weight 0 for those "
                "that are not in use, or where only masks are scored integer label maps"
            )
        if found[1:] != before[1:]:
            raise UsageError(
                f"model {model.name}: Prediction.slots has slots of {found[1]} numbers from frame {start} on, of "
                f"{before[1]} before; give slots of one length"
            )
        return found

    def _pieces(self, count: int, length: int) -> Iterator[range]:
        """The frames of each clip of up to `length`; none holds frames from both sides of those that stand alone."""
        bounds = (0, min(self.adapter.alone, count), count)
        for first, last in itertools.pairwise(bounds):
            for start in range(first, last, length):
                yield range(start, min(start + length, last))

    def _read(self, video: Video, frames: Sequence[int]) -> list[Item]:
        """The prepared frames with these indices."""
        return [make_item(video.frames[frame], self.plan, self.input_size) for frame in frames]

    def _predict(self, items: list[Item], start: int, seed: int, state: Any) -> Prediction:
        """Predict one clip. state: what the model returned for the clip before, None for the first one."""
        plan = self.plan
        # The last clip is not padded, unlike batches of images: repeated frames would enter the state.
        clip = on_device(torch.stack([item.image for item in items])[None], plan)
        # Frames have the id of their video.
        batch = Batch((items[0].id,), clip[:, 0], video=clip, start=start, state=state, noise_seed=seed)
        begin = time.perf_counter()
        prediction = predict_batch(plan, self.model, batch, [item.truth for item in items])
        self.seconds_model += time.perf_counter() - begin
        prediction = self.adapter.check(prediction, len(items), plan.model.name)
        self.source = self.adapter.source(prediction)
        return prediction
