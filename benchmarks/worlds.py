"""Measure what a world allows: floors, an untrained network, and a supervised one. See docs/worlds.md.

    python benchmarks/worlds.py                                  # revision 2 of the salient scenes, seeds 0, 1, 2
    python benchmarks/worlds.py --seeds 0 --write docs/worlds.md

Scenes are rendered once, into the cache. Each measurement is kept in --out, so a run that was stopped goes on where it
stopped; a measurement of another world is refused. No self-supervised model is looked at: that would bend the world.

The supervised network has four stages of convolutions. Each step shows it 64 whole images with the class of the
salient object, and 64 crops of any object with the class of that object. Both readings are scored on the views of the
k-NN tasks.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ocl_bench.cards.names import get_task
from ocl_bench.core.machine import fixed_arithmetic, thread_count
from ocl_bench.core.types import Sample
from ocl_bench.data.scenes.salient import SalientStore
from ocl_bench.data.scenes.store import open_store
from ocl_bench.data.stand_ins.layouts import ensure_scenes
from ocl_bench.data.transforms import prepare
from ocl_bench.models.loading import get_model
from ocl_bench.training.batched_views import recoloured, sampled_crops
from ocl_bench.training.neighbours import embeddings, top1
from ocl_bench.training.odis_images import salient_sample

READINGS = {"whole": None, "crop": "crop", "boxes": "attention"}
WHOLE, CROP = 80, 56
"""Sides in pixels of the whole images and of the crops that the supervised network sees."""

Numbers = dict[str, float]


@dataclass(frozen=True)
class World:
    """Scenes of one revision.

    bank: scenes of `train` that vote. labelled: those whose labels are learnt. queries: scenes of `val` for each seed.
    """

    revision: int
    bank: int
    labelled: int
    queries: int

    def store(self, split: str, seed: int, count: int) -> SalientStore:
        """The scenes of a split, rendered if they are not in the cache."""
        return ensure_scenes(open_store("salient", self.revision, split, seed), count)  # type: ignore[return-value]

    def samples(self, split: str, seed: int, count: int) -> list[Sample]:
        """The scenes of a split with class and boxes."""
        return [salient_sample(f"{split}-{n}", scene) for n, scene in enumerate(self.store(split, seed, count))]

    @property
    def fingerprint(self) -> str:
        """A hash of the first scenes, by which measurements of another world are told apart."""
        pixels = b"".join(scene.image.tobytes() for scene in self.store("train", 0, 16))
        return hashlib.sha256(pixels).hexdigest()[:12]


def neighbours(name: str, readings: Sequence[str], option: str | None = None) -> Callable[[World, int], Numbers]:
    """A measurement of k-NN with the card `name`; `option` of the model gets the seed."""

    def measure(world: World, seed: int) -> Numbers:
        card, _, side = name.partition(":")
        options = {"side": int(side)} if side else {option: seed} if option else {}
        model = get_model(card, options=options).model
        model.input_size = getattr(model, "input_size", 128)
        bank, queries = world.samples("train", 0, world.bank), world.samples("val", seed, world.queries)
        labels = [np.array([sample.truth.label for sample in samples]) for samples in (bank, queries)]
        numbers = {}
        for reading in readings:
            rules = get_task("imagenet-knn").protocol.model_copy(update={"boxes": READINGS[reading]})
            vectors = [embeddings(model, samples, rules, "cpu") for samples in (bank, queries)]
            numbers[reading] = top1(*vectors, *labels, rules)
        return numbers

    return measure


def convolution(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
    """A convolution with batch norm and ReLU."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return [layer, nn.BatchNorm2d(outputs), nn.ReLU()]


def network(classes: int) -> nn.Sequential:
    """The supervised convolutional network: images (B, 3, S, S) -> logits (B, classes)."""
    stages = convolution(3, 32, 5, 2) + convolution(32, 48, 3, 2)
    for inputs, outputs in ((48, 96), (96, 192)):
        stages += convolution(inputs, outputs, 3, 2) + convolution(outputs, outputs, 3, 1)
    return nn.Sequential(*stages, MeanAndMaximum(), nn.Linear(2 * 192, classes))


