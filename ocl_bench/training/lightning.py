"""A callback of Lightning that scores a task during a training. Importing this module needs Lightning."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from ..core.errors import UsageError
from .scoring import TaskScorer


def _callback_class() -> Any:
    """`Callback` of `lightning` or of `pytorch_lightning`: of the one in use, else of the one that is installed."""
    names = sorted(("lightning.pytorch", "pytorch_lightning"), key=lambda name: name not in sys.modules)
    for name in names:
        try:
            return importlib.import_module(name).Callback
        except ImportError:
            continue
    raise ImportError("ocl_bench.training.lightning needs Lightning; pip install lightning")


class ScoreTask(_callback_class()):  # type: ignore[misc]
    """Logs the metrics of a task as `<task>/<metric>` after every `every` optimiser steps.

    The first rank scores while the others wait, and all of them log, so that a checkpoint may monitor a metric.

    Args:
        scorer: what is scored.
        every: optimiser steps between two scores.
    """

    def __init__(self, scorer: TaskScorer, every: int = 1000) -> None:
        super().__init__()
        if every < 1:
            raise UsageError(f"ScoreTask: every={every}, expected 1 or more steps")
        self.scorer, self.every = scorer, every
        self.scored = 0  # the step of the last score: with accumulated gradients, several batches are one step

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any, **__: Any) -> None:
        """Score where a step is due."""
        step = trainer.global_step
        if step == self.scored or step % self.every:
            return
        self.scored = step
        numbers = self.scorer(pl_module) if trainer.is_global_zero else {}
        numbers = trainer.strategy.broadcast(numbers)
        pl_module.log_dict({f"{self.scorer.task.name}/{name}": value for name, value in numbers.items()})
