"""A small picture of the embedded data of each task: one rendered scene, its right half painted by object."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image

from ...cards.task import TaskSpec
from ...data.scenes import MIN_VISIBLE, VARIANTS, render
from ...data.scenes.caster import GROUND, build_world, cast
from ...data.scenes.motion import sample_video
from ...data.scenes.salient_sampler import sample_salient
from ...data.scenes.sampler import Scene
from ...tables.pictures.overlays import solid, truth_colours

SIDE = 128
_SHOWN, _FRAME = 32, 8
"""Number of scenes of a test split of which one is shown, and the frame of a video."""
_SCENES: dict[str, Callable[[int, int], Scene]] = {
    "motion": lambda revision, index: sample_video(revision, "test", index)[_FRAME],
    "salient": lambda revision, index: sample_salient(revision, "test", index),
}
"""The scene of variants that `render` does not know, by revision and number."""


def thumbnail(task: TaskSpec) -> str:
    """The picture of a task as a `data:` address; '' for a task without embedded data."""
    stand_in = task.data.stand_in
    if stand_in is None:
        return ""
    known = stand_in.variant in VARIANTS or stand_in.variant in _SCENES
    # Tasks on the same scenes show different ones of them.
    return _picture(stand_in.variant, stand_in.revision, int(task.hash[:4], 16) % _SHOWN) if known else ""


@cache
def _picture(variant: str, revision: int, index: int) -> str:
    if variant in VARIANTS:
        scenes = render(variant, revision, "test", [index], size=SIDE)
        image, labels = scenes.image[0].permute(1, 2, 0).numpy(), scenes.labels[0].numpy().astype(np.int64)
    else:
        colours, hit, _, _ = cast(build_world([_SCENES[variant](revision, index)]), SIDE, MIN_VISIBLE)
        image = (colours[0].numpy() * 255 + 0.5).astype(np.uint8)
        labels = np.where(hit[0].numpy() == GROUND, 0, hit[0].numpy() + 1)
    painted = solid(labels, truth_colours(labels))
    painted[:, : SIDE // 2] = image[:, : SIDE // 2]
    file = io.BytesIO()
    Image.fromarray(painted).save(file, "WEBP", quality=70, method=4)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
