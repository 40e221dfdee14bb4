"""The objective of video models: SlotContrast (arXiv:2412.14295), and SlotMatch (arXiv:2508.03411) with a teacher.

The encoders are frozen. The teacher is a trained SlotContrast. It sees the same clip, mirrored in the same way, through
its own encoder, in evaluation mode and without gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..core.schedules import generator, sample_indices
from ..models.ranks import RankOps
from ..models.slotmatch import teach
from .clips import VideoOptions, VideoSource
from .ranks import Ranks
from .validation import ValidatedObjective


@dataclass
class VideoObjective(ValidatedObjective):
    """Trains a `SlotContrast`, or a `SlotMatch` with or without a teacher.

    Attributes:
        source: Videos to train on.
        options: Options of the recipe.
        seed: Seed of the training.
        batch_size: Clips per step, all ranks together.
        teacher: Frozen teacher of a SlotMatch, or None.
        validator: Returns the validation numbers of a model.
        ranks: Device and processes.
    """

    source: VideoSource
    options: VideoOptions
    seed: int
    batch_size: int
    teacher: Any
    validator: Callable[[nn.Module], dict[str, float]]
    ranks: Ranks

    @property
    def note(self) -> str:
        """One line that describes the videos."""
        return self.source.note

    def batch(self, step: int) -> dict[str, Any]:
        """Clips of a step, one row each, see `VideoSource.clips`."""
        draw = generator(self.seed, "clips", step)
        indices = sample_indices(self.seed, step, self.batch_size, len(self.source))
        uniform = torch.rand(self.batch_size, generator=draw, dtype=torch.float64).numpy()
        # Drawn also without `flip`, otherwise the option would shift later draws of the stream.
        flips = (torch.rand(self.batch_size, generator=draw) < (0.5 if self.options.flip else 0.0)).numpy()
        return self.source.clips(indices, uniform, flips, self.options.clip)

    def loss(self, model: nn.Module, inputs: dict[str, Any], step_fraction: float) -> dict[str, Tensor]:
        """Loss terms of the model. Counts are clips, and clips of videos that are shorter than a clip."""
        ranks = self.ranks
        operations = RankOps(ranks.size, ranks.rank, ranks.gather_all, ranks.mean)
        targets = self._teach(model, inputs) if self.teacher is not None else {}
        terms: dict[str, Tensor] = model.loss(  # type: ignore[operator]
            self._features(model, inputs, "features"), **targets, ranks=operations
        )
        counts = {"count_clips": torch.tensor(len(inputs["padded"])), "count_padded": inputs["padded"].sum()}
        return {**terms, **counts}

    def _features(self, model: Any, inputs: dict[str, Any], name: str) -> Tensor:
        """Features (B, T, P, F) float32: from the cache, or encoded here."""
        if name in inputs:
            cached: Tensor = inputs[name].float()
            return cached
        encoded: Tensor = model.encode_frames(inputs["video"], self.options.chunk)
        return encoded

    def _teach(self, model: Any, inputs: dict[str, Any]) -> dict[str, Tensor]:
        """The teacher's slots, and its masks if the student's loss uses them."""
        features = self._features(self.teacher, inputs, "teacher_features")
        return teach(self.teacher, features, masks=model.mask_weight > 0)
