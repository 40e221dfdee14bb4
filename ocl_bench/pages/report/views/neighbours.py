"""Nearest neighbours: the image, the images of the bank that are most like it, and how they vote."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, Self

from pydantic import BaseModel, Field, FiniteFloat, model_validator

from ....cards.protocols import KnnProtocol
from ....core.errors import DataMissingError, SampleError
from ....core.types import Sample
from ....data import OpenData
from ....evaluation.plan import open_train
from ....families.files import prediction_path
from ..encode import SIDE
from .base import Saved, Shown, pixels_and_truth, saved_json

PICTURES, PICTURE_SIDE = 5, 48
"""Neighbours with a picture, and its side in pixels; of the others the page has the class and the cosine."""


class SavedNeighbours(BaseModel):
    """What `Knn.write` keeps of an image, see `families.knn.Explanation`."""

    predicted: int
    positions: list[int]
    labels: list[int] = Field(min_length=1)
    similarity: list[FiniteFloat]

    @model_validator(mode="after")
    def _equally_long(self) -> Self:
        if not len(self.positions) == len(self.labels) == len(self.similarity):
            raise ValueError("positions, labels and similarity differ in length")
        return self


class Neighbours(Shown):
    """Images with a class, and their neighbours."""

    @cached_property
    def bank(self) -> OpenData | None:
        """The split from which the bank was made; None where it is not at hand."""
        try:
            return open_train(self.task, self.data, self.root, progress=False, verify=False)
        except DataMissingError:
            return None

    def scene(self, sample: Sample) -> dict[str, Any]:
        """The image and its class."""
        image, shape, truth = pixels_and_truth(sample, self.task, SIDE)
        return {"size": shape, "image": image, "label": self._name(truth.label), "names": []}

    def answer(self, sample: Sample, saved: Saved) -> dict[str, Any]:
        """The neighbours, the nearest first: class, cosine, share of the votes, whether right, and a few pictures."""
        path = prediction_path(saved.folder, sample.id, saved.seed, ".json")
        found = saved_json(path, sample.id, SavedNeighbours)
        protocol = self.task.protocol
        assert isinstance(protocol, KnnProtocol)
        # Shares do not change when all cosines fall by as much, and exp cannot overflow then.
        votes = [math.exp((cosine - max(found.similarity)) / protocol.temperature) for cosine in found.similarity]
        neighbours = [
            [self._name(label), round(cosine, 4), round(vote / sum(votes), 4), int(label == sample.truth.label)]
            for label, cosine, vote in zip(found.labels, found.similarity, votes, strict=True)
        ]
        return {
            "predicted": self._name(found.predicted),
            "right": found.predicted == sample.truth.label,
            "neighbours": neighbours,
            "pictures": [self._picture(position) for position in found.positions[:PICTURES]],
        }

    def _picture(self, position: int) -> list[Any] | None:
        """Picture, height and width of an image of the bank; None where it cannot be read."""
        if self.bank is None or not 0 <= position < len(self.bank.ids):
            return None
        try:
            image, shape, _ = pixels_and_truth(self.bank.reader[position], self.task, PICTURE_SIDE)
        except SampleError:
            return None
        return [image, *shape]

    def _name(self, label: int | None) -> str:
        return "unknown" if label is None else self.data.categories.get(label, f"class {label}")
