"""One adapter for each task family: what it needs of a prediction, how it scores it, how rows become numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..errors import UsageError
from ..spec import TaskSpec
from ..types import Prediction, Truth

if TYPE_CHECKING:
    import pandas

    from ..results import MetricValue


class Adapter(Protocol):
    """The end of the corridor for one family."""

    needs: tuple[str, ...]

    def check(self, prediction: object, size: int, name: str) -> Prediction:
        """The prediction of `size` images if it is usable. Raises UsageError naming model and field."""
        ...

    def finite(self, prediction: Prediction) -> np.ndarray:
        """(B,) bool: the images whose needed fields are finite."""
        ...

    def label_maps(self, prediction: Prediction, shapes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """One integer map (H, W) of predicted segment ids for each image, at the size on which it is scored."""
        ...

    def score(self, truth: Sequence[Truth], labels: Sequence[np.ndarray], task: TaskSpec) -> list[dict[str, float]]:
        """Per-image values (NaN = not valid) and `n_objects`; a pure function."""
        ...

    def summarise(self, rows: pandas.DataFrame, task: TaskSpec, mask_source: str) -> dict[str, MetricValue]:
        """Mean, interval and number of valid images for each metric of the task."""
        ...


def get_adapter(task: TaskSpec) -> Adapter:
    """The adapter of the task's family. Raises UsageError for a family without one."""
    if task.family == "discovery":
        from .discovery import Discovery

        return Discovery()
    raise UsageError(f"task {task.name}: family '{task.family}' cannot be evaluated yet; discovery can")
