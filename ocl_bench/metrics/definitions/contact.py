"""Metrics of contacts: shares of right answers at a fixed threshold, and at the threshold that suits the scored set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..metric import Metric
from ..of_set import Accumulated, SumRatio, Total
from ..statistics_of_set import Statistic

if TYPE_CHECKING:
    import pandas

_FAMILY = ("contact",)
_PHYSION = "Bear et al., Physion, NeurIPS 2021, arXiv:2106.08261; Wu et al., SlotFormer, ICLR 2023, arXiv:2210.05861"
_NONE = "not defined without a question; videos without one do not count"

THRESHOLDS = (0.4, 0.45, 0.5, 0.55, 0.6, 0.65)
"""Thresholds from which the official evaluation of SlotFormer takes the best one on the test set."""


def right_at(threshold: float) -> str:
    """Name of the column of right answers at a threshold."""
    return f"n_contact_right_at_{round(100 * threshold)}"


def _best(rows: pandas.DataFrame, name: str, protocol: Any) -> Statistic:
    """The largest share of right answers at one of the `THRESHOLDS`."""
    del name, protocol
    asked = rows["n_contact"].to_numpy(np.float64)
    right = rows[[right_at(one) for one in THRESHOLDS]].to_numpy(np.float64)

    def statistic(weights: np.ndarray) -> np.ndarray:
        count = weights @ asked
        best = (weights @ right).max(axis=1)
        return np.divide(best, count, out=np.full(len(weights), np.nan), where=count > 0)

    return statistic


DEFINITIONS = (
    Metric(
        "contact_accuracy",
        _FAMILY,
        "share of right answers to whether two objects touch after the cut",
        formula="right answers / questions; an answer is yes if its probability exceeds protocol.threshold",
        edge_cases=_NONE,
        source=_PHYSION,
        of_set=SumRatio("n_contact_right", "n_contact"),
        head=True,
    ),
    Metric(
        "contact_accuracy_best_on_test",
        _FAMILY,
        "the same at the threshold that is best on the scored set, which is optimistic",
        formula=f"largest share of right answers at a threshold of {', '.join(map(str, THRESHOLDS))}",
        edge_cases=f"{_NONE}; the official number is also the best over epochs and seeds, which are not searched here",
        source="pairlab/SlotFormer, commit 10a6d9b, test_physion_vqa.py",
        of_set=Accumulated(_best, lambda rows, name: rows["n_contact"] > 0),
        head=True,
    ),
    Metric(
        "n_contact",
        _FAMILY,
        "number of questions",
        high=float("inf"),
        formula="questions about contacts",
        edge_cases="always valid",
        source="ours",
        of_set=Total(),
        head=True,
    ),
)
