"""Reading ahead: processes read the next batches while the model works on this one.

Which process reads changes neither a value nor the order. What a process reads comes back through shared memory; the
processes start by `forkserver` where there is one, which imports everything once for all of them.
"""

from __future__ import annotations

import io
import logging
import multiprocessing
import os
import pickle
import shutil
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from torch.utils.data import DataLoader, Dataset

from ..core.errors import OclBenchError, UsageError
from ..core.log import logger, warn_once
from ..core.processors import processors
from .packing import Packed, pack, unpack

Workers = int | Literal["auto"]

Unit = TypeVar("Unit")
Value = TypeVar("Value")

_WORTHWHILE = 5.0
"""Seconds of reading after which `auto` starts processes: about what their start takes, so that a short evaluation
never waits for them, and a long one loses no more than that."""
_MOST, _LARGEST = 8, 2**28
"""Processes that `auto` starts, and bytes that it sends to each of them, at most."""
_SHARED = Path("/dev/shm")


@dataclass(frozen=True)
class Outcome(Generic[Unit, Value]):
    """What was read for one unit, or why it could not be."""

    unit: Unit
    value: Value | None
    error: OclBenchError | None = None

    def get(self) -> Value:
        """The value. Raises the error."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]


def check_workers(workers: int | str) -> Workers:
    """The number of processes that read, which may be a text. Raises UsageError unless it is 0 or more, or `auto`."""
    if workers == "auto":
        return "auto"
    if isinstance(workers, str) and workers.isascii() and workers.isdigit():
        return int(workers)
    if isinstance(workers, int) and workers >= 0:
        return workers
    raise UsageError(f"workers {workers!r}: give a number of processes that read, 0 for none, or auto")


@contextmanager
def read_ahead(
    units: Iterator[Unit],
    here: Callable[[Unit], Value],
    there: Callable[[Unit], Value],
    workers: Workers,
    device: str = "cpu",
) -> Iterator[Iterator[Outcome[Unit, Value]]]:
    """What is read for each unit, in order.

    Args:
        units: what is read, piece by piece. Further ones are taken while the first are read.
        here: reads a unit in this process.
        there: the same for other processes, to which it is sent by pickle.
        workers: number of these processes; with 0 this one reads each unit when it is asked for. `auto` starts some
            once reading has taken a few seconds.
        device: of the model. For a GPU, what is read lies in pinned memory.

    Raises:
        UsageError: a process has died, or `there` cannot be sent to one and `workers` is a number.
    """
    outcomes = _outcomes(units, here, there, workers, device)
    with closing(outcomes):  # ends the processes
        yield outcomes


def _outcomes(
    units: Iterator[Unit],
    here: Callable[[Unit], Value],
    there: Callable[[Unit], Value],
    workers: Workers,
    device: str,
) -> Generator[Outcome[Unit, Value]]:
    """As `read_ahead`."""
    spent = 0.0
    count = _automatic(device) if workers == "auto" else workers
    if workers == "auto" or not count:
        for unit in units:
            start = time.perf_counter()
            outcome = attempted(here, unit)
            spent += time.perf_counter() - start
            yield outcome
            if count and spent > _WORTHWHILE:
                break
        else:
            return
    try:
        if workers == "auto":
            _check_shared_memory(outcome, count)
        content = _pickled(there, _LARGEST if workers == "auto" else sys.maxsize)
    except (pickle.PicklingError, TypeError, AttributeError, OverflowError) as error:
        problem = f"what reads the data, or what it reads, cannot be sent to another process ({error})"
        if workers != "auto":
            raise UsageError(problem, "read with --workers 0") from error
        logger.info("%s: this process goes on reading", problem)
        yield from (attempted(here, unit) for unit in units)
        return
    asked: deque[Unit] = deque()  # read now, or soon
    yield from _received(_start(_noted(units, asked), content, count, device), asked)


def _check_shared_memory(outcome: Outcome[Any, Any], count: int) -> None:
    """Raise OverflowError when so many processes may fill the shared memory, which kills them: containers have little.

    outcome: of the unit that was read last.
    """
    *_, content = pack(outcome.value)
    needed = (2 * count + 2) * len(content)  # two wait for each process, one is in work, and one is on its way
    if _SHARED.is_dir() and needed > (free := shutil.disk_usage(_SHARED).free):
        raise OverflowError(f"{_SHARED} has {free >> 20} MB free, and {needed >> 20} MB may be needed")


def _pickled(read: Callable[[Any], Any], most: int) -> bytes:
    """The pickle of what reads a unit. Raises what pickle raises, and OverflowError for more than `most` bytes."""
    stream = _Bounded(most)
    pickle.dump(read, stream, protocol=5)
    return stream.getvalue()


class _Bounded(io.BytesIO):
    """Bytes in memory, at most so many: each process would hold them again."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def write(self, content: Any) -> int:
        """Add some bytes."""
        if self.tell() + memoryview(content).nbytes > self.most:
            raise OverflowError(f"it takes more than {self.most >> 20} MB")
        return super().write(content)


