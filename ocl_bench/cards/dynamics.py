"""The protocol of visual prediction: which clip of a video counts, how far is predicted, and what is compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from ..core.errors import UsageError
from ..metrics.definitions.dynamics import HORIZONS
from .protocols import Fit, Protocol, only_drop


class DynamicsProtocol(Protocol):
    """The protocol of visual prediction.

    Attributes:
        burn_in: frames that are seen before the first prediction.
        rollout: frames that are predicted.
        stride: frames of the video from one frame of the clip to the next.
        clips: `no-entry` takes the first start at which no object comes into view after the third frame of the clip,
            and leaves out videos without one (SlotFormer); `last-seen` lets the burn-in end with frame `seen` of every
            video.
        seen: frames of a video before the cut, for `last-seen`.
        unseen: `drop` leaves the pixels of objects out that no frame of the burn-in shows, since nobody can predict
            them; `count` keeps them.
        undecided: a pixel whose largest mask is below 0.5 goes to that mask (`argmax`), or to the slot whose mask has
            the smallest maximum (`background-slot`, SlotFormer).
        rollouter: size of the fitted rollouter, see `models.slotformer.SIZES`.
    """

    unit: ClassVar[Literal["images", "videos"]] = "videos"
    heads: ClassVar[tuple[str | None, ...]] = ("rollouter",)

    burn_in: int = Field(default=6, ge=2, le=1000)
    rollout: int = Field(ge=1, le=1000)
    stride: int = Field(default=1, ge=1, le=1000)
    clips: Literal["no-entry", "last-seen"]
    seen: int | None = Field(default=None, ge=1)
    unseen: Literal["drop", "count"] = "drop"
    undecided: Literal["argmax", "background-slot"] = "argmax"
    rollouter: Literal["embedded", "obj3d", "clevrer", "physion"] = "embedded"

    _void_is_dropped = field_validator("void")(only_drop)

    @property
    def frames(self) -> int:
        """Frames of a clip."""
        return self.burn_in + self.rollout

    def check(self, family: str, fit: Fit | None) -> None:
        """Check the head as all families do, and that `seen` is there where it is needed."""
        super().check(family, fit)
        if (self.clips == "last-seen") != (self.seen is not None):
            raise UsageError(f"protocol.seen: clips: {self.clips} {'needs it' if self.seen is None else 'has no cut'}")

    def check_metrics(self, metrics: Sequence[str]) -> None:
        """Raise UsageError for a metric of steps that are not predicted."""
        for name in metrics:
            for end, (first, _) in HORIZONS.items():
                if name.endswith(f"_{end}") and first > self.rollout:
                    raise UsageError(f"metrics: '{name}' is of step {first} and later, protocol.rollout {self.rollout}")

    def signature(self, source: str, options: Mapping[str, Any]) -> list[str]:
        """The clip, where masks, dynamics and decoded masks come from, and the rules."""
        masks, *rest = source.split(",")
        cut = [] if self.seen is None else [f"seen:{self.seen}"]
        clip = [f"burn-in:{self.burn_in}", f"rollout:{self.rollout}", f"stride:{self.stride}", f"clips:{self.clips}"]
        return [*self._seen(masks, options), *rest, *clip, *cut, *self._rules(source)]

    def _rules(self, source: str) -> list[str]:
        rules = [f"unseen:{self.unseen}", f"undecided:{self.undecided}", f"rollouter:{self.rollouter}"]
        return [*super()._rules(source), *rules]
