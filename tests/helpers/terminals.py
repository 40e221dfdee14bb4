"""Commands at a terminal of some width, as people see them. A pseudo-terminal of POSIX stands for the window."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Mapping

import forked

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def run(*arguments: str, columns: int = 80, environment: Mapping[str, str] | None = None) -> list[str]:
    """The lines that `ocl-bench` prints with these arguments, without colours."""
    import pty  # not on Windows, where tests with this function are skipped
    import termios

    window, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (40, columns))
    parts: list[bytes] = []
    reader = threading.Thread(target=_read, args=(window, parts))
    reader.start()
    places = {"COLUMNS": "", "TERM": "xterm", **(environment or {})}
    forked.run(_at_terminal, os.ttyname(terminal), *arguments, environment=places)
    os.close(terminal)
    reader.join()
    os.close(window)
    text = _ESCAPES.sub("", b"".join(parts).decode())
    return [line.strip("\r") for line in text.split("\n")]


def _at_terminal(terminal: str, *arguments: str) -> None:
    """What the other process does: both of its streams are the terminal."""
    device = os.open(terminal, os.O_RDWR | os.O_NOCTTY)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(device, number)
        setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))
    forked.command(*arguments)


def _read(window: int, parts: list[bytes]) -> None:
    """Collect what is printed until the last process has closed the terminal."""
    while True:
        try:
            part = os.read(window, 65536)
        except OSError:  # on Linux, the end
            return
        if not part:
            return
        parts.append(part)
