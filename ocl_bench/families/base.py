"""The interface of a task family and of its adapter, the part that turns predictions into rows.

Adapters know no data set by name: what differs between data sets is in their task cards and readers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from torch import Tensor

from ..cards.protocols import Protocol as TaskProtocol
from ..cards.task import TaskSpec
from ..core.types import Prediction, Truth, Video

if TYPE_CHECKING:
    import pandas

    from ..data import OpenData
    from ..models.loading import LoadedModel

Batches: TypeAlias = Iterable[tuple[Sequence[Truth], Prediction]]
"""Truths after the protocol, with a prediction for them. A padded prediction has more rows than there are truths."""

Head: TypeAlias = dict[str, Tensor]
"""Tensors of a fitted head by name; the cache stores them in this form."""

Unit = Literal["images", "videos"]


class Adapter(Protocol):
    """Checks the predictions of a task, converts them to outputs, and scores these.

    An output is the scorable form of a prediction for one image, at the size on which it is scored: a label map,
    detections, or a feature vector.

    Attributes:
        scored_at_once: number of images or videos that are scored together and make up one shard; None to score batch
            by batch.
    """

    scored_at_once: int | None

    def check(self, prediction: object, size: int, name: str) -> Prediction:
        """Return the prediction if it is usable.

        Args:
            prediction: what the model returned.
            size: number of images that it must cover.
            name: name of the model, for messages.

        Raises:
            UsageError: a field has a wrong type, shape or value; the message names model and field.
            NotApplicableError: the model does not give a field that the task needs.
        """
        ...

    def finite(self, prediction: Prediction) -> np.ndarray:
        """(B,) bool: the images for which all fields that the task uses are finite."""
        ...

    def source(self, prediction: Prediction) -> str:
        """The part of the model that is scored (`decoder`, `tokens`, ...), as the signature prints it."""
        ...

    def outputs(self, prediction: Prediction, shapes: Sequence[tuple[int, int]], side: int | None = None) -> list[Any]:
        """One output for each image.

        Args:
            prediction: a prediction that `check` returned.
            shapes: size (H, W) at which each image is scored.
            side: side in pixels of the square images that the model saw; needed for predictions in pixels.
        """
        ...

    def columns(self, task: TaskSpec) -> Mapping[str, str]:
        """Types of the columns besides id, noise_seed and n_objects: `float64`, or `object` for lists."""
        ...

    def score(self, truth: Sequence[Truth], outputs: Sequence[Any], task: TaskSpec) -> list[dict[str, Any]]:
        """A row for each image: `n_objects` and the columns (NaN = not valid). It has no side effects."""
        ...

    def picture(self, output: Any, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
        """Predicted and true label map (H, W) for drawing."""
        ...

    def write(self, folder: Path, sample_id: str, seed: int, output: Any) -> None:
        """Save an output below `folder`, for `replay` and for other tools."""
        ...


class Tally(Protocol):
    """Gathers one video, clip by clip."""

    def add(self, truth: Sequence[Truth], outputs: Sequence[Any]) -> None:
        """Add the next frames."""
        ...

    def row(self) -> dict[str, Any]:
        """The row of the video."""
        ...


@runtime_checkable
class LateTally(Tally, Protocol):
    """A tally that knows what is saved and drawn of a frame only when it has all frames."""

    def shown(self) -> Sequence[Any]:
        """The outputs of all frames, in place of those that were added."""
        ...


class ClipAdapter(Adapter, Protocol):
    """An adapter of videos that are read and predicted clip by clip; an output is that of a frame.

    Attributes:
        alone: frames at the beginning of a video that are predicted before the model sees any later one; 0 for all.
    """

    alone: int

    def slot_shape(self, prediction: Prediction) -> tuple[int, ...]:
        """Number of slots, and their length where it counts; empty where slots have no number of their own."""
        ...

    def tally(self, task: TaskSpec) -> Tally:
        """A new `Tally` for one video."""
        ...


class HeadAdapter(Adapter, Protocol):
    """An adapter that scores predictions through a head, which is fitted on another split of the data."""

    def fit(self, batches: Batches, split: OpenData) -> Head:
        """Fit the head.

        Args:
            batches: truths and predictions of the whole fit split; of videos, one entry for each with all its frames.
            split: the fit split, for its ids and categories.
        """
        ...

    def with_head(self, head: Head) -> Adapter:
        """A copy of this adapter that uses a head from `fit`."""
        ...


def _no_image_values(rows: pandas.DataFrame) -> pandas.Series | None:
    """None: images are chosen by the metrics of the card."""
    del rows
    return None


def _same_adapter(adapter: Adapter, data: OpenData) -> Adapter:
    """The adapter itself: it needs nothing of the data."""
    del data
    return adapter


def _no_choice(adapter: Adapter) -> tuple[str, ...]:
    """Nothing: an adapter that has no choice reads all that it needs."""
    del adapter
    return ()


def _no_remarks(
    adapter: Adapter, outputs: Sequence[Any], shapes: Sequence[tuple[int, int]], side: int | None
) -> Mapping[str, int]:
    """None: outputs of this family are in no unit that a model may get wrong."""
    del adapter, outputs, shapes, side
    return {}


def _by_frames(adapter: Adapter) -> bool:
    """False: a video is a sequence of frames."""
    del adapter
    return False


def _all_frames(adapter: Adapter, video: Video, fitting: bool) -> Sequence[int]:
    """Those of the whole video."""
    del adapter, fitting
    return range(len(video))


def _no_columns(adapter: Adapter, sample_id: str) -> Mapping[str, Any]:
    """None: a row needs nothing of its sample but the id."""
    del adapter, sample_id
    return {}


@dataclass(frozen=True)
class Family:
    """A family of tasks: an entry of `FAMILIES`, or one that an installed package adds.

    Attributes:
        name: value of the field `family` in task cards.
        protocol: class of the field `protocol` in task cards; it adds the fields that only this family has.
        adapter: function from the task and the model (None when there is no model, as for saved results) to the
            adapter.
        unit: what one row describes. Videos are read and predicted clip by clip, unless they are `whole`.
        output: type of the adapter's outputs. `label maps`, `detections` and `answers` can be scored from files;
            saved label maps and detections can be scored again.
        picture: kind of figure that `eval` draws.
        view: what the page of a report shows of a sample, by the saved predictions (`pages/report/views.py`); empty
            for numbers only.
        image_values: function from the rows of a result to a named series of one value per image. The images to draw
            are chosen by it when no metric of the card has a value for single images.
        for_data: function from the adapter and the opened data to an adapter for these data.
        sample_columns: function from that adapter and a sample id to further columns of the rows of this sample.
        any_of: function from that adapter to the fields of a prediction of which only the first that is there is read.
        remarks: function from that adapter, outputs, the sizes (H, W) of their images and the side of the images that
            the model saw (None for outputs from files) to what is odd about them: a number by text.
        clip: function from that adapter, a video, and whether a head is fitted on it, to the numbers of the frames that
            count. Without a frame, the video is left out: its row has no value.
        whole: function from that adapter to whether a video is one sample, such as the questions about it, and not a
            sequence of frames. Nothing is fitted for such an adapter.
    """

    name: str
    protocol: type[TaskProtocol]
    adapter: Callable[[TaskSpec, LoadedModel | None], Adapter]
    unit: Unit = "images"
    output: Literal["label maps", "detections", "answers", "other"] = "other"
    picture: Literal["masks", "storyboard", "neighbours", "none"] = "masks"
    view: Literal["", "masks", "frames", "detections", "classes", "slots", "neighbours"] = ""
    image_values: Callable[[pandas.DataFrame], pandas.Series | None] = _no_image_values
    for_data: Callable[[Adapter, OpenData], Adapter] = _same_adapter
    sample_columns: Callable[[Adapter, str], Mapping[str, Any]] = _no_columns
    any_of: Callable[[Adapter], tuple[str, ...]] = _no_choice
    remarks: Callable[[Adapter, Sequence[Any], Sequence[tuple[int, int]], int | None], Mapping[str, int]] = _no_remarks
    clip: Callable[[Adapter, Video, bool], Sequence[int]] = _all_frames
    whole: Callable[[Adapter], bool] = _by_frames

    def by_clips(self, adapter: Adapter) -> bool:
        """Whether samples are videos that are read and predicted clip by clip."""
        return self.unit == "videos" and not self.whole(adapter)

    def replayable(self, task: TaskSpec) -> bool:
        """Whether saved predictions of a task can be scored again.

        A task with a head cannot: its outputs depend on the head, which is not saved with them.
        """
        return self.output in ("label maps", "detections") and task.fit is None
