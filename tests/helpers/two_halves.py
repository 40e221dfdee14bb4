"""A model of two masks that are the same everywhere, for files of models that import another one."""

from __future__ import annotations

from ocl_bench.core.types import Batch, Prediction


class Halves:
    def predict(self, batch: Batch) -> Prediction:
        half = batch.image[:, :1] * 0 + 0.5
        return Prediction(masks=half.repeat(1, 2, 1, 1), mask_source="decoder")
