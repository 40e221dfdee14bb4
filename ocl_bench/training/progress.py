"""Shows how far a training is: a bar on a terminal, and a line in the log for each validation where nobody watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from ..core.log import logger

Show: TypeAlias = Callable[[int, dict[str, float], dict[str, float]], None]
"""Gets the step, the last loss terms and the last validation numbers (empty where there was no validation)."""


@contextmanager
def training_progress(steps: int, done: int, enabled: bool) -> Iterator[Show]:
    """Show the progress of a training of `steps` steps, `done` of which are finished; yields its update function."""
    from rich.console import Console

    if not enabled:
        yield lambda step, terms, numbers: None
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        logger.info("training: step %d of %d", done, steps)
        yield lambda step, terms, numbers: _log_validation(step, steps, terms, numbers)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[numbers]}"), console=console) as bar:
        task = bar.add_task("training", total=steps, completed=done, numbers="")

        def show(step: int, terms: dict[str, float], numbers: dict[str, float]) -> None:
            texts = [f"loss {terms['loss']:.4f}"] if terms else []
            texts += [f"val {name} {value:.3f}" for name, value in list(numbers.items())[:1]]
            bar.update(task, completed=step, numbers="  ".join(texts))

        yield show


def _log_validation(step: int, steps: int, terms: dict[str, float], numbers: dict[str, float]) -> None:
    if numbers:
        values = ", ".join(f"{name} {value:.3f}" for name, value in numbers.items())
        logger.info("training: step %d of %d, loss %.4f, validation: %s", step, steps, terms.get("loss", 0.0), values)
