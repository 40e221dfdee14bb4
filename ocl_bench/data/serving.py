"""A process that does jobs for another one, which it asks for each of them."""

from __future__ import annotations

import sys
from collections.abc import Callable

READY = "ready"
"""The line by which a process asks for its next job."""


def serve_jobs(work: Callable[[str, Callable[[int], None]], None]) -> None:
    """Do jobs that are read from stdin, one a line, until it is closed.

    Prints `READY` before each job, and numbers of scenes when they are written.

    Args:
        work: does a job, a line of text, and calls its second argument after each n scenes.
    """
    import torch

    torch.set_num_threads(1)
    print(READY, flush=True)
    for line in sys.stdin:
        work(line, lambda n: print(n, flush=True))
        print(READY, flush=True)
