"""Videos in memory of squares that slide on a plane, a task of visual prediction, and models whose slots know them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ocl_bench.cards.task import TaskSpec
from ocl_bench.core.types import Batch, Prediction, Sample, Truth, Video
from ocl_bench.data import OpenData

SIDE, SQUARE, COLOURS = 32, 6, ((230, 40, 40), (40, 40, 230))


def dynamics_task(**changes: Any) -> TaskSpec:
    """Four frames are predicted from the six before the cut after frame 8."""
    protocol: dict[str, Any] = {"input": SIDE, "score_at": SIDE, "rollout": 12, "clips": "last-seen", "seen": 8}
    content: dict[str, Any] = {
        "name": "tiny-dynamics",
        "version": 1,
        "family": "dynamics",
        "data": {"reader": "clevrer"},
        "fit": {"head": "rollouter", "steps": 60, "batch": 8, "learning_rates": [0.003]},
        "metrics": ["position_error", "position_error_1_5", "position_error_11_on", "slot_mse_rel", "fg_ari_future",
                    "mbo_future", "fg_ari_future_video", "mbo_future_video"],
        "main": "position_error",
    }  # fmt: skip
    changes["protocol"] = protocol | changes.get("protocol", {})
    return TaskSpec.model_validate(content | changes)


@dataclass(frozen=True)
class Sliding:
    """Reader of videos of two squares: red goes right, blue goes left, each at a constant speed of its own.

    late: frame in which the blue square comes into view; 0 shows it from the beginning. located: whether the truth has
    locations: column of the left edge / 10 and row / 10.
    """

    count: int
    frames: int = 20
    first: int = 0
    late: int = 0
    located: bool = True

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(f"video{number}" for number in range(self.first, self.first + self.count))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Video:
        number = self.first + index
        random = np.random.default_rng(number)
        speed, start = random.uniform(0.3, 1.0, 2), random.uniform(0, 4, 2)
        samples = [self._frame(f"video{number}", t, start, speed) for t in range(self.frames)]
        return Video(f"video{number}", samples, tuple(f"{t:05d}" for t in range(self.frames)))

    def _frame(self, name: str, t: int, start: np.ndarray, speed: np.ndarray) -> Sample:
        labels = np.zeros((SIDE, SIDE), np.int16)
        columns = np.array([start[0] + speed[0] * t, SIDE - SQUARE - start[1] - speed[1] * t])
        rows = np.array([4.0, 20.0])
        places = np.stack([columns, rows], axis=1) / 10
        for k in range(2):
            if k == 1 and t < self.late:
                places[k] = np.nan
                continue
            left = round(columns[k])
            labels[int(rows[k]) : int(rows[k]) + SQUARE, left : left + SQUARE] = k + 1
        image = np.array([(60, 60, 60), *COLOURS], np.uint8)[labels]
        return Sample(name, image, Truth(labels, locations=places if self.located else None))


def sliding(count: int, first: int = 0, **keywords: Any) -> OpenData:
    timing = keywords.pop("timing", {})
    reader = Sliding(count, first=first, **keywords)
    return OpenData(reader, "supplied", f"supplied-{first}", Path("."), reader.ids, "in memory", timing=timing)  # type: ignore[arg-type]


class Centres:
    """An image model: a slot holds the centre of its colour's pixels, what colour it is, and is decoded to a square."""

    decodes = True

    def predict(self, batch: Batch) -> Prediction:
        red, blue = batch.image[:, 0] > 0.5, batch.image[:, 2] > 0.5
        masks = torch.stack([~red & ~blue, red, blue], 1).float()
        rows, columns = torch.meshgrid(*(torch.arange(SIDE).float(),) * 2, indexing="ij")
        area = masks.sum((2, 3)).clamp_min(1)
        x, y = ((masks * grid).sum((2, 3)) / area for grid in (columns, rows))
        kind = torch.eye(3).expand(len(batch.image), 3, 3)
        slots = torch.cat([torch.stack([x, y], 2) / 10, kind], 2)
        return Prediction(masks=masks, mask_source="decoder", slots=slots)

    def decode_slots(self, slots: Tensor) -> Tensor:
        """The square around the centre of slots 1 and 2; the rest is slot 0."""
        rows, columns = torch.meshgrid(*(torch.arange(SIDE).float(),) * 2, indexing="ij")
        x, y = (slots[..., axis, None, None] * 10 for axis in (0, 1))
        inside = ((columns - x).abs() <= SQUARE / 2) & ((rows - y).abs() <= SQUARE / 2)
        inside = inside & (slots[..., 2] < 0.5)[..., None, None]
        return torch.where(slots[..., 2, None, None] > 0.5, (~inside.any(1, keepdim=True)).float(), inside.float())


class Straight(Centres):
    """The same, and every slot goes on in a straight line."""

    def predict_slots(self, slots: Tensor, steps: int) -> Tensor:
        step = torch.arange(1, steps + 1)[None, :, None, None]
        return slots[:, -1:] + step * (slots[:, -1:] - slots[:, :1]) / (slots.shape[1] - 1)
