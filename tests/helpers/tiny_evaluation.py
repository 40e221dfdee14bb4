"""A tiny task, data in memory and models for the tests of whole evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ocl_bench.cards.task import TaskSpec
from ocl_bench.core.errors import SampleError
from ocl_bench.core.types import Batch, Prediction, Sample, Truth
from ocl_bench.data import OpenData
from ocl_bench.evaluation.plan import Plan, make_plan

SIZE = 16


STAND_IN = {"scenes": "clevrtex", "variant": "full", "revision": 1, "samples": 512}
"""What the card says about embedded data; `memory_data` passes for it."""


def tiny_task(**changes: Any) -> TaskSpec:
    content = {
        "name": "tiny",
        "version": 1,
        "family": "discovery",
        "data": {"reader": "clevrtex", "stand_in": STAND_IN},
        "protocol": {"input": SIZE, "score_at": SIZE},
        "metrics": ["mbo_fg", "ari", "fg_ari", "fg_ari_multi"],
        "main": "mbo_fg",
        **changes,
    }
    return TaskSpec.model_validate(content)


class MemoryReader:
    """Images with one or two rectangles, made on demand. `broken`: ids that cannot be read."""

    def __init__(self, count: int, broken: tuple[int, ...] = (), order: list[int] | None = None) -> None:
        self.numbers = order if order is not None else list(range(count))
        self.ids = tuple(f"s{number:04d}" for number in self.numbers)
        self.broken = broken
        self.reads: list[int] = []

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        number = self.numbers[index]
        self.reads.append(number)
        if number in self.broken:
            raise SampleError(self.ids[index], "image cannot be read; repair the file")
        generator = np.random.default_rng(number)
        labels = np.zeros((SIZE, SIZE), np.int16)
        for label in range(1, 2 + number % 2):
            y, x = generator.integers(0, SIZE - 5, 2)
            labels[y : y + 5, x : x + 5] = label
        image = generator.integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
        return Sample(self.ids[index], image, Truth(labels))


def memory_data(count: int = 10, **keywords: Any) -> OpenData:
    reader = MemoryReader(count, **keywords)
    return OpenData(reader, "embedded", "embedded-r1-00000000", Path("."), reader.ids, "data: in memory")  # type: ignore[arg-type]


class SlotModel(torch.nn.Module):
    """Convolution, noisy slots and attention: the operations whose sums could depend on the batch."""

    def __init__(self, slots: int = 4) -> None:
        super().__init__()
        self.slots = slots
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.convolution = torch.nn.Conv2d(3, 24, 5, padding=2)
            self.query = torch.nn.Linear(24, 24)

    def predict(self, batch: Batch) -> Prediction:
        features = self.convolution(batch.image).relu()[:, :, ::2, ::2]
        queries = self.query(batch.noise(self.slots, 24).to(features.device))
        logits = torch.einsum("bkd,bdhw->bkhw", queries, features)
        return Prediction(masks=logits.softmax(1), mask_source="attention")


def build(slots: int = 4) -> SlotModel:
    """So that `tiny_evaluation.py:build` is a model."""
    return SlotModel(slots)


HERE = f"{Path(__file__)}:build"


def tiny_plan(model: Any = HERE, count: int = 10, **keywords: Any) -> Plan:
    data = keywords.pop("data", None) or memory_data(count)
    task = keywords.pop("task", None) or tiny_task()
    return make_plan(model, task, data=data, device="cpu", batch_size=keywords.pop("batch_size", 4), **keywords)
