"""Images with two rectangles each, in memory, and the card that detects them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from ocl_bench.cards.names import get_task
from ocl_bench.core.types import Instance, Sample, Truth
from ocl_bench.data import OpenData
from ocl_bench.data.base import SampleSequence

TASK = get_task("coco-detection")


class Rectangles(SampleSequence):
    """Images with two rectangles, 32 x 48."""

    ids = tuple(f"{number:012d}" for number in range(6))

    def __getitem__(self, index: int) -> Sample:
        generator = np.random.default_rng(index)
        labels, instances = np.zeros((32, 48), np.int16), []
        for number in (1, 2):
            y, x = generator.integers(0, 16), generator.integers(0, 28)
            labels[y : y + 12, x : x + 16] = number
        for number in (1, 2):
            code = coco_mask.encode(np.asfortranarray((labels == number).astype(np.uint8)))
            x, y, w, h = coco_mask.toBbox(code)
            instances.append(Instance(1, (x, y, x + w, y + h), code, float(coco_mask.area(code))))
        return Sample(self.ids[index], np.zeros((32, 48, 3), np.uint8), Truth(labels, (1, 1), None, tuple(instances)))


def rectangles() -> OpenData:
    reader = Rectangles()
    return OpenData(reader, "supplied", "supplied-1", Path("."), reader.ids, "", {1: "rectangle"})
