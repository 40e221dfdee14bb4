"""Measure the cost of masked attention: a training step of ODIS against a step whose [OBJ] attends to all patches.

    python benchmarks/odis.py

Both get the same weights, views, boxes and hidden patches, on the same device and in the same dtype. A step consists of
the loss with teacher and centres, the backward pass and AdamW. The two models take turns, in alternating order. The
ratio masked / plain is the median over neighbouring steps, because other work on the machine slows both; it should be
at most 1.05. Before that, both must give equal losses if the box is the whole view. On a CPU, a small network runs in
float32 on one thread, and CPU seconds are counted. On a GPU, ViT-S/16 with ten local views runs under bfloat16
autocast.
"""

from __future__ import annotations

import argparse
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ocl_bench.models.layers.patches import patches_of_boxes
from ocl_bench.models.odis import Odis, Views, build
from ocl_bench.training.crops import draw_uniform
from ocl_bench.training.object_crops import CropOptions, draw_object_crops
from ocl_bench.training.patch_masks import PatchMaskOptions, draw_patch_masks

TOLERANCE = {"cpu": 1e-4, "cuda": 2e-2}
SIZES: dict[str, dict[str, Any]] = {
    "cpu": {"preset": "embedded", "patch": 8, "input_size": 64},
    "cuda": {"preset": "paper", "arch": "vit_small", "patch": 16},
}


def make_views(batch: int, crops: CropOptions, patch: int, device: str) -> Views:
    """Views as of photographs of 480 x 640 with three objects each. The pixels are noise."""
    draw = np.random.default_rng(0)
    corners = draw.uniform(0, 1, (batch, 3, 2, 2)) * [640, 480]
    boxes = np.concatenate([corners.min(2), corners.max(2) + 8], axis=2)
    samples = np.arange(batch)
    uniform = draw_uniform(0, 0, samples, crops.columns, "object-crops")
    drawn = draw_object_crops(uniform, np.repeat([[480, 640]], batch, 0), boxes, crops, patch)
    within = patches_of_boxes(drawn.boxes, (crops.size, crops.size), patch).patches.unsqueeze(2)
    hidden = draw_patch_masks(0, 0, samples, 2, crops.size // patch, PatchMaskOptions())
    noise = torch.Generator().manual_seed(0)
    views = Views(
        torch.randn(2, batch, 3, crops.size, crops.size, generator=noise),
        torch.randn(crops.locals, batch, 3, crops.local_size, crops.local_size, generator=noise),
        within.transpose(0, 1),
        drawn.present.transpose(0, 1),
        hidden.transpose(0, 1),
    )
    return Views(*(value.to(device) for value in vars(views).values()))


class Steps:
    """Training steps of one model."""

    def __init__(self, device: str, masked: bool) -> None:
        torch.manual_seed(0)
        self.model: Odis = build(**SIZES[device], drop_path=0.0, masked_attention=masked).to(device).train()
        learnt = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(learnt, lr=1e-4)
        self.device = device

    def precision(self) -> AbstractContextManager[Any]:
        """Autocast to bfloat16 on a GPU."""
        return torch.autocast("cuda", dtype=torch.bfloat16) if self.device == "cuda" else nullcontext()

    def take(self, views: Views) -> tuple[float, float]:
        """Take one step. Returns its seconds and its loss."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter() if self.device == "cuda" else time.process_time()
        self.model.zero_grad(set_to_none=True)
        with self.precision():
            total = self.model.loss(views, epoch=5.0, momentum=0.996)["total"]
        total.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        value = float(total.detach())
        return (time.perf_counter() if self.device == "cuda" else time.process_time()) - start, value


def check_equal(device: str, views: Views) -> None:
    """Check that masked attention equals plain attention if every patch is in the box."""
    whole = replace(views, objects=torch.ones_like(views.objects))
    masked, plain = (Steps(device, is_masked).take(whole)[1] for is_masked in (True, False))
    assert abs(masked - plain) <= TOLERANCE[device] * abs(plain), (masked, plain)
    print(f"whole view as box: losses {masked:.5f} and {plain:.5f}")


def main() -> None:
    """Print both times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--batch", type=int, default=0, help="by default 64 on a GPU, 16 on a CPU")
    arguments = parser.parse_args()
    device, cuda = arguments.device, arguments.device == "cuda"
    if not cuda:
        torch.set_num_threads(1)
    crops = CropOptions() if cuda else CropOptions(size=64, locals=2, local_size=32)
    views = make_views(arguments.batch or (64 if cuda else 16), crops, SIZES[device]["patch"], device)
    check_equal(device, views)
    runs = {"masked attention": Steps(device, True), "plain attention": Steps(device, False)}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(arguments.steps + 3):
        for name in sorted(runs, reverse=bool(number % 2)):
            spent, _ = runs[name].take(views)
            if number >= 3:  # the first steps allocate memory
                seconds[name].append(spent)
    median = {name: 1000 * float(np.median(times)) for name, times in seconds.items()}
    for name, spent in median.items():
        print(f"{name:18} {spent:8.1f} ms a step, on {device}")
    masked, plain = (np.array(times) for times in seconds.values())
    print(f"ratio: {np.median(masked / plain):.3f}")


if __name__ == "__main__":
    main()
