"""What fails while predicting: a sample, which is counted, or the model, which ends the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch

from ..core.errors import OclBenchError, SampleError
from ..results.record import Failure


class Named(Protocol):
    """Anything with the id of a sample."""

    @property
    def id(self) -> str:
        """The id."""
        ...


Item = TypeVar("Item", bound=Named)
Value = TypeVar("Value")

GIVE_UP = 8
"""When so many samples fail before the first one succeeds, the model is broken and not the samples: a long run should
say so at once."""


class Patience:
    """Counts the samples that fail before the first success.

    Args:
        count: number of samples of the run; when all of them fail, the run ends too.
    """

    def __init__(self, count: int) -> None:
        self.left = min(GIVE_UP, count)
        self.first: OclBenchError | None = None
        self.succeeded = False

    def failed(self, error: OclBenchError) -> None:
        """Count one sample. Raises the first error when no sample has succeeded and too many have failed."""
        self.first = self.first or error
        self.left -= 1
        if not self.succeeded and self.left <= 0:
            raise self.first


def attempt(
    items: list[Item], use: Callable[[list[Item]], Value], patience: Patience
) -> tuple[list[Value], list[Failure]]:
    """`use(items)`, where no sample ends it: after an error the samples are used one by one.

    Samples that `use` names in a SampleError are left out first, as a model that reads files may lack one of them.

    Returns:
        What `use` returned, once for the batch or once for each sample, and the failures.

    Raises:
        OclBenchError: every sample so far has failed (see `Patience`), or the memory does not hold a batch, which is no
            fault of a sample.
    """
    failed: list[Failure] = []
    while items:
        try:
            return [use(items)], failed
        except OclBenchError as error:
            named = error.sample_id if isinstance(error, SampleError) else None
            if named in {item.id for item in items}:
                failed.append(Failure(id=named, error=str(error)))
                items = [item for item in items if item.id != named]
                continue
            if _out_of_memory(error.__cause__):
                raise
            patience.first = patience.first or error
            if len(items) == 1:
                return [], [*failed, failure(items[0].id, error, patience)]
        values: list[Value] = []
        for item in items:
            done, failures = attempt([item], use, patience)
            values, failed = values + done, failed + failures
        return values, failed
    return [], failed


def failure(sample_id: str, error: OclBenchError, patience: Patience) -> Failure:
    """A counted failure that names its sample. Raises what `Patience.failed` raises."""
    patience.failed(error)
    text = str(error)
    return Failure(id=sample_id, error=text if text.startswith("sample ") else f"sample {sample_id}: {text}")


def _out_of_memory(error: BaseException | None) -> bool:
    """Whether a model failed for want of memory, on the GPU or on the CPU."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
