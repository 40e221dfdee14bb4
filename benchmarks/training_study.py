"""Train a model with several settings and score each on validation data: the shared part of the studies of trainings.

A setting is trained once, with training seed 0, and scored on split `val` in several uses (options at evaluation). The
test split is never read. Settings that are finished are not run again, so a study can be stopped and repeated.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ocl_bench.cards.names import get_task
from ocl_bench.data.base import OpenData
from ocl_bench.models.loading import get_model
from ocl_bench.training.run import train
from ocl_bench.training.validation import validate_masks


@dataclass(frozen=True)
class Setting:
    """What one training changes.

    Attributes:
        steps: number of steps.
        options: options of the model, in training and at evaluation.
        overrides: fields of the card's recipe.
    """

    steps: int
    options: dict[str, Any] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """What is the same for all settings.

    Attributes:
        task: the task that scores.
        limit: number of its validation samples.
        metrics: the metrics that are printed.
        uses: options at evaluation, by the name of the use.
        held_out: gives the validation samples where the task has no split `val`: that of MOVi is its test.
    """

    task: str
    limit: int
    metrics: Sequence[str]
    uses: Mapping[str, dict[str, Any]]
    held_out: Callable[[], OpenData] | None = None

    def run(self, model: str, settings: Mapping[str, Setting], out: Path) -> None:
        """Train and score the settings in order, below `out/<model>/<setting>`, and print a line for each."""
        print("setting | use: " + " / ".join(self.metrics))
        for name, setting in settings.items():
            scores = self._scores(model, setting, out / model / name)
            print(" | ".join((name, *(self._cell(use, row) for use, row in scores.items()))), flush=True)

    def _cell(self, use: str, row: dict[str, float]) -> str:
        """One use and its metrics, as text."""
        return f"{use}: " + " / ".join(f"{row[metric]:.3f}" for metric in self.metrics)

    def _scores(self, model: str, setting: Setting, folder: Path) -> dict[str, dict[str, float]]:
        """The metrics of one setting in each use; trained and scored unless its record exists."""
        record = folder / "validation.json"
        if record.exists():
            return json.loads(record.read_text())  # type: ignore[no-any-return]
        overrides = setting.overrides | {"validate_every": setting.steps}
        train(model, out=folder, steps=setting.steps, options=setting.options, overrides=overrides, progress=False)
        scores = {use: self._evaluate(model, setting.options | options, folder) for use, options in self.uses.items()}
        record.write_text(json.dumps(scores, indent=1))
        return scores

    def _evaluate(self, model: str, options: dict[str, Any], folder: Path) -> dict[str, float]:
        """The metrics of the weights in a folder on the validation samples."""
        loaded = get_model(model, checkpoint=folder / f"{model}.safetensors", options=options)
        data = self.held_out() if self.held_out is not None else None
        values = validate_masks(loaded.model, task=get_task(self.task), limit=self.limit, device="cpu", data=data)
        return {metric: values.get(metric, 0.0) for metric in self.metrics}
