"""An ODIS training small enough for a test; `main` is what each of two ranks does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_training import tiny_recipe
from torch import Tensor
from two_ranks import learnt, write_rank

from ocl_bench.models.odis import Odis, Views, build
from ocl_bench.training import Recipe, fit
from ocl_bench.training.data import CHUNK, ChunkedArray, PaddedImages
from ocl_bench.training.object_crops import CropOptions
from ocl_bench.training.odis_images import BoxedScenes
from ocl_bench.training.odis_objective import OdisObjective, OdisOptions
from ocl_bench.training.ranks import Ranks, start_ranks

SIZES = ((30, 44), (44, 30), (36, 36))
CROPS = CropOptions(size=16, scale=(0.4, 1.0), locals=2, local_size=8, local_scale=(0.05, 0.4))
MODEL: dict[str, Any] = {
    "preset": "embedded",
    "patch": 4,
    "dim": 8,
    "depth": 2,
    "heads": 2,
    "hidden": 8,
    "bottleneck": 6,
    "out_dim": 12,
    "input_size": 16,
    "freeze_last_layer": 0.5,
}


def tiny_source(count: int = 10, boxes: bool = True) -> BoxedScenes:
    """Noise with two bright rectangles, in three sizes, padded to 44 x 44; every fifth image has no box."""
    draw = np.random.default_rng(0)
    images = np.zeros((CHUNK, 3, 44, 44), dtype=np.uint8)
    sizes = np.array([SIZES[i % len(SIZES)] for i in range(CHUNK)])
    rows = np.full((CHUNK, 3, 4), np.nan, dtype=np.float32)
    for number, (image, (height, width)) in enumerate(zip(images, sizes, strict=True)):
        image[:, :height, :width] = draw.integers(0, 120, (3, height, width))
        for k, (x, y) in enumerate(((2, 3), (16, 14))):
            image[draw.integers(3), y : y + 12, x : x + 10] += 130
            if number % 5:
                rows[number, k] = (x, y, x + 10, y + 12)
    padded = PaddedImages(ChunkedArray((images,), count), ChunkedArray((sizes,), count), "tiny")
    return BoxedScenes(padded, ChunkedArray((rows,), count) if boxes else None)


def tiny_model(**options: Any) -> Odis:
    torch.manual_seed(0)
    return build(**{**MODEL, **options})


def tiny_objective(ranks: Ranks | None = None, **changes: Any) -> OdisObjective:
    options = OdisOptions(kind="odis", crops=CROPS, momentum=0.9, local_present="seen")
    given = {"source": tiny_source(), "options": options, "seed": 0, "batch_size": 4, "patch": 4, **changes}
    return OdisObjective(
        **{"objects": 1, "steps": 6, **given},
        validator=lambda model: {"knn_top1": 0.5},
        ranks=ranks or start_ranks("cpu", "fp32"),
    )


def odis_recipe(**changes: Any) -> Recipe:
    given = {"steps": 6, "optimizer": "adamw", "weight_decay": 0.04, "weight_decay_end": 0.4, "decay": "matrices"}
    return tiny_recipe(**{**given, "clip": 0.0, "clip_each": 3.0, **changes})


@dataclass
class Double(OdisObjective):
    """In float64, where a joint batch and two halves of it differ by rounding only."""

    def views(self, inputs: dict[str, Any]) -> Views:
        views = super().views(inputs)
        return replace(views, globals=views.globals.double(), locals=views.locals.double())


def run_double(ranks: Ranks, out: Path) -> dict[str, Tensor]:
    """Weights, buffers and gradients of the last step."""
    plain = tiny_objective(ranks)
    objective = Double(**{name: getattr(plain, name) for name in plain.__dataclass_fields__})
    model = tiny_model().double()
    fit(model, objective, odis_recipe(), seed=0, out=out, ranks=ranks, progress=False)
    return learnt(model)


def main(out: Path) -> None:
    """What each of two ranks does."""
    write_rank(run_double, out)
