"""Any metric of this package as a `torchmetrics.Metric`, for people's own training loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torchmetrics
from torch import Tensor

from . import EmptyRule, Metric, evaluate_table, mask_metric
from .contingency import OverlapRule, VoidRule, contingency
from .overlap import Categories


class MaskMetric(torchmetrics.Metric):
    """Mean of one metric over the valid images of all batches, equal for every batch size and number of ranks.

    >>> fg_ari = MaskMetric("fg_ari")
    >>> fg_ari.update(masks.argmax(1), truth)   # (B, H, W) labels each
    >>> fg_ari.compute()                        # float64 scalar; NaN while no image was valid

    `n_valid` is the number of images behind the mean. Soft masks raise UsageError.
    """

    is_differentiable = False
    full_state_update = False
    total: Tensor
    n_valid: Tensor

    def __init__(
        self,
        metric: str | Metric,
        *,
        background: int | None = 0,
        void: VoidRule = "drop",
        overlap: OverlapRule = "drop",
        empty: EmptyRule = "skip",
        **kwargs: Any,
    ) -> None:
        """Name a metric of `METRICS`; the rules are those of `compute`, `kwargs` go to `torchmetrics.Metric`."""
        super().__init__(**kwargs)
        self.metric = mask_metric(metric) if isinstance(metric, str) else metric
        self.background, self.empty = background, empty
        self.void, self.overlap = void, overlap
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("n_valid", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    @property
    def higher_is_better(self) -> bool:  # type: ignore[override]
        """False for distances such as `vi`."""
        return self.metric.direction > 0

    def update(self, prediction: Tensor, truth: Tensor, truth_categories: Categories | None = None) -> None:
        """Add a batch of label maps, (B, H, W) integers each; the prediction comes first, as in torchmetrics."""
        counts = contingency(truth, prediction, void=self.void, overlap=self.overlap)
        value, valid = evaluate_table(self.metric, counts, self.background, self.empty, truth_categories)
        self.total += float(np.sum(value[valid]))
        self.n_valid += int(valid.sum())

    def compute(self) -> Tensor:
        """Mean over all valid images so far, float64; NaN while there is none."""
        return self.total / self.n_valid
