"""The definition of a metric: name, direction, range, meaning, and how the number of a set comes from its rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from .of_set import Mean, OfSet

Scores = tuple[np.ndarray, np.ndarray]
"""Value (B,) float64 and validity (B,) bool of each image."""

HIGHER: Literal[1] = 1
LOWER: Literal[-1] = -1


@dataclass(frozen=True)
class Metric:
    """A metric of one or several task families.

    Attributes:
        name: as task cards write it. It states its pixels and its matching; there is no bare "mIoU".
        families: families whose tasks may ask for it.
        meaning: one line, as tables print it.
        direction: 1 when higher is better, -1 when lower is.
        low: smallest possible value; -inf without a bound.
        high: largest possible value; inf without a bound.
        best: value of a perfect prediction.
        formula: how it is computed, in plain text.
        edge_cases: where it is not defined, and what happens then.
        source: paper or code that defines it.
        of_set: rule that makes the number of a set from the rows of its images or videos.
        head: True when it needs a fitted head (field `fit` of the card), False when there must be none, None when it
            does not matter.
        function: `(contingency, background) -> Scores`, for metrics of label maps; None for others.
        by_category: whether `function` also takes the categories of the truth objects.
        selects: whether the metric leaves images out on purpose. The rule `empty: one` does not bring them back.
    """

    name: str
    families: tuple[str, ...]
    meaning: str
    direction: Literal[1, -1] = HIGHER
    low: float = 0.0
    high: float = 1.0
    best: float = 1.0
    formula: str = ""
    edge_cases: str = ""
    source: str = ""
    of_set: OfSet = field(default_factory=Mean)
    head: bool | None = None
    function: Callable[..., Scores] | None = None
    by_category: bool = False
    selects: bool = False

    @property
    def is_mean(self) -> bool:
        """Whether the number of a set is the plain mean of the values of its images or videos."""
        weighted: Any = getattr(self.of_set, "by", "")  # None for `Weighted` with equal weights, "" for other rules
        return isinstance(self.of_set, Mean) or weighted is None

    def to_dict(self) -> dict[str, Any]:
        """The definition, ready for JSON: infinite ends of the range are null, the rule of a set is a sentence."""
        ends = {name: value if math.isfinite(value) else None for name, value in self._numbers.items()}
        texts = {name: getattr(self, name) for name in ("name", "meaning", "formula", "edge_cases", "source")}
        return {**texts, "families": list(self.families), **ends, "head": self.head, "of_set": self.of_set.text}

    @property
    def _numbers(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in ("direction", "low", "high", "best")}

    @property
    def range(self) -> str:
        """The range as text.

        Example:
            >>> Metric("vi", ("discovery",), "", high=math.inf).range
            '0 or more'
            >>> Metric("ari", ("discovery",), "", low=-1).range
            '-1 to 1'
        """
        if math.isinf(self.low) and math.isinf(self.high):
            return "unbounded"
        return f"{self.low:g} or more" if math.isinf(self.high) else f"{self.low:g} to {self.high:g}"
