"""Images with every kind of annotation, a model with every field, and a small task of each family of images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask

from ocl_bench.cards.task import TaskSpec
from ocl_bench.core.types import Batch, Instance, Prediction, Sample, Truth
from ocl_bench.data import OpenData

SIDE, SLOTS = 16, 3
FIELDS = ("masks", "slots", "tokens", "embedding")

_FIT = {"learning_rates": [0.1], "steps": 5, "batch": 4}
_CARDS: dict[str, dict[str, Any]] = {
    "discovery": {"metrics": ["mbo_fg"]},
    "detection": {"metrics": ["ar100_mask"]},
    "slot": {
        "family": "detection",
        "metrics": ["probe_ap_mask"],
        "fit": {"head": "slot", "hidden": 8, **_FIT},
        "protocol": {"matching_iou": 0.1},
    },
    "dense": {
        "family": "detection",
        "metrics": ["probe_ap_mask"],
        "fit": {"head": "dense", "hidden": 8, **_FIT},
        "protocol": {"matching_iou": 0.1},
    },
    "recognition": {
        "metrics": ["top1_all"],
        "fit": {"head": "recognition", "hidden": 8, **_FIT},
        "protocol": {"matching_iou": 0.1},
    },
    "linear": {
        "family": "segmentation",
        "metrics": ["miou_sem"],
        "fit": {"head": "linear", "at": 8, **_FIT},
        "protocol": {"classes": 2},
    },
    "kmeans": {
        "family": "segmentation",
        "metrics": ["miou_sem"],
        "fit": {"head": "kmeans", "at": 8, **_FIT},
        "protocol": {"classes": 2},
    },
    "knn": {"metrics": ["knn_top1"], "fit": {"head": "bank"}, "protocol": {"temperature": 0.07}},
}
CASES = tuple(_CARDS)
"""Names of the tasks: families, or heads where a family has several."""
FITTED = tuple(name for name, card in _CARDS.items() if "fit" in card)


def small_task(case: str) -> TaskSpec:
    """The task of a case."""
    card = _CARDS[case]
    protocol = {"input": SIDE, **card.get("protocol", {})}
    family = {"family": card.get("family", case), "data": {"reader": "coco"}, "main": card["metrics"][0]}
    return TaskSpec.model_validate({"name": f"small-{case}", "version": 1, **family, **card, "protocol": protocol})


class Annotated:
    """Images with one rectangle of category 1 or 2, which is also the class of its pixels and the label."""

    def __init__(self, count: int, first: int = 0) -> None:
        self.numbers = range(first, first + count)
        self.ids = tuple(f"image{number:03d}" for number in self.numbers)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        number = self.numbers[index]
        random = np.random.default_rng(number)
        x, y = (int(value) for value in random.integers(0, SIDE - 8, 2))
        inside = np.zeros((SIDE, SIDE), np.uint8, order="F")
        inside[y : y + 8, x : x + 8] = 1
        kind = number % 2
        box = (float(x), float(y), x + 8.0, y + 8.0)
        instance = Instance(kind + 1, box, coco_mask.encode(inside), 64.0)
        image = random.integers(0, 90, (SIDE, SIDE, 3)).astype(np.uint8)
        image[inside > 0, kind] += 150
        truth = Truth(inside.astype(np.int16), (kind + 1,), (inside * kind).astype(np.int16), (instance,), kind)
        return Sample(self.ids[index], image, truth)


def annotated(count: int, first: int = 0) -> OpenData:
    """Data of `Annotated`."""
    reader = Annotated(count, first)
    names = {1: "one", 2: "two"}
    return OpenData(reader, "supplied", f"supplied-{first}", Path("."), reader.ids, "in memory", names)  # type: ignore[arg-type]


class Everything:
    """Gives every field. `spoil`: changes the prediction of a batch that holds the sample `bad`."""

    def __init__(self, bad: str = "", fault: str = "") -> None:
        self.bad, self.fault, self.calls = bad, fault, 0

    def predict(self, batch: Batch) -> Prediction:
        self.calls += 1
        tokens = torch.nn.functional.avg_pool2d(batch.image, 2)
        masks = torch.cat([tokens[:, :2], 0.4 * torch.ones_like(tokens[:, :1])], 1)
        slots = torch.einsum("bkhw,bdhw->bkd", masks, tokens)
        found = Prediction(
            masks=masks, mask_source="decoder", slots=slots, tokens=tokens, embedding=tokens.mean((2, 3))
        )
        rows = [position for position, sample_id in enumerate(batch.ids) if sample_id == self.bad]
        return spoiled(found, rows, self.fault) if rows else found


FAULTS = ("raises", "NaN", "shape", "width", "exits")


def spoiled(found: Prediction, rows: list[int], fault: str) -> Prediction:
    """What a model gives for a batch with a bad sample at `rows`. width: tensors that do not fit those of others."""
    if fault == "raises":
        raise ValueError("cannot segment this\nat all")
    if fault == "exits":
        raise SystemExit(0)
    fields = {name: getattr(found, name) for name in FIELDS if getattr(found, name) is not None}
    if fault == "shape":
        return replace(found, **{name: value[..., None, None] for name, value in fields.items()})
    if fault == "width":
        return replace(found, **{name: torch.cat([value] * 2, 1)[:, :, ..., None] for name, value in fields.items()})
    changed = {}
    for name, value in fields.items():
        changed[name] = value.clone()
        changed[name][rows] = torch.nan
    return replace(found, **changed)
