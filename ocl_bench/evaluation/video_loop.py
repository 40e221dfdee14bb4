"""Shards of videos. Frames are read, predicted and counted clip by clip: memory does not grow with the video."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from ..core.errors import OclBenchError, SampleError, UsageError
from ..core.types import Batch, Prediction, Sample, Video
from ..families.base import ClipAdapter, LateTally, Tally
from ..models.frames import video_model
from ..results.record import Failure
from .behind import Behind
from .failures import Patience, failure
from .loop import input_size, on_device, predict_batch
from .reading import Clip, ClipSource, Item, make_item, video_of
from .shards import Shard, to_frame
from .workers import Outcome, attempted, read_ahead

if TYPE_CHECKING:
    from .plan import Plan


ReadFrames = Callable[[Sequence[int]], list[Item]]


@dataclass(frozen=True)
class _Opened:
    """A video as its reader returns it, and the numbers of the frames that count."""

    whole: Video
    numbers: Sequence[int]

    @property
    def part(self) -> Video:
        """The frames that count."""
        return self.whole.part(self.numbers)


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
        self.opened: dict[int, Outcome[int, _Opened]] = {}
        self.done: set[int] = set()

    def shards(
        self,
        groups: Sequence[Sequence[int]],
        finish: Callable[[int, Shard], None],
        advance: Callable[[int], None] = lambda count: None,
    ) -> None:
        """Compute the rows of groups of videos. A thread counts each clip while the next one is predicted.

        Args:
            groups: positions of the videos in `plan.data.ids`, those of one shard in each group.
            finish: gets the number of a group and its shard, in order.
            advance: gets 1 after each video.
        """
        clips = self._clips([position for positions in groups for position in positions])
        there = ClipSource(self.plan.data.reader, self.plan.task.protocol, self.input_size)
        with read_ahead(clips, self._here, there, self.plan.workers, self.plan.device) as reads:
            for number, positions in enumerate(groups):
                start, self.seconds_model = time.perf_counter(), 0.0
                rows: list[dict[str, Any]] = []
                failed: list[Failure] = []
                for position in positions:
                    with self.failing_alone(position, failed):
                        rows += self._video(position, reads)
                    self.done.add(position)
                    self.opened.pop(position, None)
                    advance(1)
                frame = to_frame(rows, self.adapter.columns(self.plan.task))
                seconds = time.perf_counter() - start, self.seconds_model
                finish(number, Shard(frame, tuple(failed), self.source, *seconds))

    def _clips(self, positions: Sequence[int]) -> Iterator[Clip]:
        """What is read for these videos, in order. It runs ahead; of a video that has failed nothing more is read."""
        for position in positions:
            if position in self.done or (opened := self._opened(position)).error is not None:
                continue
            numbers = opened.get().numbers
            for frames in [frames for _ in self.plan.noise_seeds for frames in self._pieces(len(numbers))]:
                if position in self.done:
                    break
                yield Clip(position, tuple(numbers[frame] for frame in frames), numbers[0])

    def _opened(self, position: int) -> Outcome[int, _Opened]:
        """The video at a position, which is opened once: ahead of its turn, or when it has its turn."""
        if position not in self.opened:
            self.opened[position] = attempted(self._open, position)
        return self.opened[position]

    def _here(self, clip: Clip) -> list[Item]:
        """The frames of a clip, read in this process."""
        frames = self._opened(clip.position).get().whole.frames
        return [self.item(frames[number]) for number in clip.frames]

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

    def _video(self, position: int, reads: Iterator[Outcome[Clip, list[Item]]]) -> list[dict[str, Any]]:
        """The rows of one video, one for each noise seed."""
        video, seeds = self._opened(position).get().part, self.plan.noise_seeds

        def read(frames: Sequence[int]) -> list[Item]:
            del frames  # the next ones
            # Clips of a video that has failed may have been read already: they are passed over.
            return next(one for one in reads if one.unit.position == position).get()

        return [{"id": video.id, "noise_seed": seed, **self._score(video, seed, read)} for seed in seeds]

    def video(self, position: int, fitting: bool = False) -> Video:
        """The frames of a video that count, see `Family.clip`. Raises SampleError for a video without a frame."""
        return self._open(position, fitting).part

    def _open(self, position: int, fitting: bool = False) -> _Opened:
        """As `video`."""
        video = video_of(self.plan.data.reader[position])
        if not len(video):
            raise SampleError(video.id, "has no frame")
        return _Opened(video, self.plan.family.clip(self.adapter, video, fitting))

    def _score(self, video: Video, seed: int, read: ReadFrames) -> dict[str, Any]:
        """The row of one video with one noise seed; its masks are saved where the run saves predictions."""
        tally = self.adapter.tally(self.plan.task)
        for name, (_, output) in zip(video.names, self.shown(video, seed, tally, read), strict=True):
            if self.predictions is not None:  # now, as the frames of a whole video may not fit into memory
                self.adapter.write(self.predictions, f"{video.id}/{name}", seed, output)
        return tally.row()

    def shown(
        self, video: Video, seed: int, tally: Tally, read: ReadFrames | None = None
    ) -> Iterator[tuple[Item, Any]]:
        """Yields each frame and the output that is saved and drawn of it, and adds all frames to the tally."""
        waiting: list[Item] = []
        with Behind() as counting:
            for _, items, outputs in self.clips(video, seed, read):
                counting.do(partial(tally.add, [item.truth for item in items], outputs))
                if isinstance(tally, LateTally):
                    waiting += items
                else:
                    yield from zip(items, outputs, strict=True)
        if isinstance(tally, LateTally):
            yield from zip(waiting, tally.shown(), strict=True)

    def clips(self, video: Video, seed: int, read: ReadFrames | None = None) -> Any:
        """Yields the index of the first frame, the items and the outputs of each clip, in order."""
        for start, items, prediction in self.predicted(video, seed, read):
            shapes = [(int(item.truth.labels.shape[0]), int(item.truth.labels.shape[1])) for item in items]
            yield start, items, self.adapter.outputs(prediction, shapes, self.input_size)

    def predicted(
        self, video: Video, seed: int, read: ReadFrames | None = None
    ) -> Iterator[tuple[int, list[Item], Prediction]]:
        """Yields the index of the first frame, the items and the prediction of each clip, in order.

        read: gives the items of frames, in place of the video itself.

        Raises SampleError for a prediction that is not finite, and UsageError for slots of another number or length.
        """
        read = read or (lambda frames: [self.item(video.frames[frame]) for frame in frames])
        state, slots = None, tuple[int, ...]()
        for frames in self._pieces(len(video)):
            items = read(frames)
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

    def _pieces(self, count: int) -> Iterator[range]:
        """The frames of each clip of a video; none holds frames from both sides of those that stand alone."""
        length = max(1, count) if getattr(self.model, "whole_video", False) else self.plan.batch_size
        bounds = (0, min(self.adapter.alone, count), count)
        for first, last in itertools.pairwise(bounds):
            for start in range(first, last, length):
                yield range(start, min(start + length, last))

    def item(self, frame: Sample) -> Item:
        """A frame as the protocol prepares it."""
        return make_item(frame, self.plan.task.protocol, self.input_size)

    def _predict(self, items: list[Item], start: int, seed: int, state: Any) -> Prediction:
        """Predict one clip. state: what the model returned for the clip before, None for the first one."""
        plan = self.plan
        # The last clip is not padded, unlike batches of images: repeated frames would enter the state.
        clip = torch.stack([on_device(item.image, plan) for item in items])[None]
        # Frames have the id of their video.
        batch = Batch((items[0].id,), clip[:, 0], video=clip, start=start, state=state, noise_seed=seed)
        begin = time.perf_counter()
        prediction = predict_batch(plan, self.model, batch, [item.truth for item in items])
        self.seconds_model += time.perf_counter() - begin
        prediction = self.adapter.check(prediction, len(items), plan.model.name)
        self.source = self.adapter.source(prediction)
        return prediction
