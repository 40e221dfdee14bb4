"""Shows how far a training is: a bar on a terminal; where nobody watches, lines in the log, one for each validation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from ..core.log import is_watched, logger, progress_bar

Show: TypeAlias = Callable[[int, dict[str, float], dict[str, float]], None]
"""Gets the step, the last loss terms and the last validation numbers (empty before the first validation)."""


@contextmanager
def training_progress(
    steps: int, done: int, enabled: bool, begun: float | None = None, note: Callable[[], str] = str
) -> Iterator[Show]:
    """Show the progress of a training; yields its update function, which says when the first step was done.

    Args:
        steps: Steps of the whole training.
        done: Those that are finished.
        enabled: False shows nothing.
        begun: When the preparation began, by `time.monotonic`; by default now.
        note: Says what is done in the background; the bar shows it.
    """
    begun = time.monotonic() if begun is None else begun
    if not enabled:
        yield lambda step, terms, numbers: None
        return
    if not is_watched():
        with progress_bar("training", steps - done, unit="steps") as advance:
            yield _Lines(steps, done, begun, advance)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())

    class Note(ProgressColumn):
        """What is done in the background, also while the training waits for it."""

        def render(self, task: Any) -> Text:
            return Text(note())

    with Progress(*columns, TextColumn("{task.fields[numbers]}"), Note(), console=Console(stderr=True)) as bar:
        task = bar.add_task("training", total=steps, completed=done, numbers="")

        def show(step: int, terms: dict[str, float], numbers: dict[str, float]) -> None:
            if step == done + 1:
                bar.console.print(_first_step(begun))
            texts = [f"loss {terms['loss']:.4f}"] if terms else []
            texts += [f"val {name} {value:.3f}" for name, value in list(numbers.items())[:1]]
            bar.update(task, completed=step, numbers="  ".join(texts))

        yield show


def _first_step(begun: float) -> str:
    """How long the first step of this visit took to come."""
    return f"training: the first step was done after {time.monotonic() - begun:.0f} s"


class _Lines:
    """Logs the first step, and each validation once; how far the training is, a line every 30 s says."""

    def __init__(self, steps: int, done: int, begun: float, advance: Callable[[int], None]) -> None:
        self.steps, self.first, self.done, self.begun, self.advance = steps, done + 1, done, begun, advance
        self.logged: dict[str, float] = {}

    def __call__(self, step: int, terms: dict[str, float], numbers: dict[str, float]) -> None:
        if step == self.first:
            logger.info("%s", _first_step(self.begun))
        self.advance(step - self.done)
        self.done = step
        if numbers and numbers != self.logged:
            self.logged = dict(numbers)
            text = ", ".join(f"{name} {value:.3f}" for name, value in numbers.items())
            loss = terms.get("loss", 0.0)
            logger.info("training: step %d of %d, loss %.4f, validation: %s", step, self.steps, loss, text)
