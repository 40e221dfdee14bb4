"""Scores a user's model on a few samples of a task within the user's own training loop."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ..cards.names import get_task
from ..cards.task import TaskSpec
from ..data import OpenData, open_data
from ..evaluation.model_diagnosis import left_as_found, torch_parts
from ..models.plain_module import MasksFrom, WithMasks
from .validation import validate_masks


class TaskScorer:
    """Call it with a model every so many steps: it returns the metrics of a task on a few samples.

    The model is scored where it is, in evaluation mode, and is then as before; so is torch's random generator. A
    training therefore goes the same way with and without a scorer. Nothing is written, and data are opened once. With
    several ranks, call it on one of them.

    Args:
        task: a name, a path of a task card, or a TaskSpec.
        limit: the first `limit` samples of the split.
        split: not that of the final number, on which no step must be chosen; None for the card's.
        data_root: as in `evaluate`.
        batch_size: images of a batch, or frames of a clip.
        masks_from: for a plain `nn.Module`, as in `evaluate`.
    """

    def __init__(
        self,
        task: str | Path | TaskSpec,
        *,
        limit: int = 64,
        split: str | None = "val",
        data_root: str | Path | None = None,
        batch_size: int = 16,
        masks_from: MasksFrom | None = None,
    ) -> None:
        self.task = get_task(task)
        self.limit, self.split, self.batch_size, self.masks_from = limit, split, batch_size, masks_from
        self.data_root = Path(data_root) if data_root is not None else None

    @cached_property
    def data(self) -> OpenData:
        """The samples. Raises DataMissingError when they are not there."""
        return open_data(self.task, data_root=self.data_root, limit=self.limit, split=self.split, progress=False)

    def __call__(self, model: Any) -> dict[str, float]:
        """The metrics of the task that have a value, the main one first. Raises UsageError as `evaluate` does."""
        parameters = (parameter for part in torch_parts(model).values() for parameter in part.parameters())
        first = next(parameters, None)
        device = "cpu" if first is None else str(first.device)
        with left_as_found(model), torch.random.fork_rng():
            subject = model if self.masks_from is None else WithMasks(model, self.masks_from)
            return validate_masks(
                subject,
                task=self.task,
                limit=self.limit,
                device=device,
                data=self.data,
                batch_size=self.batch_size,
            )
