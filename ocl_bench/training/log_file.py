"""Writes the log of a training: `log.jsonl`, one JSON object per line. `curves.py` reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..core.files import parse_json, read_bytes, write_atomically
from ..core.trackers import Tracker, finite


class LogFile:
    """Appends to `log.jsonl`, and gives the same numbers to a tracker.

    Args:
        path: The file.
        step: Finished steps of the checkpoint that is resumed, 0 for a new training. Lines from beyond it are removed.
        enabled: False on all ranks but one.
        tracker: gets validations as `val_NAME`.
    """

    def __init__(self, path: Path, step: int, enabled: bool, tracker: Tracker | None = None) -> None:
        self.path, self.enabled, self.tracker = path, enabled, tracker
        self.last: dict[str, float] = {}
        self.validated: set[int] = set()  # steps after which the log has a validation
        if enabled:
            # Damaged bytes are in lines that are no JSON, which are dropped.
            text = read_bytes(path).decode(errors="replace") if path.exists() and step else ""
            lines = text.splitlines(True)
            known = [line for line in lines if _logged_before(line, step)]
            self.validated = {row["step"] for line in known if "val" in (row := json.loads(line))}
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, lambda temporary: temporary.write_text("".join(known), encoding="utf-8"))

    def lacks(self, step: int) -> bool:
        """Whether this rank writes the log, and it has no validation after `step` steps."""
        return self.enabled and step not in self.validated

    def train(self, step: int, terms: dict[str, float], rate: float, counts: dict[str, int]) -> None:
        """Append the terms of a step: `loss` is the total, `monitor_NAME` stays, `loss_NAME` are the other terms."""
        self.last = {_logged_name(name): value for name, value in terms.items()}
        self._append({"step": step, **self.last, "lr": rate, **counts})
        self._track(step, {**self.last, "lr": rate, **counts})

    def validation(self, step: int, numbers: dict[str, float]) -> None:
        """Append the validation numbers after `step` steps, unless an earlier visit has stopped there and did so."""
        if step not in self.validated:
            self._append({"step": step, "val": numbers})
            self._track(step, {f"val_{name}": value for name, value in numbers.items()})

    def _track(self, step: int, numbers: dict[str, float]) -> None:
        if self.enabled and self.tracker is not None:
            self.tracker.log(step, finite(numbers))

    def _append(self, row: dict[str, Any]) -> None:
        if self.enabled:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


def _logged_name(name: str) -> str:
    if name == "total":
        return "loss"
    return name if name.startswith("monitor_") else f"loss_{name}"


def _logged_before(line: str, step: int) -> bool:
    """True for complete lines of training steps before `step` and of validations up to it."""
    try:
        row = parse_json(line)
    except ValueError:
        return False  # the process was killed while it wrote the line
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        return False
    return bool(row["step"] < step or ("val" in row and row["step"] == step))
