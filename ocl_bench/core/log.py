"""Messages that accompany a result: the standard logger `ocl_bench`.

A Python user filters and captures it as any other logger. The command line prints it on stderr.

Levels: INFO says where data comes from, what is reused and what takes long. WARNING says what may change how a number
has to be read: samples that were left out, weights that are untrained.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

logger = logging.getLogger("ocl_bench")


_said: set[tuple[str, object]] = set()
"""Subjects of `warn_once`, each with what it was said about."""


def warn_once(subject: str, about: object, message: str) -> None:
    """Log a warning, but one for each subject and what it is about: a thousand files may have the same oddity."""
    if (subject, about) not in _said:
        _said.add((subject, about))
        logger.warning("%s", message)


class NotTwice(logging.Filter):
    """Lets each message through once: drawing pictures opens data and bank again, which logs the same messages."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the message is new."""
        message = record.getMessage()
        new = message not in self.seen
        self.seen.add(message)
        return new


class Stderr(logging.StreamHandler[TextIO]):
    """Writes to whatever `sys.stderr` is at that moment: tests and notebooks put another stream there."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        """The current standard error."""
        return sys.stderr


def print_on_stderr() -> None:
    """Print what is logged on stderr: by rich on a terminal, as plain lines elsewhere, each message once."""
    for handler in [handler for handler in logger.handlers if getattr(handler, "of_the_command_line", False)]:
        logger.removeHandler(handler)  # of an earlier command in this process
    handler = _rich_handler() if sys.stderr.isatty() else Stderr()
    handler.addFilter(NotTwice())
    handler.of_the_command_line = True  # type: ignore[attr-defined]
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def _rich_handler() -> logging.Handler:
    from rich.console import Console
    from rich.logging import RichHandler

    console = Console(stderr=True, highlight=False)
    return RichHandler(console=console, show_time=False, show_level=False, show_path=False, markup=False)


@contextmanager
def progress_bar(text: str, total: int, enabled: bool = True, unit: str = "") -> Iterator[Callable[[int], None]]:
    """A bar on stderr that vanishes when it is done; where nobody watches a terminal, one line in the log.

    Args:
        text: what takes long.
        total: number of steps; 0 draws and logs nothing.
        enabled: False draws and logs nothing.
        unit: of the steps, for the line in the log.

    Yields:
        A function that advances the bar by a number of steps.
    """
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not enabled or not total:
        yield lambda count: None
        return
    if not console.is_terminal:
        logger.info("%s: %d %s", text, total, unit or "steps")
        yield lambda count: None
        return
    with Progress(console=console, transient=True) as bar:
        line = bar.add_task(text, total=total)
        yield lambda count: bar.advance(line, count)