class MeanAndMaximum(nn.Module):
    """(B, C, h, w) -> (B, 2 C): mean and maximum over the places."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)


class LabelledViews:
    """Views of training scenes with labels: whole images, and crops of single objects."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        side = max(max(sample.image.shape) for sample in samples)
        self.images = torch.zeros(len(samples), 3, side, side, dtype=torch.uint8)
        rows = []
        for number, sample in enumerate(samples):
            height, width = sample.image.shape[:2]
            self.images[number, :, :height, :width] = torch.from_numpy(sample.image.copy()).permute(2, 0, 1)
            rows += [(number, one.category, *one.box, height, width) for one in sample.truth.instances]
        table = np.array(rows, dtype=np.float64)
        self.objects = table[np.minimum(table[:, 4] - table[:, 2], table[:, 5] - table[:, 3]) >= 16]
        sizes = np.array([sample.image.shape[:2] for sample in samples])
        whole = np.stack([np.zeros(len(samples)), np.zeros(len(samples)), sizes[:, 1], sizes[:, 0]], axis=1)
        labels = np.array([sample.truth.label for sample in samples])
        self.wholes = np.column_stack([np.arange(len(samples)), labels, whole, sizes])

    def draw(
        self, table: np.ndarray, count: int, share: tuple[float, float], size: int, source: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """`count` views (B, 3, size, size) of rows of a table, and their labels (B,). share: of the shorter side."""
        rows = table[source.integers(len(table), size=count)]
        x0, y0, x1, y1, height, width = rows[:, 2:].T
        shorter = np.minimum(x1 - x0, y1 - y0)
        side = np.clip(np.rint(shorter * source.uniform(*share, count)), 8, np.minimum(height, width))
        shift = source.uniform(-0.08, 0.08, (2, count)) * shorter
        left = np.clip(np.rint((x0 + x1 - side) / 2 + shift[0]), 0, width - side)
        top = np.clip(np.rint((y0 + y1 - side) / 2 + shift[1]), 0, height - side)
        windows = torch.from_numpy(np.stack([top, left, side, side], axis=1)).long()
        looks = torch.zeros(count, 11)
        looks[:, :3] = torch.from_numpy(source.uniform(0.7, 1.3, (count, 3)))
        looks[:, 3] = torch.from_numpy(source.uniform(-0.5, 0.5, count))
        looks[:, 8] = torch.from_numpy(source.random(count) < 0.1)
        flips = torch.from_numpy(source.random(count) < 0.5)
        views = sampled_crops(self.images[rows[:, 0].astype(int)], windows, flips, size)
        return recoloured(views, looks), torch.from_numpy(rows[:, 1]).long()


def supervised(steps: int, batch: int = 64) -> Callable[[World, int], Numbers]:
    """A measurement of a network that is trained with labels, by its own classifier."""

    def measure(world: World, seed: int) -> Numbers:
        torch.manual_seed(seed)
        source = np.random.default_rng(seed)
        views = LabelledViews(world.samples("train", 0, world.labelled))
        model = network(len(world.store("train", 0, 16).classes)).to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.15)
        for step in range(steps):
            loss = torch.zeros(())
            for table, share, size in ((views.wholes, (0.72, 0.95), WHOLE), (views.objects, (0.75, 1.05), CROP)):
                images, labels = views.draw(table, batch, share, size, source)
                logits = model((images - 0.45).contiguous(memory_format=torch.channels_last) * 4)
                loss = loss + F.cross_entropy(logits, labels, label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if step % 100 == 99:
                print(f"  step {step + 1}: loss {loss.item():.3f}", flush=True)
        return accuracy(model.eval(), world.samples("val", seed, world.queries))

    return measure


@torch.no_grad()
def accuracy(model: nn.Module, samples: Sequence[Sample]) -> Numbers:
    """Share of samples whose class the network names, on the views of the k-NN tasks."""
    numbers = {}
    for reading, size in (("whole", WHOLE), ("crop", CROP)):
        rules = get_task("imagenet-knn").protocol.model_copy(update={"boxes": READINGS[reading]})
        hits = []
        for first in range(0, len(samples), 64):
            chosen = samples[first : first + 64]
            images = torch.stack([prepare(sample, rules, size)[0] for sample in chosen])
            named = model((images - 0.45) * 4).argmax(1)
            hits += [int(one) == sample.truth.label for one, sample in zip(named, chosen, strict=True)]
        numbers[reading] = float(np.mean(hits))
    return numbers


MEASUREMENTS: dict[str, Callable[[World, int], Numbers]] = {
    "mean colour": neighbours("pixels-4x4:1", ("whole", "crop")),
    "4 x 4 pixels": neighbours("pixels-4x4", ("whole", "crop")),
    "untrained ViT": neighbours("odis-random", ("whole", "crop", "boxes"), option="seed"),
    "supervised, convolutions": supervised(steps=500),
}


def kept(path: Path, identity: dict[str, object], measure: Callable[[], Numbers]) -> Numbers:
    """One measurement: read from `path` if it is there and of this identity, else made and written."""
    if path.exists():
        found = json.loads(path.read_text())
        if found["identity"] != identity:
            raise SystemExit(f"{path}: was measured on another world ({found['identity']}); choose another --out")
        return dict(found["numbers"])
    numbers = measure()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"identity": identity, "numbers": numbers}) + "\n")
    return numbers


