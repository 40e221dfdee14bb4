"""Nearest neighbours: the image, the images of the bank that are most like it, and how they vote."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
from pydantic import BaseModel, Field, FiniteFloat, model_validator

from ....cards.protocols import KnnProtocol
from ....core.errors import DataMissingError, SampleError
from ....core.types import Sample
from ....data import OpenData
from ....data.transforms import prepare
from ....evaluation.plan import open_train
from ....families.files import prediction_path
from ..encode import SIDE, image_text
from .base import Saved, Shown, pixels_and_truth, pixels_of, saved_json

TILE, TILE_QUALITY = 28, 40
"""Side in pixels and WebP quality of the pictures of neighbours: twenty of them are to take 5 kB."""


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
        """The neighbours that vote, the nearest first: class, cosine, share of the votes, whether right, pictures."""
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
            "strip": self._strip(found.positions),
        }

    def _strip(self, positions: Sequence[int]) -> dict[str, Any] | None:
        """The pictures of images of the bank side by side in one image, and which of them could be read."""
        tiles = [self._tile(position) for position in positions]
        known = [tile is not None for tile in tiles]
        if not any(known):
            return None
        empty = np.full((TILE, TILE, 3), 128, np.uint8)
        strip = np.hstack([empty if tile is None else tile for tile in tiles])
        size = (TILE, TILE * len(tiles))
        return {"image": image_text(strip, size, TILE_QUALITY), "side": TILE, "known": known}

    def _tile(self, position: int) -> np.ndarray | None:
        """An image of the bank as the model saw it, small; None where it cannot be read."""
        if self.bank is None or not 0 <= position < len(self.bank.ids):
            return None
        try:
            return pixels_of(prepare(self.bank.reader[position], self.task.protocol, TILE)[0])
        except SampleError:
            return None

    def _name(self, label: int | None) -> str:
        return "unknown" if label is None else self.data.categories.get(label, f"class {label}")
