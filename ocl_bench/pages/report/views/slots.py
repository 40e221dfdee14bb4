"""Recognition: segments, and for each object what the probe says about its slot."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import BaseModel, FiniteFloat

from ....cards.protocols import RecognitionProtocol
from ....core.errors import SampleError
from ....core.types import Sample
from ....data.transforms import prepare
from ....evaluation.supplied.label_maps import read_prediction
from ....families.files import prediction_path
from ....families.heads.matching import box_iou, labelled_objects
from .base import Saved, saved_json
from .segments import Masks


class SavedSlot(BaseModel):
    """What `Recognition.write` keeps of a slot: three categories, the best first, and a box."""

    categories: list[int]
    box: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]


class Slots(Masks):
    """Images with segments and the names of their slots."""

    def answer(self, sample: Sample, saved: Saved) -> dict[str, Any]:
        """The segments, and of each object: true name, slot, three names, place of the true one (0: none), box IoU."""
        path = prediction_path(saved.folder, sample.id, saved.seed)
        slots = saved_json(path.with_suffix(".json"), sample.id, list[SavedSlot])
        segments = read_prediction(path, sample, self.task)
        if int(segments.max()) >= len(slots):
            raise SampleError(sample.id, f"{path}: has slot {int(segments.max())} of {len(slots)}; evaluate again")
        truth = prepare(sample, self.task.protocol, 8)[1]  # 8: side of the image, which is not used
        protocol = self.task.protocol
        assert isinstance(protocol, RecognitionProtocol)
        objects = labelled_objects(truth, segments, len(slots), protocol)
        of_slot = dict(zip(*(part.tolist() for part in objects.matched(protocol.matching_iou)), strict=True))
        recognised: list[list[Any]] = []
        for place, category in enumerate(objects.categories.tolist()):
            if (slot := of_slot.get(place)) is None:
                recognised.append([self._name(category), None, [], 0, None])
                continue
            named = slots[slot].categories
            overlap = box_iou(np.array([slots[slot].box]), objects.boxes[place][None])[0]
            rank = named.index(category) + 1 if category in named else 0
            recognised.append(
                [self._name(category), slot, [self._name(one) for one in named], rank, round(float(overlap), 3)]
            )
        return {**super().answer(sample, saved), "recognised": recognised}

    def _name(self, category: int) -> str:
        return self.data.categories.get(category, str(category))
