"""What a metric is: one object with name, direction, range, meaning, and how a set's number comes from rows."""

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
        families: of the tasks that may ask for it.
        meaning: one line, as tables print it.
        direction: 1 when higher is better, -1 when lower is.
        low, high: range of the value.
        best: the value of a perfect prediction.
        formula: how it is computed, in plain text.
        edge_cases: where it is not defined, and what happens then.
        source: paper or code in which it was defined.
        of_set: how the number of a set comes from the rows of its images or videos.
        head: True where it needs a head that is fitted (field `fit` of the card), False where there must be none, None
            where it does not matter.
        function: `(contingency, background) -> Scores`, for metrics of label maps; None for others.
        by_category: `function` also takes the categories of the truth objects.
        selects: the metric leaves images out on purpose, so that the rule `empty: one` does not bring them back.
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
        """Whether the number of a set is the mean of what each image or video has."""
        weighted: Any = getattr(self.of_set, "by", "")
        return isinstance(self.of_set, Mean) or weighted is None

    def to_dict(self) -> dict[str, Any]:
        """Its definition, ready for JSON: infinite ends of the range are null, the rule of a set is a sentence."""
        ends = {name: value if math.isfinite(value) else None for name, value in self._numbers.items()}
        texts = {name: getattr(self, name) for name in ("name", "meaning", "formula", "edge_cases", "source")}
        return {**texts, "families": list(self.families), **ends, "head": self.head, "of_set": self.of_set.text}

    @property
    def _numbers(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in ("direction", "low", "high", "best")}

    @property
    def range(self) -> str:
        """The range as text: `0 to 1`, `-1 to 1`, `0 or more`, `unbounded`."""
        if math.isinf(self.low) and math.isinf(self.high):
            return "unbounded"
        return f"{self.low:g} or more" if math.isinf(self.high) else f"{self.low:g} to {self.high:g}"
