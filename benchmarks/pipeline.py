"""Does anything wait? Images a second of an evaluation whose reading, model and scoring overlap.

    python benchmarks/pipeline.py                     # all parts and tasks, about 15 minutes on two cores
    python benchmarks/pipeline.py --tasks coco-discovery --images 256 --rounds 1 --no-memory

1. An *instant* model: predictions are there already. Two processes that read, against one thread that reads, predicts
   and scores in turn.
   On a machine that others use the time of the processors tells more: what both take, and what of it two free
   processors could do at a time.
2. A model that takes 10 ms an image (a sleep): the evaluation against the sleeps alone, and against
   reading / workers where that is longer.
3. Memory: the largest sum over all processes (PSS, each shared page counted once), for N and for 4 N images.

The images are made here in the official layouts: JPEGs of 640 x 480 with the detail of photographs. Rates are those of
the steady state: the time from the fifth batch to the last one. What comes before is the start of the processes, and
is printed apart. Both sides of a ratio run in turns; the median over the rounds is printed, and the best.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/helpers"))

from layout_trees import annotation, square, write_coco, write_json
from watching import looking, memory_of

from ocl_bench.cards.names import get_task
from ocl_bench.cards.task import TaskSpec
from ocl_bench.core.machine import fixed_arithmetic
from ocl_bench.core.processors import processors
from ocl_bench.core.types import Batch, Prediction
from ocl_bench.evaluation.heads import with_head
from ocl_bench.evaluation.loop import Runner
from ocl_bench.evaluation.plan import Plan, make_plan

TASKS = ("coco-discovery", "ade20k-segmentation", "cocostuff-segmentation")
SIZE, BATCH, WORKERS, SKIPPED = (480, 640), 16, 2, 5
DISTINCT = 64
"""Images that differ; the others are links to them."""
FIT = {"learning_rates": [0.03], "steps": 1, "batch": 4}


class Instant:
    """Gives masks of 7 slots and 384-dimensional tokens that it has already, after a sleep of so long an image."""

    def __init__(self, seconds: float = 0.0) -> None:
        generator = torch.Generator().manual_seed(0)
        masks = torch.rand(BATCH, 7, 16, 16, generator=generator).softmax(1)
        tokens = torch.randn(BATCH, 384, 32, 32, generator=generator)
        self.seconds, self.found = seconds, Prediction(masks=masks, mask_source="decoder", tokens=tokens)

    def predict(self, batch: Batch) -> Prediction:
        time.sleep(self.seconds * len(batch))
        return self.found


@dataclass(frozen=True)
class Steady:
    """An evaluation: seconds before its fifth batch was done, and what an image takes after it.

    image: seconds. here, there: seconds of processors, of this process and of those that read.
    """

    start: float
    image: float
    here: float
    there: float

    @property
    def bound(self) -> float:
        """Seconds of an image on two processors if nothing else ran, with one thread of torch."""
        return max(self.here, (self.here + self.there) / 2)


def photograph(number: int) -> Image.Image:
    """A picture that is as large as a JPEG of a photograph."""
    small = np.random.default_rng(number).integers(0, 256, (SIZE[0] // 8, SIZE[1] // 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(SIZE[::-1], Image.Resampling.BICUBIC)


def regions(number: int, values: np.ndarray) -> np.ndarray:
    """A map of 12 rectangles of random values."""
    generator = np.random.default_rng(number)
    labels = np.full(SIZE, values[0], np.uint8)
    for value in generator.choice(values, 12):
        top, left = generator.integers(0, 300), generator.integers(0, 400)
        labels[top : top + int(generator.integers(60, 180)), left : left + int(generator.integers(60, 240))] = value
    return labels


def save(path: Path, number: int, make: Callable[[int], Image.Image]) -> None:
    """Picture `number`, of which only the first DISTINCT ones are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if number < DISTINCT:
        make(number).save(path, quality=90)
    else:
        path.hardlink_to(path.with_name(path.name.replace(f"{number:08d}", f"{number % DISTINCT:08d}")))


def write_data(root: Path, images: int) -> None:
    """COCO with instances and stuff-thing maps, and ADE20K; `images` in each split that is scored, 16 to fit on."""
    boxes = ((60, 80, 300, 240), (200, 300, 420, 470), (350, 40, 620, 260), (10, 10, 90, 60), (500, 300, 630, 460))
    for split, count in (("val", images), ("train", 16)):
        names = [f"{number:012d}" for number in range(count)]
        objects = [
            annotation(10 * number + k, number, square(*box), category_id=18 if k else 1)
            for number in range(count)
            for k, box in enumerate(boxes)
        ]
        listing = write_coco(root, {}, objects, split)
        pictures = [{"id": n, "file_name": f"{name}.jpg", "height": 480, "width": 640} for n, name in enumerate(names)]
        write_json(listing, json.loads(listing.read_text()) | {"images": pictures})
        curated = root / f"curated/{split}2017/Coco164kFull_Stuff_Coarse_7.txt"
        curated.parent.mkdir(parents=True)
        curated.write_text("".join(f"{name}\n" for name in names))
        place = {"val": "validation", "train": "training"}[split]
        for number, name in enumerate(names):
            ade = f"ADE_{split}_{number:08d}"
            save(root / f"{split}2017/{name}.jpg", number, photograph)
            save(root / f"ADEChallengeData2016/images/{place}/{ade}.jpg", number, photograph)
            save(
                root / f"annotations/{split}2017/{name}.png",
                number,
                lambda k: Image.fromarray(regions(k, np.arange(182))),
            )
            save(
                root / f"ADEChallengeData2016/annotations/{place}/{ade}.png",
                number,
                lambda k: Image.fromarray(regions(k, np.arange(151))),
            )


