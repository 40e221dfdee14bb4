"""Any mask metric of this package as a `torchmetrics.Metric`, for training loops. Importing it needs torchmetrics."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import UsageError
from ..core.optional import import_optional
from . import EmptyRule, Metric, evaluate_table, mask_metric
from .contingency import Contingency, OverlapRule, VoidRule, contingency
from .ignored import IgnoreIndex
from .overlap import Categories

if TYPE_CHECKING:
    import torchmetrics
else:
    torchmetrics = import_optional("torchmetrics", "torchmetrics", __name__)


@dataclass(frozen=True)
class _Counted:
    """The table of a batch, with the label maps and the rules that it is of."""

    truth: Tensor
    prediction: Tensor
    rules: dict[str, Any]
    counts: Contingency

    def is_of(self, truth: Tensor, prediction: Tensor, rules: dict[str, Any]) -> bool:
        """Whether the maps and the rules are the same. Contents are compared: maps may be changed in place."""
        maps = ((self.truth, truth), (self.prediction, prediction))
        return self.rules == rules and all(
            one.device == other.device and one.dtype == other.dtype and torch.equal(one, other) for one, other in maps
        )


class MaskMetric(torchmetrics.Metric):
    """Mean of one metric over the valid images of all batches, equal for every batch size and number of ranks.

    `n_valid` is the number of images behind the mean. Soft masks raise UsageError: take `masks.argmax(1)` first. In a
    `MetricCollection`, which names the metrics of a list by themselves, all metrics share one count of the pixels.

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
    _counted: _Counted | None = None

    def __new__(cls, metric: str | Metric, *_: Any, **__: Any) -> MaskMetric:
        """An instance of a class with the name of the metric: torchmetrics names what is in a list by its class."""
        return super().__new__(_class_of(metric if isinstance(metric, str) else metric.name))

    def __reduce__(self) -> tuple[Any, ...]:
        return MaskMetric.__new__, (MaskMetric, self.metric), self.__getstate__()

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
        # Collections let metrics share all states when these are equal after the first batch, as they are where two
        # metrics are both 1. A state of a name of its own keeps a metric apart from all but its equals.
        self.add_state(f"of {self!r}", torch.zeros(()), dist_reduce_fx="sum")

    @property
    def higher_is_better(self) -> bool:  # type: ignore[override]
        """False for distances such as `vi`."""
        return self.metric.direction > 0

    def __repr__(self) -> str:
        rules = ("background", "void", "overlap", "empty", "ignore_index")
        return f"MaskMetric({', '.join([repr(self.metric.name), *(f'{k}={getattr(self, k)!r}' for k in rules)])})"

    def update(
        self,
        *,
        truth: Tensor | None = None,
        prediction: Tensor | None = None,
        target: Tensor | None = None,
        preds: Tensor | None = None,
        truth_categories: Categories | None = None,
    ) -> None:
        """Add a batch of label maps, (B, H, W) integers each, by name only.

        In this package the truth comes first and in torchmetrics the prediction does: maps that change places would
        give a number without an error.

        Args:
            truth, prediction: the maps; `target` and `preds` are torchmetrics' names for them, and are not read where
                a map is given by its own name.
            target, preds: see above.
            truth_categories: see `compute`; only `mbo_class` needs them.

        Raises:
            UsageError: for what is missing or is no label map.
        """
        truth = target if truth is None else truth
        prediction = preds if prediction is None else prediction
        if truth is None or prediction is None:
            raise UsageError("MaskMetric.update: give truth= and prediction=, or target= and preds=")
        counts = self._table(truth, prediction)
        value, valid = evaluate_table(self.metric, counts, self.background, self.empty, truth_categories)
        self.total += float(np.sum(value[valid]))
        self.n_valid += int(valid.sum())

    def _table(self, truth: Tensor, prediction: Tensor) -> Contingency:
        """The table of the maps. The last one is kept for the other metrics of a collection."""
        rules: Any = {"void": self.void, "overlap": self.overlap, "ignore_index": self.ignore_index}
        last = MaskMetric._counted
        if last is None or not last.is_of(truth, prediction, rules):
            counts = contingency(truth, prediction, **rules)
            last = _Counted(truth.clone(), prediction.clone(), rules, counts)
            MaskMetric._counted = last
        return last.counts

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Draw the mean, or values of `compute` over time, as other torchmetrics do; needs matplotlib.

        Args:
            val: what to draw in place of the mean: a value, or a list of values.
            ax: axes of matplotlib; by default new ones.

        Returns:
            The figure and the axes.
        """
        return self._plot(val, ax)

    def compute(self) -> Tensor:
        """Mean over all valid images so far, a float64 scalar; NaN before the first one."""
        return self.total / self.n_valid


@cache
def _class_of(name: str) -> type[MaskMetric]:
    """`MaskMetric` under the name of a metric."""
    return type(name, (MaskMetric,), {"__module__": __name__, "__doc__": MaskMetric.__doc__})
