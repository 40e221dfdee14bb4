"""Measure the overhead of an evaluation: the time of the whole corridor against that of the forward passes alone.

    python benchmarks/corridor.py                       # paper scale: DIAS with ViT-S/14, 256 x 256, random weights
    python benchmarks/corridor.py --model dias          # an embedded model

Both run alternately in one process, with the same threads and batches. The corridor reads, crops, predicts, upsamples,
scores and writes rows. The script also prints the peak of resident memory after 1x and 4x the images; it must not grow.
"""

from __future__ import annotations

import argparse
import tempfile
import time

import torch

from ocl_bench.cards.names import get_task
from ocl_bench.core.machine import fixed_arithmetic, peak_memory_mb
from ocl_bench.core.types import Batch
from ocl_bench.data import open_data
from ocl_bench.evaluation.loop import Runner
from ocl_bench.evaluation.plan import Plan, make_plan
from ocl_bench.evaluation.run import run

PAPER = {"encoder": "dinov2s14reg", "slot_dim": 256, "slots": 7, "merge_threshold": None}


def plan_of(arguments: argparse.Namespace, images: int) -> Plan:
    """Plan the evaluation of the first images of the task's data."""
    task = get_task(arguments.task)
    data = open_data(task, limit=images)
    options = {} if arguments.model != "paper" else PAPER
    if arguments.model == "paper":
        from ocl_bench.models.dias import build

        model = build(**options)
    else:
        model = arguments.model
    return make_plan(model, task, data=data, batch_size=arguments.batch, device=arguments.device)


def corridor(plan: Plan) -> float:
    """Seconds of the whole evaluation."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run(plan, results=folder, progress=False, force=True)
        return time.perf_counter() - start


def forward(plan: Plan, batches: list[torch.Tensor]) -> float:
    """Seconds of the forward passes alone. The images are already in memory."""
    model = plan.model.model
    with torch.inference_mode(), fixed_arithmetic(plan.threads):
        start = time.perf_counter()
        for image in batches:
            model.predict(Batch(tuple(map(str, range(len(image)))), image))
        if plan.device.startswith("cuda"):  # kernels run asynchronously
            torch.cuda.synchronize()
        return time.perf_counter() - start


def read_batches(plan: Plan) -> list[torch.Tensor]:
    """Batches of prepared images on the device of the plan."""
    runner, ids = Runner(plan), range(len(plan.data.ids))
    starts = range(0, len(ids), plan.batch_size)
    batches = [runner.read(ids[start : start + plan.batch_size])[0] for start in starts]
    return [torch.stack([item.image for item in batch]).to(plan.device) for batch in batches]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="paper", help="paper, or a bundled model")
    parser.add_argument("--task", default="coco-discovery")
    parser.add_argument("--images", type=int, default=64, help="a multiple of 64, so that no batch is padded")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    plan = plan_of(arguments, arguments.images)
    batches = read_batches(plan)
    corridor(plan), forward(plan, batches)  # warm-up
    pairs = [(corridor(plan), forward(plan, batches)) for _ in range(arguments.runs)]
    whole, bare = (min(times) for times in zip(*pairs, strict=True))
    before = peak_memory_mb()  # the peak of a process only grows: the small evaluation must come first
    corridor(plan_of(arguments, 4 * arguments.images))
    print(f"{arguments.model} on {arguments.task}, {arguments.images} images, {plan.threads} threads, {plan.device}")
    for name, seconds in (("evaluation", whole), ("forward passes alone", bare)):
        print(f"{name:22} {1000 * seconds / arguments.images:8.2f} ms an image")
    print(f"peak memory {before:.0f} MB, after 4x the images {peak_memory_mb():.0f} MB")
    print(f"ratio: {whole / bare:.3f}")


if __name__ == "__main__":
    main()
