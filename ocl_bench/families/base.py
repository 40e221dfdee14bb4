"""What a family of tasks is, and the adapter that every family brings: the end of the corridor.

No adapter knows a data set by name: what differs between data sets is in their cards and readers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
from torch import Tensor

from ..cards.protocols import Protocol as TaskProtocol
from ..cards.task import TaskSpec
from ..core.types import Prediction, Truth

if TYPE_CHECKING:
    import pandas

    from ..data import OpenData
    from ..models.loading import LoadedModel

Batches: TypeAlias = Iterable[tuple[Sequence[Truth], Prediction]]
"""Truths after the protocol with the prediction whose first rows belong to them; a batch may be padded."""

Head: TypeAlias = dict[str, Tensor]
"""Tensors of a fitted head by name, as the cache keeps them."""

Unit = Literal["images", "videos"]


class Adapter(Protocol):
    """The end of the corridor for one task: what it needs of a prediction, and how that is scored.

    An output is what a prediction says of one image at the size on which it is scored: a label map, detections, ...
    scored_at_once: images or videos that are scored together and make up a shard; None where a batch is enough.
    """

    scored_at_once: int | None

    def check(self, prediction: object, size: int, name: str) -> Prediction:
        """The prediction of `size` images if it is usable. Raises UsageError naming model and field."""
        ...

    def finite(self, prediction: Prediction) -> np.ndarray:
        """(B,) bool: the images whose needed fields are finite."""
        ...

    def source(self, prediction: Prediction) -> str:
        """Where the model's part comes from (`decoder`, `tokens`); it is printed in the signature."""
        ...

    def outputs(self, prediction: Prediction, shapes: Sequence[tuple[int, int]], side: int | None = None) -> list[Any]:
        """One output for each image, at its size (H, W) in `shapes`. side: of the square images that the model saw."""
        ...

    def columns(self, task: TaskSpec) -> Mapping[str, str]:
        """Columns of a row besides id, noise_seed and n_objects, with their type: `float64`, or `object` for lists."""
        ...

    def score(self, truth: Sequence[Truth], outputs: Sequence[Any], task: TaskSpec) -> list[dict[str, Any]]:
        """A row for each image: `n_objects` and the columns (NaN = not valid); a pure function."""
        ...

    def picture(self, output: Any, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
        """Predicted and true label map (H, W) to draw."""
        ...

    def write(self, folder: Path, sample_id: str, seed: int, output: Any) -> None:
        """Keep an output below `folder`, for `replay` and for other tools."""
        ...


class HeadAdapter(Adapter, Protocol):
    """An adapter that reads predictions through a head, which is fitted on another split of the task."""

    def fit(self, batches: Batches, split: OpenData) -> Head:
        """The head, from truths and predictions of every batch of the fit split."""
        ...

    def with_head(self, head: Head) -> Adapter:
        """This adapter with a head that `fit` made."""
        ...


def _no_image_values(rows: pandas.DataFrame) -> pandas.Series | None:
    """None: the metrics of the card are all there is."""
    del rows
    return None


@dataclass(frozen=True)
class Family:
    """A kind of task: one entry of `FAMILIES`, or one that an installed package adds.

    Attributes:
        name: as task cards write it in `family`.
        protocol: class of the card's `protocol`; its own fields are those that only this family has.
        adapter: makes the adapter of a task. It gets the task and the model whose predictions will be read (None where
            there is no model, as for saved results).
        unit: what a row is of. Videos are read and predicted clip by clip.
        output: what the adapter's outputs are; `label maps` and `detections` can be scored from files and again from
            saved predictions.
        picture: what `eval` draws.
        image_values: from the rows of a result, values by which images are chosen to be drawn where no metric of the
            card is one of single images; with the name of what they are.
    """

    name: str
    protocol: type[TaskProtocol]
    adapter: Callable[[TaskSpec, LoadedModel | None], Adapter]
    unit: Unit = "images"
    output: Literal["label maps", "detections", "other"] = "other"
    picture: Literal["masks", "storyboard", "neighbours"] = "masks"
    image_values: Callable[[pandas.DataFrame], pandas.Series | None] = _no_image_values

    def replayable(self, task: TaskSpec) -> bool:
        """Whether saved predictions of a task can be scored again: they need no head."""
        return self.output != "other" and task.fit is None
