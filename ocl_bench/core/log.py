"""Messages that accompany a result: the standard logger `ocl_bench`.

A Python user filters and captures it as any other logger. The command line prints it on stderr.

Levels: INFO says where data comes from, what is reused and what takes long. WARNING says what may change how a number
has to be read: samples that were left out, weights that are untrained.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

logger = logging.getLogger("ocl_bench")


_EVERY, _SETTLED, _MARKS = 30.0, 1.0, 11
"""Seconds between two lines of the log, seconds in which what was there already is counted as done, and the number of
lines from whose times the time that is left is estimated."""


_said: set[tuple[str, object]] = set()
"""Subjects of `warn_once`, each with what it was said about."""


def warn_once(subject: str, about: object, message: str) -> None:
    """Log a warning, but one for each subject and what it is about: a thousand files may have the same oddity."""
    if (subject, about) not in _said:
        _said.add((subject, about))
        # A process that only reads sends it on as what it is: another such process may say the same.
        logger.warning("%s", message, extra={"once": (subject, about)})


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


@contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Keep what other packages log off stderr, such as each try to reach the hub; an error of theirs is still raised.

    names: of their loggers.
    """
    loggers = [logging.getLogger(name) for name in names]
    levels = [other.level for other in loggers]
    for other in loggers:
        other.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for other, level in zip(loggers, levels, strict=True):
            other.setLevel(level)


def _rich_handler() -> logging.Handler:
    from rich.console import Console
    from rich.logging import RichHandler

    console = Console(stderr=True, highlight=False)
    return RichHandler(console=console, show_time=False, show_level=False, show_path=False, markup=False)


def is_watched() -> bool:
    """Whether stderr is a terminal, or a notebook, which shows a bar."""
    from rich.console import Console

    return Console(stderr=True).is_terminal


@contextmanager
def progress_bar(text: str, total: int, enabled: bool = True, unit: str = "") -> Iterator[Callable[[int], None]]:
    """A bar on stderr that vanishes when it is done; where nobody watches a terminal, a line in the log every 30 s.

    Both say how much time is left.

    Args:
        text: what takes long.
        total: number of steps; 0 draws and logs nothing.
        enabled: False draws and logs nothing.
        unit: of the steps, for the lines in the log.

    Yields:
        A function that advances the bar by a number of steps, from any thread.
    """
    if not enabled or not total:
        yield lambda count: None
        return
    if not is_watched():
        with _log_lines(text, total, unit or "steps") as advance:
            yield advance
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    name = TextColumn("{task.description}", markup=False)
    columns = (name, BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), TextColumn("left"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        line = bar.add_task(text, total=total)
        yield lambda count: bar.advance(line, count)


@contextmanager
def _log_lines(text: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Log a line at once and then every `_EVERY` seconds, also while a single step takes longer than that."""
    logger.info("%s: %d %s", text, total, unit)
    done, lock, ended = 0, threading.Lock(), threading.Event()

    def advance(count: int) -> None:
        nonlocal done
        with lock:
            done += count

    def speak() -> None:
        ended.wait(_SETTLED)
        marks = deque([(time.monotonic(), done)], maxlen=_MARKS)
        while not ended.wait(_EVERY):
            marks.append((time.monotonic(), done))
            (first, before), (last, now) = marks[0], marks[-1]
            left = f", {duration((total - now) * (last - first) / (now - before))} left" if now > before else ""
            logger.info("%s: %d of %d %s, %d %%%s", text, now, total, unit, 100 * now // total, left)

    speaker = threading.Thread(target=speak, daemon=True)
    speaker.start()
    try:
        yield advance
    finally:
        ended.set()
        speaker.join()


def duration(seconds: float) -> str:
    """Seconds in words for people.

    >>> duration(42), duration(130), duration(3900)
    ('42 s', '2 min 10 s', '1 h 05 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left:02d} min" if hours else f"{minutes} min {rest:02d} s"
