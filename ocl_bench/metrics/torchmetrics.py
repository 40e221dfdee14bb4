"""Any mask metric of this package as a `torchmetrics.Metric`, for use in training loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torchmetrics
from torch import Tensor

from . import EmptyRule, Metric, evaluate_table, mask_metric
from .contingency import OverlapRule, VoidRule, contingency
from .ignored import IgnoreIndex
from .overlap import Categories


class MaskMetric(torchmetrics.Metric):
    """Mean of one metric over the valid images of all batches, equal for every batch size and number of ranks.

    `n_valid` is the number of images behind the mean. Soft masks raise UsageError: take `masks.argmax(1)` first.

    Args:
        metric: a name of `METRICS`, or a metric.
        background: truth label that is not an object, see `compute`; likewise `void`, `overlap`, `empty` and
            `ignore_index`.
        **kwargs: go to `torchmetrics.Metric`.

    Example:
        >>> mbo_fg = MaskMetric("mbo_fg")
        >>> truth, slots = torch.tensor([[[0, 1, 1], [0, 2, 2]]]), torch.tensor([[[0, 1, 1], [1, 2, 2]]])
        >>> mbo_fg.update(truth=truth, prediction=slots)
        >>> round(mbo_fg.compute().item(), 3), mbo_fg.n_valid.item()
        (0.833, 1)
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
        ignore_index: IgnoreIndex = "auto",
        **kwargs: Any,
    ) -> None:
        """Start without images."""
        super().__init__(**kwargs)
        self.metric = mask_metric(metric) if isinstance(metric, str) else metric
        self.background, self.empty = background, empty
        self.void, self.overlap, self.ignore_index = void, overlap, ignore_index
        # Sum and count are reduced over ranks, so the mean weighs every image alike, however ranks share them.
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("n_valid", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    @property
    def higher_is_better(self) -> bool:  # type: ignore[override]
        """False for distances such as `vi`."""
        return self.metric.direction > 0

    def update(self, *, truth: Tensor, prediction: Tensor, truth_categories: Categories | None = None) -> None:
        """Add a batch of label maps, (B, H, W) integers each, by name only.

        In this package the truth comes first and in torchmetrics the prediction does: maps that change places would
        give a number without an error.
        """
        rules: Any = {"void": self.void, "overlap": self.overlap, "ignore_index": self.ignore_index}
        counts = contingency(truth, prediction, **rules)
        value, valid = evaluate_table(self.metric, counts, self.background, self.empty, truth_categories)
        self.total += float(np.sum(value[valid]))
        self.n_valid += int(valid.sum())

    def compute(self) -> Tensor:
        """Mean over all valid images so far, a float64 scalar; NaN before the first one."""
        return self.total / self.n_valid