def plan_of(name: str, root: Path, model: Instant, images: int) -> Plan:
    """The plan of a task, with its head fitted on 16 images for one step: that is not measured."""
    task: TaskSpec = get_task(name)
    if task.fit is not None:
        task = task.model_copy(update={"fit": task.fit.model_copy(update=FIT)})
    return with_head(
        make_plan(model, task, data_root=root, limit=images, device="cpu", batch_size=BATCH, progress=False)
    )


def steady(run: Callable[[Callable[[int], None]], None]) -> Steady:
    """Times an evaluation that calls a function after each batch."""
    begin, marks = time.perf_counter(), list[tuple[float, float, float]]()
    run(lambda count: marks.append((time.perf_counter(), time.process_time(), of_children())))
    measured = marks[SKIPPED - 1 :]
    last = zip(measured[0], measured[-1], strict=True)
    return Steady(measured[0][0] - begin, *((after - before) / (len(measured) - 1) / BATCH for before, after in last))


def of_children() -> float:
    """Seconds of processors that the processes below this one have taken."""
    return sum(sum(process.cpu_times()[:2]) for process in psutil.Process().children(recursive=True))


def in_turn(plan: Plan, advance: Callable[[int], None]) -> None:
    """Read, predict and score batch after batch, as one thread does."""
    runner = Runner(plan)
    for chosen in runner.batches(range(len(plan.data.ids))):
        items, _ = runner.read(chosen)
        items, outputs, _ = runner.outputs(items, 0)
        plan.adapter.score([item.truth for item in items], outputs, plan.task)
        advance(len(chosen))


def overlapped(plan: Plan, advance: Callable[[int], None]) -> None:
    """The corridor, without what is written."""
    Runner(plan).shards([range(len(plan.data.ids))], lambda number, shard: None, advance)


def timed(plan: Plan, threads: int, workers: int) -> Steady:
    """An evaluation in the steady state; one thread that does all in turn for 0 workers."""
    with fixed_arithmetic(threads):
        if not workers:
            return steady(lambda advance: in_turn(plan, advance))
        return steady(lambda advance: overlapped(replace(plan, workers=workers), advance))


def reading(plan: Plan) -> float:
    """Seconds that one process takes to read and prepare an image."""
    runner = Runner(plan)
    with fixed_arithmetic(1):
        begin = time.perf_counter()
        for chosen in runner.batches(range(min(128, len(plan.data.ids)))):
            runner.read(chosen)
        return (time.perf_counter() - begin) / min(128, len(plan.data.ids))


def ratios(pairs: list[tuple[float, float]]) -> str:
    """The median and the largest ratio of pairs of times."""
    found = [first / second for first, second in pairs]
    return f"{statistics.median(found):.2f} (best {max(found):.2f}, of {len(found)} rounds)"


def instant(plan: Plan, rounds: int, threads: int) -> None:
    """Part 1."""
    runs = [(timed(plan, 1, 0), timed(plan, threads, WORKERS)) for _ in range(rounds)]
    alone, ahead = (min(run[side].image for run in runs) for side in (0, 1))
    pairs = [(one.image, two.image) for one, two in runs]
    print(f"  instant model      in turn {1 / alone:7.1f} images/s, {WORKERS} workers {1 / ahead:7.1f} images/s")
    print(f"                     ratio {ratios(pairs)}")
    pairs = [(one.here, two.bound) for one, two in runs]
    print(f"                     by the time of the processors, if nothing else ran: {ratios(pairs)}")
    print(f"                     start of the processes and four batches: {min(two.start for _, two in runs):.1f} s")


def asleep(plan: Plan, rounds: int, threads: int, seconds: float) -> None:
    """Part 2."""
    model: Any = plan.model.model
    model.seconds = seconds
    found = []
    for _ in range(rounds):
        read = reading(plan)
        found.append((read, timed(plan, threads, WORKERS).image))
    model.seconds = 0.0
    read, image = min(one for one, _ in found), min(two for _, two in found)
    bound = max(seconds, read / WORKERS)
    target = 1.05 if read / WORKERS < seconds else 1.3
    print(
        f"  10 ms an image     evaluation {1e3 * image:6.2f} ms, reading {1e3 * read:6.2f} ms in one process; "
        f"{image / bound:.2f} of max(model, reading / {WORKERS}), target {target}"
    )


def memory(name: str, root: Path, images: int) -> None:
    """Part 3."""
    peaks = []
    for count in (images, 4 * images):
        plan = plan_of(name, root, Instant(), count)
        with looking(memory_of, 0.2) as seen:
            timed(plan, 1, WORKERS)
        peaks.append(max(seen) / 2**20)
    print(f"  memory             {peaks[0]:.0f} MB for {images} images, {peaks[1]:.0f} MB for {4 * images}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of torch, beside the processes that read")
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{options.images} images, batches of {BATCH}, {processors()} processors, load before the start {load:.1f}")
    with tempfile.TemporaryDirectory(prefix="pipeline-") as folder:
        root = Path(folder)
        os.environ["OCL_BENCH_CACHE"] = str(root / "cache")
        write_data(root, options.images)
        for name in options.tasks:
            print(name, flush=True)
            plan = plan_of(name, root, Instant(), options.images)
            instant(plan, options.rounds, options.threads)
            asleep(plan, options.rounds, options.threads, 0.01)
            if options.memory:
                memory(name, root, options.images // 4)


if __name__ == "__main__":
    main()