def measured(world: World, name: str, seed: int, out: Path) -> Numbers:
    """One measurement of `MEASUREMENTS`."""
    path = out / f"{name.replace(' ', '-').replace(',', '')}-seed{seed}.json"
    identity = {"world": world.fingerprint, "bank": world.bank, "labelled": world.labelled, "queries": world.queries}
    return kept(path, identity, lambda: MEASUREMENTS[name](world, seed))


def replace_table(page: Path, name: str, text: str) -> None:
    """Replace what stands on a page between the comments `begin <name>` and `end <name>`."""
    begin, end = (f"<!-- {word} {name} -->" for word in ("begin", "end"))
    before, rest = page.read_text().split(begin)
    page.write_text(before + begin + "\n" + text + "\n" + end + rest.split(end)[1])


def show_tables(tables: Mapping[str, str], page: Path | None) -> None:
    """Print tables by name, and write them into their places on a page if there is one."""
    for name, text in tables.items():
        print(text, end="\n\n")
        if page:
            replace_table(page, name, text)


def table(world: World, seeds: Sequence[int], out: Path) -> str:
    """Measure everything and return a Markdown table: mean over the seeds, and the values of the seeds."""
    lines = ["| | " + " | ".join(READINGS) + " |", "|---|" + "---|" * len(READINGS)]
    for name in MEASUREMENTS:
        found = [measured(world, name, seed, out) for seed in seeds]
        cells = []
        for reading in READINGS:
            values = [numbers[reading] for numbers in found if reading in numbers]
            each = ", ".join(f"{value:.3f}" for value in values)
            cells.append(f"**{np.mean(values):.3f}** ({each})" if values else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--revision", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--bank", type=int, default=1008, help="scenes of train that vote")
    parser.add_argument("--labelled", type=int, default=4096, help="scenes of train from which labels are learnt")
    parser.add_argument("--queries", type=int, default=2048, help="scenes of val for each seed")
    parser.add_argument("--out", type=Path, help="where measurements are kept; by default runs/worlds/salient-r<N>")
    parser.add_argument("--write", type=Path, help="page whose table of this revision is replaced")
    arguments = parser.parse_args()
    world = World(arguments.revision, arguments.bank, arguments.labelled, arguments.queries)
    out = arguments.out or Path("runs/worlds") / f"salient-r{world.revision}"
    with fixed_arithmetic(thread_count()):
        text = table(world, arguments.seeds, out)
    if arguments.write:
        replace_table(arguments.write, f"salient-r{world.revision}", text)


if __name__ == "__main__":
    main()
