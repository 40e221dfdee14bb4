"""Samples that a training holds out for its validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from ..core.errors import UsageError
from ..core.types import Sample, Truth
from ..data.base import OpenData, subset
from ..data.stand_ins.layouts import ensure_scenes
from .data import open_scenes
from .recipe import SceneSelection


class Later(Sequence[Sample]):
    """Samples that are made when one asks for them: the first step of a training does not wait for its validation."""

    def __init__(self, make: Callable[[], Sequence[Sample]]) -> None:
        self._make = make

    @cached_property
    def _samples(self) -> Sequence[Sample]:
        return self._make()

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self._samples[index]


def held_out_scenes(scenes: SceneSelection, count: int, *, progress: bool = True) -> list[Sample]:
    """Scenes of the same variant from split `val`. Neither training nor evaluation uses this split."""
    store = ensure_scenes(open_scenes(scenes, "val"), count, progress=progress)
    return [
        Sample(f"val-{i}", scene.image, Truth(scene.objects.astype(np.int16), classes=scene.semantic.astype(np.int16)))
        for i, scene in enumerate(store)
    ]


def hold_out(data: OpenData, split: str, count: int) -> tuple[OpenData, OpenData]:
    """Split the data of a training split into training data and `count` validation samples, evenly spread.

    Raises:
        UsageError: No sample would be left to train on.
    """
    if len(data) <= count:
        raise UsageError(
            f"{data.root}: split {split} has {len(data)} samples, {count} are held out; lower `validate_limit`"
        )
    held = [position * len(data) // count for position in range(count)]
    return subset(data, sorted(set(range(len(data))) - set(held))), subset(data, held)
