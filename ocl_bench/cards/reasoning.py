"""The protocol of questions about videos, and of the head that answers them from slots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from ..core.errors import UsageError
from .protocols import Fit, Protocol

ANSWERS = "answers"
"""Origin of the output of a model that answers by itself."""


class ReasoningProtocol(Protocol):
    """The protocol of questions about videos: answers are matched by question id, and missing ones are wrong.

    Attributes:
        seen: frames of a video that a model sees; a head on slots needs it.
        aloe: size of that head, see `models.aloe.SIZES`.
    """

    unit: ClassVar[Literal["images", "videos"]] = "videos"
    heads: ClassVar[tuple[str | None, ...]] = (None, "aloe")
    asks: ClassVar[bool] = True

    seen: int | None = Field(default=None, ge=1)
    aloe: Literal["embedded", "clevrer"] = "embedded"

    def check(self, family: str, fit: Fit | None) -> None:
        """Check the head as all families do, and that `seen` comes with it."""
        super().check(family, fit)
        if fit is not None and self.seen is None:
            raise UsageError("protocol.seen: is missing; a head needs the number of frames, 128 in CLEVRER")

    def scores_head(self, source: str) -> bool:
        """Whether the head answers: not for a model that answers by itself."""
        return source != ANSWERS

    def signature(self, source: str, options: Mapping[str, Any]) -> list[str]:
        """What is scored, the two rules, and what the head reads."""
        head = [f"seen:{self.seen}", f"aloe:{self.aloe}"] if self.scores_head(source) else []
        return [f"from:{source}", "match:id", "missing:wrong", *head]
