"""Validates a model during training: the metrics of a task on a few samples that are not in the training data."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from ..cards.task import TaskSpec
from ..core.launcher import without_others
from ..data.base import OpenData

CLUSTERS = 7
"""Number of clusters K in the validation of an encoder."""


class ValidatedObjective:
    """Base class of the objectives: what they train on, and validation by a function that they are given.

    Attributes:
        validator: Returns the validation numbers of a model.
    """

    validator: Callable[[nn.Module], dict[str, float]]

    @property
    def note(self) -> str:
        """One line that describes the training data; empty for rendered scenes, which the recipe describes."""
        return ""

    @property
    def identity(self) -> dict[str, Any]:
        """Values that must be equal for a resume, besides the recipe: the training data."""
        return {"data": self.note} if self.note else {}

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Numbers on samples that are not in the training data."""
        return self.validator(model)


def validate_masks(
    model: Any, *, task: TaskSpec, limit: int, device: str, data: OpenData | None = None, batch_size: int = 16
) -> dict[str, float]:
    """Metrics of a task, the main metric first.

    Args:
        model: Any model of the suite.
        task: Task to score on.
        limit: Number of samples.
        device: Device of the model.
        data: Samples to score on; by default the first ones of the task's split `val`.
        batch_size: Images of a batch, or frames of a clip.
    """
    from ..evaluation.plan import make_plan
    from ..evaluation.run import run

    # A result in the user's folder would look like an evaluation; and one noise seed is enough for a curve.
    with tempfile.TemporaryDirectory() as results, _without_ranks():
        plan = make_plan(
            model,
            task,
            data=data,
            split=None if data is not None else "val",
            limit=limit,
            noise_seeds=(0,),
            device=device,
            batch_size=batch_size,
            progress=False,
        )
        result = run(plan, results=Path(results), progress=False)
    names = [task.main, *(name for name in task.metrics if name != task.main)]
    values = {name: result.metrics[name].value for name in names}
    return {name: float(value) for name, value in values.items() if value is not None}


@contextmanager
def _without_ranks() -> Iterator[None]:
    """Hide torchrun's variables. Only the main rank validates; the evaluation would wait for shards of the others."""
    hidden = {name: os.environ.pop(name) for name in ("RANK", "WORLD_SIZE") if name in os.environ}
    try:
        with without_others():
            yield
    finally:
        os.environ.update(hidden)


def validate_encoder(model: Any, *, task: TaskSpec, limit: int, device: str) -> dict[str, float]:
    """Metrics of a task for clusters of an encoder's tokens, K = `CLUSTERS`.

    Args:
        model: The encoder.
        task: Task to score on.
        limit: Number of samples.
        device: Device of the encoder.

    Returns:
        `fps_NAME` for clusters around farthest-point seeds and `kmeans_NAME` for k-means. NAME is the main metric, ARI
        or FG-ARI; more curves would make the plot unreadable.
    """
    from ..models.clustering import build_fps_features, build_kmeans_features

    numbers: dict[str, float] = {}
    for name, build in (("fps", build_fps_features), ("kmeans", build_kmeans_features)):
        clusters = build(encoder=model, clusters=CLUSTERS)
        values = validate_masks(clusters, task=task, limit=limit, device=device)
        numbers |= {f"{name}_{metric}": values[metric] for metric in (task.main, "ari", "fg_ari") if metric in values}
    return numbers
