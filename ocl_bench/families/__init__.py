"""One adapter for each task family: what it needs of a prediction, how it scores it, how rows become numbers.

No adapter knows a data set by name: what differs between data sets is in their cards and readers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from torch import Tensor

from ..cards.task import TaskSpec
from ..core.types import Prediction, Truth

if TYPE_CHECKING:
    import pandas

    from ..data import OpenData
    from ..metrics.statistics import Statistic
    from ..models.loading import LoadedModel
    from ..results.record import MetricValue


Batches: TypeAlias = Iterable[tuple[Sequence[Truth], Prediction]]
"""Truths after the protocol with the prediction whose first rows belong to them; a batch may be padded."""

Head: TypeAlias = dict[str, Tensor]
"""Tensors of a fitted head by name, as the cache keeps them."""


class Adapter(Protocol):
    """The end of the corridor for one family.

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

    def summarise(self, rows: pandas.DataFrame, task: TaskSpec, source: str) -> dict[str, MetricValue]:
        """Value, interval and number of valid images for each metric of the task."""
        ...

    def statistic(self, rows: pandas.DataFrame, task: TaskSpec, metric: str) -> Statistic | None:
        """A corpus metric as a function of image weights, images in the order of their sorted ids.

        None for a metric that is the mean of its own column.
        """
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


def get_adapter(task: TaskSpec, model: LoadedModel | None = None) -> Adapter:
    """The adapter of the task's family. Raises UsageError when the card does not fit it.

    model: whose predictions it will read, where what it reads of them depends on the model.
    """
    head = task.fit.head if task.fit else None
    if task.family == "discovery":
        from .discovery import Discovery

        return Discovery()
    if task.family == "detection" and head is None:
        from .detection import Detection

        return Detection(task)
    if task.family == "detection":
        from .probed_detection import ProbedDetection

        return ProbedDetection(task)
    if task.family == "segmentation":
        from .segmentation import Segmentation

        return Segmentation(task, blind=model is not None and model.card.role == "floor")
    if task.family == "recognition":
        from .recognition import Recognition

        return Recognition(task)
    if task.family == "knn":
        from .knn import Knn

        return Knn(task, reads_boxes=bool(model is not None and getattr(model.model, "reads_boxes", False)))
    from .video import VideoAdapter

    return VideoAdapter(task)
