"""Validation while a model is learnt: the metrics of a task on a few samples that it is not trained on."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..cards.task import TaskSpec
from ..data.base import OpenData

CLUSTERS = 7
"""K of the feature clustering that validates an encoder."""


def validate_masks(
    model: Any, *, task: TaskSpec, limit: int, device: str, data: OpenData | None = None
) -> dict[str, float]:
    """The task's metrics on the first `limit` samples of its validation split, the main metric first.

    data: samples instead of these.
    """
    from ..evaluation.plan import make_plan
    from ..evaluation.run import run

    with tempfile.TemporaryDirectory() as results, _alone():
        plan = make_plan(
            model,
            task,
            data=data,
            split=None if data is not None else "val",
            limit=limit,
            noise_seeds=(0,),
            device=device,
            progress=False,
        )
        result = run(plan, results=Path(results), progress=False)
    names = [task.main, *(name for name in task.metrics if name != task.main)]
    values = {name: result.metrics[name].value for name in names}
    return {name: float(value) for name, value in values.items() if value is not None}


@contextmanager
def _alone() -> Iterator[None]:
    """Hide torchrun's names: `evaluate` would split the samples over ranks, but only the first rank validates."""
    hidden = {name: os.environ.pop(name) for name in ("RANK", "WORLD_SIZE") if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def validate_encoder(model: Any, *, task: TaskSpec, limit: int, device: str) -> dict[str, float]:
    """The same for clusters of an encoder's tokens: farthest-point seeds (`fps_*`) and k-means (`kmeans_*`), K = 7.

    The main metric, ARI and FG-ARI only, so that the curves can be read.
    """
    from ..models.clustering import build_fps_features, build_kmeans_features

    numbers: dict[str, float] = {}
    for name, build in (("fps", build_fps_features), ("kmeans", build_kmeans_features)):
        clusters = build(encoder=model, clusters=CLUSTERS)
        values = validate_masks(clusters, task=task, limit=limit, device=device)
        numbers |= {f"{name}_{metric}": values[metric] for metric in (task.main, "ari", "fg_ari") if metric in values}
    return numbers
