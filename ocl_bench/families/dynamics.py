"""Visual prediction: the slots of future frames are predicted from those of a burn-in, and compared with the future.

A model gives slots and masks of frames. What predicts its slots is its own `predict_slots`, or a small rollouter that
is fitted on its frozen slots by one recipe for all models. A linear probe says where the object of a slot lies. Masks
of predicted slots are scored for models that decode slots alone (`decode_slots`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..cards.dynamics import DynamicsProtocol
from ..cards.protocols import Fit
from ..cards.task import TaskSpec
from ..core.errors import SampleError, UsageError
from ..core.types import Prediction, Truth, Video
from ..metrics.definitions.dynamics import HORIZONS, STEPS
from .base import Batches, Family, Head
from .checks import check_alike, check_video_slots, finite_rows, missing
from .future import by_horizon, entries, mask_values, segments_of
from .heads.positions import fit_positions, located_slots, match_slots, places_of
from .heads.rollouter import SETTLED, FittedRollouter, SlotVideo, fit_rollouter, history_of
from .image_properties import PROPERTIES, image_properties, object_shapes
from .recognition import fitted_head
from .slot_methods import SlotMethods
from .video import VideoAdapter

if TYPE_CHECKING:
    from ..data import OpenData
    from ..models.loading import LoadedModel

_NEED = "visual prediction needs the slots (1,T,K,D) of a video and their masks"
_ERRORS = tuple(f"{name}{end}" for name in ("slot_error", "copy_error") for end in ("", *(f"_{h}" for h in HORIZONS)))

_CURVES = tuple(f"{STEPS}{name}" for name in ("position_error", "slot_error", "copy_error", "fg_ari_future"))
"""Columns that hold a list with the value at each step."""


@dataclass(frozen=True)
class SlotFrame:
    """Output of one frame: its slots (K, D) float32, and the slot (H, W) of each pixel."""

    slots: Tensor
    segments: np.ndarray


@dataclass
class Dynamics:
    """Adapter of the `dynamics` family.

    Attributes:
        task: the task.
        methods: what the model does with slots alone.
        stride: frames of a video from one frame of a clip to the next.
        seen: frames of a video before its cut; None where the card has no cut.
        head: the fitted probes; None before they are fitted.
    """

    task: TaskSpec
    methods: SlotMethods
    stride: int
    seen: int | None
    head: Head | None = None
    scored_at_once: int | None = 1  # a killed run loses no more than one video

    @classmethod
    def of(cls, task: TaskSpec, loaded: LoadedModel | None = None) -> Self:
        """The adapter of a task for a model; None when there is none, as for saved results.

        Raises:
            UsageError: the burn-in is shorter than what the rollouter sees.
            NotApplicableError: the model needs all frames of a video at once.
        """
        protocol = cast(DynamicsProtocol, task.protocol)
        history = history_of(protocol.rollouter)
        if protocol.burn_in < history:
            raise UsageError(
                f"protocol.burn_in: {protocol.burn_in} frames; rollouter {protocol.rollouter} sees {history}"
            )
        return cls(task, SlotMethods(loaded), protocol.stride, protocol.seen)

    @property
    def protocol(self) -> DynamicsProtocol:
        """The protocol of the task."""
        return cast(DynamicsProtocol, self.task.protocol)

    @property
    def alone(self) -> int:
        """Frames of the burn-in: what the model says of them must not depend on the future."""
        return self.protocol.burn_in

    @cached_property
    def _frames(self) -> VideoAdapter:
        """Checks masks, and turns them into segments."""
        return VideoAdapter(self.task)

    @cached_property
    def rollout(self) -> FittedRollouter | None:
        """The fitted rollouter; None for a model that has dynamics of its own."""
        head = fitted_head(self.head, self.task)
        return FittedRollouter(head, self.protocol.rollouter) if self.methods.uses_probe else None

    def with_timing(self, data: OpenData) -> Self:
        """A copy with the stride and the cut of a stand-in whose videos are shorter than the official ones."""
        seen = None if self.seen is None else data.timing.get("seen_frames", self.seen)
        return replace(self, stride=data.timing.get("stride", self.stride), seen=seen)

    def clip(self, video: Video, fitting: bool) -> range:
        """Numbers of the frames that are scored, or on which probes are fitted: then all, at the stride of the card.

        Without a frame, the video has no clip in which no object comes into view. Raises SampleError for a video that
        is shorter than a clip.
        """
        if fitting:
            return range(0, len(video), self.stride)
        span = (self.protocol.frames - 1) * self.stride
        if self.seen is None:
            last = len(video) - 1 - span
            starts = self._without_entry(video, span, last + 1) if last >= 0 else []
        else:
            last = self.seen - 1 - (self.protocol.burn_in - 1) * self.stride
            starts = [last]
        if last < 0 or last + span >= len(video):
            needed = f"{self.protocol.frames} frames at a stride of {self.stride}"
            cut = f", cut after {self.seen}" if self.seen is not None else ""
            raise SampleError(video.id, f"has {len(video)} frames; a clip of {needed}{cut} does not fit")
        return range(starts[0], starts[0] + span + 1, self.stride) if starts else range(0)

    def _without_entry(self, video: Video, span: int, count: int) -> list[int]:
        """The first of the starts below `count` at which no object comes into view after it settled, in a list."""
        found = entries([video.frames[number].truth for number in range(len(video))])
        settled = (self.protocol.burn_in - SETTLED) * self.stride
        free = (s for s in range(count) if not any(s + settled < entry <= s + span for entry in found))
        first = next(free, None)
        return [] if first is None else [first]

    def check(self, prediction: object, size: int, name: str) -> Prediction:
        """Require masks and slots of one video; the returned prediction is that of `size` images.

        The model's own methods are tried on the first frame, before any time is spent on a fit. Raises UsageError
        naming model and field, and NotApplicableError for slots that depend on later frames.
        """
        checked = self._frames.check(prediction, size, name)
        if checked.whole_clip or checked.passes > 1:
            raise self.methods.sees_future()
        if checked.slots is None:
            raise missing(checked, name, "slots", _NEED)
        slots = check_video_slots(checked, size, name)
        masks = cast(Tensor, checked.masks)
        number = masks.shape[1] if masks.ndim == 4 else int(masks.max()) + 1
        if number > slots.shape[1] or (masks.ndim == 4 and number != slots.shape[1]):
            raise UsageError(
                f"model {name}: Prediction.slots has {slots.shape[1]} slots for {number} masks; slot k must be what "
                "mask k shows"
            )
        if bool(torch.isfinite(slots[:1]).all()):
            self._try_methods(slots[:1])
        return replace(checked, slots=slots)

    def _try_methods(self, first: Tensor) -> None:
        """Call the model's own methods on the slots (1, K, D) of one frame. Raises UsageError where they fail."""
        if self.methods.decodes:
            self.methods.decode(first)
        if self.methods.dynamics == "own":
            past = first.expand(self.protocol.burn_in, -1, -1)
            self.methods.predict(past, 1, None, first if self.methods.needs_future else None)

    def finite(self, prediction: Prediction) -> np.ndarray:
        """(T,) bool: the frames whose masks and slots are finite."""
        return finite_rows(prediction.masks, prediction.slots)

    def slot_shape(self, prediction: Prediction) -> tuple[int, ...]:
        """(K, D): number of slots, and their length."""
        return tuple(cast(Tensor, prediction.slots).shape[1:])

    def source(self, prediction: Prediction) -> str:
        """Where masks, the dynamics and the masks of predicted slots come from."""
        how = f"dyn:{self.methods.dynamics},decode:{self.methods.decode_source}"
        return f"{self._frames.source(prediction)},{how}"

    def outputs(
        self, prediction: Prediction, shapes: Sequence[tuple[int, int]], side: int | None = None
    ) -> list[SlotFrame]:
        """Slots and segments of each frame, the latter at its size in `shapes`.

        Raises UsageError for slots of another length than those that the probes were fitted on.
        """
        segments = self._frames.outputs(prediction, shapes, side)
        slots = cast(Tensor, prediction.slots)
        for name in {"place_mean", "slot_mean"} & (self.head or {}).keys():
            check_alike("slots", slots.shape[2:], cast(Head, self.head)[name].shape)
        return [SlotFrame(frame, labels) for frame, labels in zip(slots, segments, strict=True)]

    def fit(self, batches: Batches, split: OpenData) -> Head:
        """Fit the position probe, and the rollouter unless the model has dynamics of its own."""
        videos, located = [], []
        for truth, prediction in batches:
            shapes = [(int(frame.labels.shape[0]), int(frame.labels.shape[1])) for frame in truth]
            frames = self.outputs(prediction, shapes)
            slots = torch.stack([frame.slots for frame in frames]).cpu()
            videos.append(SlotVideo(slots, entries(truth)))
            check_alike("slots", slots.shape[2:], videos[0].slots.shape[2:])
            pairs = zip(frames, truth, strict=True)
            found = [located_slots(frame.slots.cpu(), frame.segments, one) for frame, one in pairs]
            located.append((np.concatenate([one[0] for one in found]), np.concatenate([one[1] for one in found])))
        head: Head = {}
        if any(len(places) for _, places in located):
            head |= fit_positions(located)
        if self.methods.uses_probe:
            head |= fit_rollouter(videos, self.protocol.rollouter, cast(Fit, self.task.fit))
        return head

    def with_head(self, head: Head) -> Self:
        """A copy of this adapter that uses a head from `fit`."""
        return replace(self, head=head)

    def columns(self, task: TaskSpec) -> dict[str, str]:
        """A column for each metric, sums of squared errors, frames, image `PROPERTIES`, and lists of steps."""
        numbers = dict.fromkeys((*task.metrics, *_ERRORS, "n_frames", *PROPERTIES), "float64")
        return {**numbers, **dict.fromkeys(_CURVES, "object")}

    def tally(self, task: TaskSpec) -> ClipTally:
        """A new `ClipTally` for one video."""
        del task
        return ClipTally(self)

    def score(self, truth: Sequence[Truth], outputs: Sequence[SlotFrame], task: TaskSpec) -> list[dict[str, Any]]:
        """The row of one clip from all its frames."""
        tally = self.tally(task)
        tally.add(truth, outputs)
        return [tally.row()]

    def picture(self, output: SlotFrame, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
        """Segments and true objects."""
        return output.segments, truth.labels

    def write(self, folder: Path, sample_id: str, seed: int, output: SlotFrame) -> None:
        """Write the segments of a frame."""
        self._frames.write(folder, sample_id, seed, output.segments)


class ClipTally:
    """Gathers the frames of one clip, and scores its prediction."""

    def __init__(self, adapter: Dynamics) -> None:
        self.adapter = adapter
        self.truth: list[Truth] = []
        self.frames: list[SlotFrame] = []

    def add(self, truth: Sequence[Truth], outputs: Sequence[SlotFrame]) -> None:
        """Add the next frames."""
        self.truth += truth
        self.frames += outputs

    def row(self) -> dict[str, Any]:
        """The row of the clip; without values for a video without a clip."""
        if not self.frames:
            return {"n_objects": 0, "n_frames": 0.0, **dict.fromkeys(_ERRORS, 0.0)}
        adapter, seen = self.adapter, self.adapter.protocol.burn_in
        objects, matched = self._objects()
        values = _slot_errors(self._predicted, self._slots[seen:], self._slots[seen - 1])
        values |= by_horizon("position_error", self._position_errors(objects, matched))
        if self._segments is not None:
            values |= mask_values(adapter.task, self.truth[seen:], self._segments, objects)
        shapes = [object_shapes(one.labels, adapter.task.protocol.background) for one in self.truth[seen:]]
        return {
            "n_objects": len(objects),
            "n_frames": float(len(self.frames)),
            **image_properties(shapes),
            **{name: value for name, value in values.items() if name in adapter.columns(adapter.task)},
        }

    def shown(self) -> list[SlotFrame]:
        """The frames of the burn-in, then predicted slots and their segments; one segment where there are no masks."""
        if not self.frames:
            return []
        seen, segments = self.adapter.protocol.burn_in, self._segments
        if segments is None:
            segments = np.stack([np.zeros_like(frame.segments) for frame in self.frames[seen:]])
        return [*self.frames[:seen], *(SlotFrame(*frame) for frame in zip(self._predicted, segments, strict=True))]

    @cached_property
    def _slots(self) -> Tensor:
        """Slots (T, K, D) of all frames; empty ones fill up frames that have fewer."""
        most = max(len(frame.slots) for frame in self.frames)
        return torch.stack([F.pad(frame.slots, (0, 0, 0, most - len(frame.slots))) for frame in self.frames])

    @cached_property
    def _predicted(self) -> Tensor:
        """Predicted slots (steps, K, D)."""
        methods, seen = self.adapter.methods, self.adapter.protocol.burn_in
        future = self._slots[seen:]
        given = future if methods.needs_future else None
        return methods.predict(self._slots[:seen], len(future), self.adapter.rollout, given)

    @cached_property
    def _segments(self) -> np.ndarray | None:
        """Slot (steps, H, W) of each pixel of the predicted frames; None where slots have no masks."""
        methods, protocol = self.adapter.methods, self.adapter.protocol
        if not methods.decodes:
            return None
        masks = methods.decode(self._predicted)
        height, width = self.truth[-1].labels.shape
        return segments_of(masks, (int(height), int(width)), protocol.undecided)

    def _objects(self) -> tuple[np.ndarray, np.ndarray]:
        """Labels of the objects that the burn-in shows, and their slots, -1 for none."""
        seen = self.adapter.protocol.burn_in
        labels = np.stack([frame.labels for frame in self.truth[:seen]])
        return match_slots(labels, np.stack([frame.segments for frame in self.frames[:seen]]))

    def _position_errors(self, objects: np.ndarray, matched: np.ndarray) -> np.ndarray:
        """Mean distance (steps,) of these objects from where their slots say they are; NaN where none has a place."""
        head, future = fitted_head(self.adapter.head, self.adapter.task), self.truth[self.adapter.protocol.burn_in :]
        if "place_bias" not in head or not len(objects) or any(frame.locations is None for frame in future):
            return np.full(len(future), np.nan)
        true = np.stack([cast(np.ndarray, frame.locations)[objects - 1] for frame in future])
        found = places_of(head, self._predicted)[:, matched]
        found[:, matched < 0] = head["place_bias"].numpy()
        errors = np.sqrt(((found - true) ** 2).sum(axis=2))
        known = np.isfinite(errors)
        number = known.sum(axis=1)
        total = np.where(known, errors, 0.0).sum(axis=1)
        return np.divide(total, number, out=np.full(len(future), np.nan), where=number > 0)


def _slot_errors(predicted: Tensor, future: Tensor, last: Tensor) -> dict[str, Any]:
    """Sums of squared errors of predicted and of repeated slots, and their ratio, for all steps and each horizon."""
    values: dict[str, Any] = {}
    sums = {}
    for name, guess in (("slot_error", predicted), ("copy_error", last.expand_as(future))):
        errors = (guess - future).double().square().sum(dim=(1, 2)).cpu().numpy()
        sums[name] = by_horizon(name, errors, total=True)
        values |= sums[name]
    for end in ("", *(f"_{horizon}" for horizon in HORIZONS)):
        above, below = values[f"slot_error{end}"], values[f"copy_error{end}"]
        values[f"slot_mse_rel{end}"] = above / below if below > 0 else np.nan
    return values


DYNAMICS = Family(
    name="dynamics",
    protocol=DynamicsProtocol,
    adapter=Dynamics.of,
    unit=DynamicsProtocol.unit,
    picture="storyboard",
    view="frames",
    for_data=lambda adapter, data: cast(Dynamics, adapter).with_timing(data),
    clip=lambda adapter, video, fitting: cast(Dynamics, adapter).clip(video, fitting),
)
"""The family of tasks that predict the slots of future frames."""
