"""Scenes of rectangles with categories, in memory, and models that know them: for heads on slots and tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask

from ocl_bench.cards.task import TaskSpec
from ocl_bench.core.types import Batch, Instance, Prediction, Sample, Truth
from ocl_bench.data import OpenData

SHAPE = (48, 64)
CATEGORIES = (3, 17, 44, 90)
SLOTS = 8
"""Background, up to six objects, and one that owns nothing."""
GRID = (12, 16)


def box_mask(left: int, top: int, right: int, bottom: int, shape: tuple[int, int] = SHAPE) -> dict[str, Any]:
    mask = np.zeros(shape, np.uint8, order="F")
    mask[top:bottom, left:right] = 1
    code: dict[str, Any] = coco_mask.encode(mask)
    return code


def truth_of(number: int, objects: int | None = None) -> Truth:
    """Up to six rectangles in a grid of cells, of random sizes and categories; scene 0 of ten has none."""
    random = np.random.default_rng(number)
    count = number % 10 % 7 if objects is None else objects
    labels, instances = np.zeros(SHAPE, np.int16), []
    for label, cell in enumerate(random.permutation(6)[:count], start=1):
        row, column = divmod(int(cell), 3)
        width, height = (int(value) for value in random.integers((10, 12), (20, 22)))
        left, top = 21 * column + int(random.integers(0, 2)), 24 * row + int(random.integers(0, 2))
        labels[top : top + height, left : left + width] = label
        box = (left, top, left + width, top + height)
        category = CATEGORIES[int(random.integers(len(CATEGORIES)))]
        instances.append(Instance(category, tuple(map(float, box)), box_mask(*box), float(width * height)))  # type: ignore[arg-type]
    return Truth(labels, tuple(instance.category for instance in instances), instances=tuple(instances))


class SceneReader:
    """Scenes first .. first + count - 1; the images show nothing."""

    def __init__(self, count: int, first: int = 0) -> None:
        self.ids = tuple(f"{number:06d}" for number in range(first, first + count))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.ids[index], np.zeros((*SHAPE, 3), np.uint8), truth_of(int(self.ids[index])))


def scene_data(count: int, first: int = 0) -> OpenData:
    reader = SceneReader(count, first)
    names = {category: f"thing {category}" for category in CATEGORIES}
    revision = f"supplied-{first}"
    return OpenData(reader, "supplied", revision, Path("."), reader.ids, "in memory", names)  # type: ignore[arg-type]


def task(head: str, **protocol: Any) -> TaskSpec:
    recognition = head == "recognition"
    metrics = ["top1_all", "top1", "top3", "box_iou", "n_matched"] if recognition else ["probe_ap_mask", "probe_ap_box"]
    rate, steps = (0.01, 300) if head == "dense" else (0.03, 100)
    rates = [rate] if recognition else [rate, 1e-6]
    return TaskSpec.model_validate(
        {
            "name": f"tiny-{head}",
            "version": 1,
            "family": "recognition" if recognition else "detection",
            "data": {"reader": "coco"},
            "protocol": {"input": 16, "matching_iou": 0.1, **protocol},
            "fit": {"head": head, "learning_rates": rates, "steps": steps, "batch": 8, "hidden": 64},
            "metrics": metrics,
            "main": metrics[0],
        }
    )


class Knowing:
    """Slots and tokens that name the category and the box of what is there. `random`: they name nothing."""

    fingerprint = "knows the scenes"  # it has no arrays by which it could be known

    def __init__(self, *, random: bool = False, soft: bool = True) -> None:
        self.random = random
        self.soft = soft

    def predict(self, batch: Batch) -> Prediction:
        labels = torch.stack([torch.from_numpy(truth_of(int(name)).labels.astype(np.int64)) for name in batch.ids])
        slots = torch.stack([self.slots(truth_of(int(name)), int(name)) for name in batch.ids])
        tokens = torch.stack([self.tokens(truth_of(int(name)), int(name)) for name in batch.ids])
        masks = torch.nn.functional.one_hot(labels, SLOTS).permute(0, 3, 1, 2).float() if self.soft else labels
        return Prediction(masks=masks, mask_source="truth", slots=slots, tokens=tokens)

    def slots(self, truth: Truth, number: int) -> torch.Tensor:
        slots = torch.zeros(SLOTS, len(CATEGORIES) + 4)
        for k, instance in enumerate(truth.instances, start=1):
            slots[k, CATEGORIES.index(instance.category)] = 1
            slots[k, -4:] = torch.tensor(instance.box) / torch.tensor([64, 48, 64, 48])
        return torch.randn(slots.shape, generator=torch.Generator().manual_seed(number)) if self.random else slots

    def tokens(self, truth: Truth, number: int) -> torch.Tensor:
        """One-hot category and distances to the four sides at every token whose centre is inside."""
        tokens = torch.zeros(len(CATEGORIES) + 4, *GRID)
        y, x = torch.meshgrid((torch.arange(12) + 0.5) / 12, (torch.arange(16) + 0.5) / 16, indexing="ij")
        for instance in truth.instances:
            left, top, right, bottom = torch.tensor(instance.box) / torch.tensor([64, 48, 64, 48])
            inside = (x > left) & (x < right) & (y > top) & (y < bottom)
            tokens[CATEGORIES.index(instance.category)][inside] = 1
            sides = torch.stack([x - left, y - top, right - x, bottom - y])
            tokens[-4:, inside] = sides[:, inside]
        return torch.randn(tokens.shape, generator=torch.Generator().manual_seed(number)) if self.random else tokens
