"""Measure what the scenes with classes (`things`) allow: a supervised network names every pixel. See docs/worlds.md.

    python benchmarks/things.py --seeds 0 --write docs/worlds.md

The network has four stages of convolutions and one shortcut, and learns the classes of all pixels of `--labelled`
scenes of split `train`. It is scored by mIoU on `--scenes` scenes of split `val`, which no card uses, once for the
classes of each card. No self-supervised model is looked at: that would bend the world.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from worlds import Numbers, convolution, kept, replace_table

from ocl_bench.core.machine import fixed_arithmetic, thread_count
from ocl_bench.data.readers import cityscapes
from ocl_bench.data.scenes.classes import CLASSES
from ocl_bench.data.scenes.store import SIZE, ClassedScene, open_store
from ocl_bench.data.stand_ins.coco import border
from ocl_bench.data.stand_ins.layouts import ensure_scenes
from ocl_bench.metrics.semantic import confusion, miou_sem

VOID = -1
"""Class of the rims of objects, which no card scores, and of what lies outside of an image."""


def card_classes() -> dict[str, np.ndarray]:
    """For each card the class of each of the 27 scene classes, or `VOID`."""
    trained = list(cityscapes.CLASSES)
    names = {
        "cocostuff-segmentation": [one.index for one in CLASSES],
        "voc-segmentation": [one.voc for one in CLASSES],
        "ade20k-segmentation": [one.ade20k for one in CLASSES],
        "cityscapes-segmentation": [
            trained.index(one.cityscapes) if one.cityscapes in trained else VOID for one in CLASSES
        ],
    }
    return {card: np.array(values) for card, values in names.items()}


def scenes(revision: int, split: str, seed: int, count: int) -> list[ClassedScene]:
    """The first scenes of a split, rendered if they are not in the cache."""
    return list(ensure_scenes(open_store("things", revision, split, seed), count))


def arrays(found: Sequence[ClassedScene]) -> tuple[Tensor, Tensor]:
    """Images (N, 3, S, S) uint8 and scene classes (N, S, S) int64 with `VOID`, padded to squares."""
    images = torch.zeros(len(found), 3, SIZE, SIZE, dtype=torch.uint8)
    labels = torch.full((len(found), SIZE, SIZE), VOID)
    for number, scene in enumerate(found):
        height, width = scene.objects.shape
        images[number, :, :height, :width] = torch.from_numpy(scene.image.copy()).permute(2, 0, 1)
        classes = np.where(border(scene.objects), VOID, scene.semantic.astype(np.int64))
        labels[number, :height, :width] = torch.from_numpy(classes)
    return images, labels


class Segmenter(nn.Module):
    """Images (B, 3, S, S) in [0, 1] -> logits (B, 27, S, S)."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(*convolution(3, 32, 5, 2), *convolution(32, 48, 3, 2))
        coarse = convolution(48, 96, 3, 2) + convolution(96, 96, 3, 1)
        self.coarse = nn.Sequential(*coarse, *convolution(96, 192, 3, 2), *convolution(192, 192, 3, 1))
        self.joined = nn.Sequential(*convolution(192 + 48, 96, 3, 1), nn.Conv2d(96, len(CLASSES), 1))

    def forward(self, images: Tensor) -> Tensor:
        fine = self.fine((images - 0.45) * 4)
        coarse = F.interpolate(self.coarse(fine), size=fine.shape[-2:], mode="bilinear")
        logits = self.joined(torch.cat([fine, coarse], dim=1))
        return F.interpolate(logits, size=images.shape[-2:], mode="bilinear")


def trained(images: Tensor, labels: Tensor, steps: int, seed: int, batch: int = 16) -> Segmenter:
    """A segmenter that has learnt the labels; half of the images are mirrored, all are a little lighter or darker."""
    torch.manual_seed(seed)
    source = np.random.default_rng(seed)
    model = Segmenter().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.15)
    for step in range(steps):
        rows = torch.from_numpy(source.integers(len(images), size=batch))
        light = torch.from_numpy(source.uniform(0.8, 1.2, (batch, 1, 1, 1))).float()
        shown, truth = (images[rows] / 255 * light).clamp(max=1), labels[rows]
        if source.random() < 0.5:
            shown, truth = shown.flip(3), truth.flip(2)
        loss = F.cross_entropy(model(shown.contiguous(memory_format=torch.channels_last)), truth, ignore_index=VOID)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"  step {step + 1}: loss {loss.item():.3f}", flush=True)
    return model.eval()


@torch.no_grad()
def scores(model: Segmenter, images: Tensor, labels: Tensor) -> Numbers:
    """mIoU over the classes of each card. Scene classes are named first, and then brought to those of the card."""
    named = torch.cat([model(some / 255).argmax(1) for some in images.split(32)]).numpy()
    truth, numbers = labels.numpy(), {}
    for card, table in card_classes().items():
        known = np.where(truth == VOID, VOID, table[truth])
        matrix = confusion(known, np.maximum(table[named], 0), int(table.max()) + 1)
        numbers[card] = float(miou_sem(matrix))
    return numbers


def measured(arguments: argparse.Namespace, seed: int, out: Path) -> Numbers:
    """The scores of the network of one seed."""

    def measure() -> Numbers:
        learnt = arrays(scenes(arguments.revision, "train", 0, arguments.labelled))
        model = trained(*learnt, arguments.steps, seed)
        return scores(model, *arrays(scenes(arguments.revision, "val", seed, arguments.scenes)))

    names = ("revision", "labelled", "scenes", "steps")
    return kept(out / f"seed{seed}.json", {name: getattr(arguments, name) for name in names}, measure)


def table(found: Sequence[Numbers]) -> str:
    """A Markdown table: mean over the seeds, and the values of the seeds."""
    lines = ["| card | supervised, mIoU |", "|---|---|"]
    for card in card_classes():
        values = [numbers[card] for numbers in found]
        lines.append(f"| `{card}` | **{np.mean(values):.3f}** ({', '.join(f'{value:.3f}' for value in values)}) |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--revision", type=int, default=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--labelled", type=int, default=1536, help="scenes of train from which classes are learnt")
    parser.add_argument("--scenes", type=int, default=256, help="scenes of val for each seed")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--out", type=Path, help="where measurements are kept; by default runs/worlds/things-r<N>")
    parser.add_argument("--write", type=Path, help="page whose table of this revision is replaced")
    arguments = parser.parse_args()
    name = f"things-r{arguments.revision}"
    out = arguments.out or Path("runs/worlds") / name
    with fixed_arithmetic(thread_count()):
        text = table([measured(arguments, seed, out) for seed in arguments.seeds])
    print(text)
    if arguments.write:
        replace_table(arguments.write, name, text)


if __name__ == "__main__":
    main()
