"""Prepares the batches of a training beside its steps."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class Batches:
    """Prepares the next batch in a thread while the model is trained on the current one."""

    def __init__(self, batch: Callable[[int], dict[str, Any]], first: int) -> None:
        self.batch, self.step = batch, first
        self.pool = ThreadPoolExecutor(1)

    def __enter__(self) -> Batches:
        self.next = self.pool.submit(self.batch, self.step)
        return self

    def take(self, end: int) -> dict[str, Any]:
        """The batch of the current step. Starts to prepare the next one unless the training ends at it."""
        inputs = self.next.result()
        self.step += 1
        if self.step < end:
            self.next = self.pool.submit(self.batch, self.step)
        return inputs

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(wait=True, cancel_futures=True)
