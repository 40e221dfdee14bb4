"""Import much at once, without the collector of garbage."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def imports_at_once() -> Iterator[None]:
    """Let the imports inside the `with` be the first large ones of a process: the collector does not run meanwhile.

    It would look again and again at all that was imported, which takes an eighth of the time of a short evaluation.
    What was imported is never looked at again. Where torch is imported already, as in tests and notebooks, nothing
    changes: what is garbage there has to be collected.
    """
    fresh = gc.isenabled() and "torch" not in sys.modules
    if fresh:
        gc.disable()
    try:
        yield
    finally:
        if fresh:
            gc.freeze()
            gc.enable()
