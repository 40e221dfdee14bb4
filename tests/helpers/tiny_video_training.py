"""A training on videos small enough for a test; `main` is what each of two ranks does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_training import tiny_recipe
from torch import Tensor
from two_ranks import learnt, write_rank

from ocl_bench.models.slotcontrast import SlotContrast, assemble
from ocl_bench.models.slotmatch import SlotMatch
from ocl_bench.training import Recipe, fit
from ocl_bench.training.clips import CachedVideos, FeatureVideos, VideoOptions
from ocl_bench.training.ranks import Ranks, start_ranks
from ocl_bench.training.video_objective import VideoObjective

SMALL: dict[str, Any] = {
    "width": 8,
    "dim": 6,
    "blocks": (1,),
    "input_size": 32,
    "slots": 3,
    "slot_dim": 8,
    "hidden": 8,
    "decoder_layers": 1,
}
TEACHER = {**SMALL, "width": 12, "dim": 10}


def tiny_teacher(seed: int = 5, **options: Any) -> SlotContrast:
    torch.manual_seed(seed)
    return assemble(SlotContrast, "embedded", {**TEACHER, **options})


def tiny_student(**options: Any) -> SlotMatch:
    torch.manual_seed(0)
    return assemble(SlotMatch, "embedded", {**SMALL, "teacher_feature_dim": 10, **options})


def tiny_features(dim: int, lengths: tuple[int, ...] = (8, 6, 9, 4, 5, 12)) -> FeatureVideos:
    """Random features of a 4 x 4 grid that change slowly."""
    draw = np.random.default_rng(dim)
    both = []
    for _ in range(2):
        first = [draw.normal(size=(1, 16, dim)) for _ in lengths]
        both.append(
            tuple(
                (start + 0.1 * draw.normal(size=(n, 16, dim)).cumsum(0)).astype(np.float16)
                for start, n in zip(first, lengths, strict=True)
            )
        )
    return FeatureVideos(*both)


def tiny_objective(
    ranks: Ranks | None = None, teacher: SlotContrast | None = None, batch: int = 4, **options: Any
) -> VideoObjective:
    source = CachedVideos(tiny_features(6), tiny_features(10), "6 tiny videos")
    chosen = VideoOptions(kind="video", clip=3, **options)
    return VideoObjective(
        source, chosen, 0, batch, teacher, lambda model: {"mbo_video": 0.5}, ranks or start_ranks("cpu", "fp32")
    )


def video_recipe(**changes: Any) -> Recipe:
    return tiny_recipe(**{"steps": 4, "schedule": "exponential", "floor": 0.5, "clip": 0.05, **changes})


def run_double(ranks: Ranks, out: Path) -> dict[str, Tensor]:
    """Weights and gradients of the last step of a student with all losses, in float64, where a joint batch and two
    halves of it differ by rounding only."""
    teacher = tiny_teacher().double()
    model = tiny_student(feature_weight=0.5, mask_weight=0.5).double()
    model.begin_like(teacher)
    fit(model, tiny_objective(ranks, teacher), video_recipe(), seed=0, out=out, ranks=ranks, progress=False)
    return learnt(model)


def main(out: Path) -> None:
    """What each of two ranks does."""
    write_rank(run_double, out)