def _noted(units: Iterator[Unit], asked: deque[Unit]) -> Iterator[Unit]:
    """The units, each of which is added to `asked` when it is taken."""
    for unit in units:
        asked.append(unit)
        yield unit


def attempted(read: Callable[[Unit], Value], unit: Unit) -> Outcome[Unit, Value]:
    """What is read for a unit, or the error."""
    try:
        return Outcome(unit, read(unit))
    except OclBenchError as error:
        return Outcome(unit, None, error)


def _automatic(device: str) -> int:
    """How many processes `auto` starts: one for each processor of this process, half as many beside a CPU model."""
    if multiprocessing.current_process().daemon:
        return 0  # such a process may have no children
    ranks, threads = (os.environ.get(name, "") for name in ("LOCAL_WORLD_SIZE", "OMP_NUM_THREADS"))
    if ranks.isdigit():  # torchrun, which sets OMP_NUM_THREADS to 1
        share = processors() // max(1, int(ranks))
    else:
        share = min(processors(), int(threads) if threads.isdigit() and int(threads) else processors())
    return max(1, min(_MOST, share if device.startswith("cuda") else share // 2))


def _start(units: Iterator[Any], content: bytes, count: int, device: str) -> Iterator[Packed]:
    """What the processes send, in order. content: the pickle of what reads a unit."""
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload([__name__, f"{__package__}.reading"])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")  # as many as were asked for
        loader: DataLoader[Packed] = DataLoader(
            _Pieces(content),
            batch_size=None,
            sampler=units,  # type: ignore[arg-type]
            num_workers=count,
            collate_fn=_unchanged,
            pin_memory=device.startswith("cuda"),
            multiprocessing_context=context,
            worker_init_fn=_begin,
        )
        return iter(loader)


def _received(received: Iterator[Packed], asked: deque[Unit]) -> Iterator[Outcome[Unit, Value]]:
    """What the processes read for the units in `asked`, after their messages are logged."""
    while True:
        try:
            packed = next(received, None)
        except (RuntimeError, OSError, EOFError) as error:
            if str(error).startswith("Caught "):  # an error in such a process, and not its end
                raise
            raise UsageError(
                "a process that reads the data has died",
                "give fewer --workers if memory or /dev/shm is short (0: none); what is done is kept. A script that "
                'calls evaluate(workers=...) needs `if __name__ == "__main__":`',
            ) from error
        if packed is None:
            return
        value, error_of_unit, messages = unpack(packed)
        for level, text, once in messages:
            if once is None:
                logger.log(level, "%s", text)
            else:
                subject, about = once
                warn_once(subject, about, text)
        yield Outcome(asked.popleft(), value, error_of_unit)


class _Pieces(Dataset[Packed]):
    """What is read for a unit, packed, with the messages that were logged meanwhile."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    @cached_property
    def read(self) -> Callable[[Any], Any]:
        """What reads a unit. It is unpickled once in each process, and pickled once for all."""
        return pickle.loads(self.content)

    def __getitem__(self, unit: Any) -> Packed:
        outcome = attempted(self.read, unit)
        messages = [(record.levelno, record.getMessage(), getattr(record, "once", None)) for record in _messages]
        _messages.clear()
        return pack((outcome.value, outcome.error, messages))


def _unchanged(value: Any) -> Any:
    return value


_messages: list[logging.LogRecord] = []
"""What was logged in this process, where it is one that reads."""


class _Collector(logging.Handler):
    """Keeps messages for the process that evaluates: only that one knows what was said already, and where it goes."""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        _messages.append(record)


def _begin(worker: int) -> None:
    """What a process that reads does first."""
    del worker
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logger.handlers, logger.propagate = [_Collector()], False
    logger.setLevel(logging.INFO)


def _end_with_parent() -> None:
    """End this process when the one that evaluates is killed: torch looks for another parent, the server of the forks.

    That server ends with its last process, and so never.
    """
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)
