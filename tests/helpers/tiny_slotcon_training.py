"""A SlotCon training small enough for a test; `main` is what each of two ranks does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_training import tiny_recipe
from torch import Tensor
from two_ranks import learnt, write_rank

from ocl_bench.models.layers.resnet import ResNet
from ocl_bench.models.slotcon import SlotCon
from ocl_bench.training import Recipe, fit
from ocl_bench.training.crops import Looks
from ocl_bench.training.data import CHUNK, ChunkedArray, PaddedImages
from ocl_bench.training.ranks import Ranks, start_ranks
from ocl_bench.training.slotcon_objective import SceneSource, SlotConObjective, SlotConOptions
from ocl_bench.training.synchronised_norm import synchronise

SIZES = ((30, 44), (44, 30), (36, 36))


def tiny_source(count: int = 10) -> SceneSource:
    """Noise with a bright rectangle, in three sizes, padded to 44 x 44."""
    draw = np.random.default_rng(0)
    images = np.zeros((CHUNK, 3, 44, 44), dtype=np.uint8)
    sizes = np.array([SIZES[i % len(SIZES)] for i in range(CHUNK)])
    for image, (height, width) in zip(images, sizes, strict=True):
        image[:, :height, :width] = draw.integers(0, 120, (3, height, width))
        image[draw.integers(3), 4:20, 6:22] += 130
    return SceneSource(PaddedImages(ChunkedArray((images,), count), ChunkedArray((sizes,), count), "tiny"))


def tiny_model(**options: Any) -> SlotCon:
    torch.manual_seed(0)
    shape: dict[str, Any] = dict(blocks=(1,), widths=(8,), bottleneck=False, stem="small", strides=(4,), dilations=(1,))
    return SlotCon(lambda: ResNet(**shape), **{"prototypes": 5, "hidden": 8, "dim": 6, "input_size": 16, **options})


def tiny_objective(ranks: Ranks | None = None, **changes: Any) -> SlotConObjective:
    options = SlotConOptions(kind="slotcon", crop=16, min_scale=0.3, momentum=0.9, looks=Looks(sigma=(0.1, 0.5)))
    given = {"source": tiny_source(), "options": options, "seed": 0, "batch_size": 4, **changes}
    return SlotConObjective(
        **given, validator=lambda model: {"miou_sem": 0.5}, ranks=ranks or start_ranks("cpu", "fp32")
    )


def slotcon_recipe(**changes: Any) -> Recipe:
    return tiny_recipe(steps=6, lr=0.05, optimizer="lars", start=0.01, clip=0.0, **changes)


@dataclass
class Double(SlotConObjective):
    """In float64, where a joint batch and two halves of it differ by rounding only."""

    def views(self, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        one, two = super().views(inputs)
        return one.double(), two.double()


def run_double(ranks: Ranks, out: Path) -> dict[str, Tensor]:
    """Weights, buffers and gradients of the last step."""
    plain = tiny_objective(ranks)
    objective = Double(**{name: getattr(plain, name) for name in plain.__dataclass_fields__})
    model = tiny_model().double()
    if ranks.size > 1:
        assert synchronise(model) > 0
    fit(model, objective, slotcon_recipe(), seed=0, out=out, ranks=ranks, progress=False)
    return learnt(model)


def main(out: Path) -> None:
    """What two ranks learn, and what they gather of rows of which one has none."""
    ranks = write_rank(run_double, out)
    shared = ranks.gather_all(torch.full((3 * ranks.rank, 2), float(ranks.rank)))
    torch.save(shared, out / f"gathered{ranks.rank}.pt")
