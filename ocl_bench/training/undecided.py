"""Stops a self-distilling training whose teacher says nothing: its student has nothing to learn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..core.errors import UsageError

UNDECIDED = 0.9
"""A teacher is undecided where the entropy of its targets is above this share of log K."""

PATIENCE = 200
"""Steps that a teacher may be undecided in any training, however short."""


@dataclass
class Undecided:
    """Watches `monitor_target_entropy` at the steps that are logged.

    Attributes:
        share: Share of the training that the teacher may be undecided at a stretch; 0 never stops.
        steps: Steps of the training.
        out: Folder of the training, for the message.
        since: First step of the present stretch. A resumed training begins a new one.
    """

    share: float
    steps: int
    out: Path
    since: int | None = None

    def check(self, step: int, terms: dict[str, float]) -> None:
        """Raise UsageError when the teacher has been undecided for too long."""
        entropy = terms.get("monitor_target_entropy", 0.0)
        if entropy <= UNDECIDED:
            self.since = None
            return
        self.since = step if self.since is None else self.since
        if self.share and step - self.since >= max(PATIENCE, self.share * self.steps):
            raise UsageError(
                f"{self.out}: since step {self.since} the teacher has said nothing: at step {step} the entropy of its "
                f"targets is {entropy:.2f} of log K (stopped above {UNDECIDED}). Lower the teacher's temperature, give "
                "the head batch norm and Sinkhorn targets, or go on with --set undecided=0; see docs/training.md"
            )
