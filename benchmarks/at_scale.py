"""What official data and paper sizes need: operations, bytes and hours, from counted operations and stated speeds.

    python benchmarks/at_scale.py                               # prints the tables
    python benchmarks/at_scale.py --write docs/at-scale.md      # and writes them into the page

Operations are counted in one pass of each model with random weights (2 for each multiply-add). Speeds of GPUs are
assumptions, printed with the tables; that of this processor is measured in the same passes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from worlds import replace_table

from ocl_bench.evaluation.cost.counts import count_operations
from ocl_bench.evaluation.cost.subject import ModelChoice, ProfileSetup, Subject

FLOAT32, BFLOAT16 = 30e12, 200e12
"""Operations a second of one GPU that we assume, of what an H100 could do at best (67e12 in float32 without TF32, as
evaluations compute; 989e12 in bfloat16, for trainings)."""

IMAGENET, QUERIES = 1_281_167, 50_000
CROPS = 2 + 10 * (96 / 224) ** 2
"""Crops of an image in an epoch of ODIS, counted in whole ones: 2 of 224 pixels and 10 of 96."""

YTVIS_FRAMES = 300 * 30
"""300 videos of about 30 frames."""


@dataclass(frozen=True)
class Network:
    """A model at the size of its paper. frozen: attribute of the part that no training changes; '' for none."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    frozen: str = ""


@dataclass(frozen=True)
class Measured:
    """Operations of one image or frame, those of the frozen part, and seconds on one thread of this machine."""

    operations: float
    frozen: float
    seconds: float

    def training(self) -> float:
        """Operations of one image in a training: three passes of what learns, one of what is frozen."""
        return 3 * (self.operations - self.frozen) + self.frozen


@dataclass(frozen=True)
class Job:
    """An evaluation or a training. seen: images or frames; text: what they are."""

    title: str
    network: str
    seen: float
    text: str


NETWORKS = {
    "DIAS, 256": Network("dias-paper", frozen="encoder"),
    "ODIS ViT-S/16, 224": Network("odis-paper"),
    "SlotCon ResNet-50, 224": Network("slotcon-paper"),
    "SlotContrast ViT-B/14, 518": Network("slotcontrast-paper", {"variant": "ytvis"}, "encoder"),
    "SlotMatch ViT-S/14, 518": Network("slotmatch-paper", {"variant": "ytvis"}, "encoder"),
}

EVALUATIONS = (
    Job("ImageNet k-NN", "ODIS ViT-S/16, 224", IMAGENET + QUERIES, "bank and queries"),
    Job("COCO discovery", "DIAS, 256", 5_000, "val2017"),
    Job("COCO-Stuff-27", "SlotCon ResNet-50, 224", 5_000, "val2017; the card's own size costs more"),
    Job("YouTube-VIS 2021", "SlotContrast ViT-B/14, 518", YTVIS_FRAMES, "300 videos of about 30 frames"),
    Job("YouTube-VIS 2021", "SlotMatch ViT-S/14, 518", YTVIS_FRAMES, "300 videos of about 30 frames"),
)

TRAININGS = (
    Job("DIAS on COCO", "DIAS, 256", 100_000 * 32, "100,000 steps of 32 images"),
    Job(
        "SlotContrast on YouTube-VIS", "SlotContrast ViT-B/14, 518", 25_600_000, "100,000 steps of 64 clips of 4 frames"
    ),
    Job("SlotMatch on YouTube-VIS", "SlotMatch ViT-S/14, 518", 25_600_000, "the same; with the teacher"),
    Job(
        "SlotCon on COCO",
        "SlotCon ResNet-50, 224",
        184_800 * 512 * 2,
        "800 epochs, two crops; with the teacher",
    ),
    Job(
        "ODIS on ImageNet",
        "ODIS ViT-S/16, 224",
        800 * IMAGENET * CROPS,
        "800 epochs (iBOT's); with the teacher",
    ),
)
TEACHERS = {
    "SlotMatch on YouTube-VIS": "SlotContrast ViT-B/14, 518",
    "SlotCon on COCO": "SlotCon ResNet-50, 224",
    "ODIS on ImageNet": "ODIS ViT-S/16, 224",
}
"""Whose pass without gradient is added to each image of a training."""


