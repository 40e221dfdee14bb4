"""What a thread sees of the processes while something is measured."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil


@contextmanager
def looking(look: Callable[[], float | None], seconds: float) -> Iterator[list[float]]:
    """What `look` gives, every so many seconds, until the measured part ends or fails. None ends it before."""
    seen, ended = list[float](), threading.Event()

    def repeat() -> None:
        while not ended.wait(seconds):
            if (found := look()) is None:
                return
            seen.append(found)

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def memory_of(number: int | None = None) -> float:
    """Bytes of a process (by default this one) and those below it; each shared page is counted once (PSS)."""
    total = 0.0
    try:
        first = psutil.Process(number)
        processes = [first, *first.children(recursive=True)]
    except psutil.Error:
        return total
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:  # it has just ended
            continue
    return total
