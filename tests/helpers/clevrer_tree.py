"""A small CLEVRER tree: rendered collisions of 32 pixels, read as if they were official files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ocl_bench.cards.task import TaskSpec
from ocl_bench.data.scenes.collision_videos import RenderedCollisions, render_collisions
from ocl_bench.data.scenes.collisions import sample_world
from ocl_bench.data.stand_ins.clevrer import write


@cache
def small_videos() -> tuple[RenderedCollisions, ...]:
    return tuple(render_collisions(sample_world(1, "test", index), 32) for index in (0, 1))


def clevrer_tree(folder: Path, splits: Sequence[str] = ("val",)) -> Path:
    """Write two videos of each split; returns the data root."""
    for split in splits:
        write(folder, split, small_videos(), 0)
    return folder


def clevrer_card(content: str = "questions", **changes: Any) -> TaskSpec:
    family = "reasoning" if content == "questions" else "video"
    card: dict[str, Any] = {"name": "tiny-clevrer", "version": 1, "family": family}
    data = {"reader": "clevrer", "folder": "clevrer", "split": "val", "options": {"content": content}}
    metrics = ["descriptive", "counterfactual_question"] if content == "questions" else ["mbo_video"]
    card |= {"data": data, "metrics": metrics, "main": metrics[0], "protocol": {"input": 8}}
    return TaskSpec.model_validate(card | changes)