def measure(network: Network) -> Measured:
    """Count the operations of one pass and time another one."""
    subject = Subject(ModelChoice(network.name, network.options, untrained=True), ProfileSetup(clip=1))
    operations = count_operations(subject).total
    frozen = 0.0
    if network.frozen:
        part, image = getattr(subject.loaded.model, network.frozen), torch.rand(1, 3, subject.size, subject.size)
        with torch.inference_mode():
            frozen = count_operations(SimpleNamespace(run=lambda: part(image), frames=1)).total
    start = time.perf_counter()
    subject.run()
    return Measured(operations, frozen, time.perf_counter() - start)


def network_table(measured: Mapping[str, Measured]) -> list[str]:
    """Operations of each network, and what they take here."""
    lines = ["| network | operations of an image | of its frozen part | one thread here | operations a second here |"]
    lines += ["|---|---|---|---|---|"]
    for name, one in measured.items():
        cells = (f"{one.operations / 1e9:.1f} G", f"{one.frozen / 1e9:.1f} G" if one.frozen else "–")
        speed = one.operations / one.seconds / 1e9
        lines.append(f"| {name} | {' | '.join(cells)} | {one.seconds:.2f} s | {speed:.0f} G |")
    return lines


def evaluation_table(measured: Mapping[str, Measured]) -> list[str]:
    """Operations and hours of evaluations: one thread at its measured speed, one GPU at the assumed one."""
    lines = ["| evaluation | network | images or frames | operations | one thread here | one GPU, float32 |"]
    lines += ["|---|---|---|---|---|---|"]
    for job in EVALUATIONS:
        one = measured[job.network]
        total = job.seen * one.operations
        cells = (f"{job.seen:,.0f} ({job.text})", number(total), hours(job.seen * one.seconds), hours(total / FLOAT32))
        lines.append(f"| {job.title} | {job.network} | {' | '.join(cells)} |")
    return lines


def training_table(measured: Mapping[str, Measured]) -> list[str]:
    """Operations and hours of the papers' trainings on 1, 8 and 64 GPUs."""
    lines = ["| training | what it sees | operations | 1 GPU | 8 GPUs | 64 GPUs |", "|---|---|---|---|---|---|"]
    for job in TRAININGS:
        teacher = measured[TEACHERS[job.title]].operations if job.title in TEACHERS else 0.0
        total = job.seen * (measured[job.network].training() + teacher)
        times = (hours(total / BFLOAT16 / gpus) for gpus in (1, 8, 64))
        lines.append(f"| {job.title} | {job.text} | {number(total)} | {' | '.join(times)} |")
    return lines


def search_table() -> list[str]:
    """Memory of the bank of ImageNet k-NN and operations of its search, by the width of the features."""
    lines = ["| features | bank, float32 | operations of the search |", "|---|---|---|"]
    for width in (384, 768, 2048):
        operations = 2.0 * IMAGENET * QUERIES * width
        lines.append(f"| {width} | {IMAGENET * width * 4 / 1e9:.1f} GB | {number(operations)} |")
    return lines


def number(operations: float) -> str:
    """A large number of operations in words: 1e12 is 1 T."""
    for factor, unit in ((1e18, "E"), (1e15, "P"), (1e12, "T")):
        if operations >= factor:
            return f"{operations / factor:.3g} {unit}"
    return f"{operations / 1e9:.3g} G"


def hours(seconds: float) -> str:
    """A time in the unit in which it is read best."""
    for factor, unit in ((48 * 3600, "days"), (3600, "h"), (60, "min")):
        if seconds >= factor:
            return f"{seconds / (86400 if unit == 'days' else factor):.3g} {unit}"
    return f"{seconds:.2g} s"


def main() -> None:
    """Measure and print the tables, or write them into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="page whose tables are replaced")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    measured = {name: measure(network) for name, network in NETWORKS.items()}
    tables = {
        "networks": network_table(measured),
        "evaluations": evaluation_table(measured),
        "search": search_table(),
        "trainings": training_table(measured),
    }
    for name, lines in tables.items():
        print("\n".join(lines), end="\n\n")
        if arguments.write:
            replace_table(arguments.write, f"at-scale-{name}", "\n".join(lines))


if __name__ == "__main__":
    main()
