"""Shows how far a training is: a bar on a terminal; where nobody watches, lines in the log, one for each validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from ..core.log import is_watched, logger, progress_bar

Show: TypeAlias = Callable[[int, dict[str, float], dict[str, float]], None]
"""Gets the step, the last loss terms and the last validation numbers (empty before the first validation)."""


@contextmanager
def training_progress(steps: int, done: int, enabled: bool) -> Iterator[Show]:
    """Show the progress of a training of `steps` steps, `done` of which are finished; yields its update function."""
    if not enabled:
        yield lambda step, terms, numbers: None
        return
    if not is_watched():
        with progress_bar("training", steps - done, unit="steps") as advance:
            yield _Lines(steps, done, advance)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[numbers]}"), console=Console(stderr=True)) as bar:
        task = bar.add_task("training", total=steps, completed=done, numbers="")

        def show(step: int, terms: dict[str, float], numbers: dict[str, float]) -> None:
            texts = [f"loss {terms['loss']:.4f}"] if terms else []
            texts += [f"val {name} {value:.3f}" for name, value in list(numbers.items())[:1]]
            bar.update(task, completed=step, numbers="  ".join(texts))

        yield show


class _Lines:
    """Logs each validation once; how far the training is, a line every 30 s says."""

    def __init__(self, steps: int, done: int, advance: Callable[[int], None]) -> None:
        self.steps, self.done, self.advance = steps, done, advance
        self.logged: dict[str, float] = {}

    def __call__(self, step: int, terms: dict[str, float], numbers: dict[str, float]) -> None:
        self.advance(step - self.done)
        self.done = step
        if numbers and numbers != self.logged:
            self.logged = dict(numbers)
            text = ", ".join(f"{name} {value:.3f}" for name, value in numbers.items())
            loss = terms.get("loss", 0.0)
            logger.info("training: step %d of %d, loss %.4f, validation: %s", step, self.steps, loss, text)
