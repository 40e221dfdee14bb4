"""The protocol of contacts: which objects are asked about, and when an answer is yes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from .dynamics import DynamicsProtocol


class ContactProtocol(DynamicsProtocol):
    """The protocol of contacts after the cut. The clip is that of visual prediction.

    Attributes:
        pairs: `asked` asks about single pairs of objects, as many that touch first after the cut as that never touch;
            the readout sees the two slots that show them in the burn-in. `all` asks once for each video, whose truth
            says whether two objects touch that have the same part in every video; the readout sees all pairs of slots
            (Physion).
        threshold: an answer is yes if its probability exceeds it. It is fixed before anything is scored.
    """

    heads: ClassVar[tuple[str | None, ...]] = ("contact",)

    pairs: Literal["asked", "all"]
    threshold: float = Field(default=0.5, gt=0, lt=1)

    def signature(self, source: str, options: Mapping[str, Any]) -> list[str]:
        """Where slots and dynamics come from, the clip, and what is asked."""
        cut = [] if self.seen is None else [f"seen:{self.seen}"]
        clip = [f"burn-in:{self.burn_in}", f"rollout:{self.rollout}", f"stride:{self.stride}", f"clips:{self.clips}"]
        asked = [f"pairs:{self.pairs}", f"threshold:{self.threshold}", f"rollouter:{self.rollouter}"]
        slots, *rest = source.split(",")
        return [f"crop:{self.crop}", f"from:{slots}", *rest, *clip, *cut, *asked]
