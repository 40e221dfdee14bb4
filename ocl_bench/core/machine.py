"""The machine that evaluates: device, threads, memory."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from .errors import UsageError
from .processors import processors


def choose_device(device: str) -> str:
    """The device; `auto` is the GPU when there is one. Raises UsageError for a device that torch cannot use."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device '{device}' is not available ({str(error).splitlines()[0][:120]}); use cpu") from error
    return device


def thread_count() -> int:
    """Number of threads for torch: the smallest of 4, the usable processors, and OMP_NUM_THREADS if it is set."""
    limit, usable = os.environ.get("OMP_NUM_THREADS", ""), processors()
    return max(1, min(4, usable, int(limit) if limit.isdigit() and int(limit) else usable))


@contextmanager
def fixed_arithmetic(threads: int) -> Iterator[None]:
    """Let torch use this many threads, and full float32 on GPUs: no TF32, no choice of kernels by speed.

    Both would change numbers from one GPU, or one run, to the next. The previous settings are restored at the end.
    """
    cudnn: Any = torch.backends.cudnn
    before = torch.get_num_threads(), cudnn.allow_tf32, cudnn.benchmark
    torch.set_num_threads(threads)
    cudnn.allow_tf32, cudnn.benchmark = False, False
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cudnn.allow_tf32, cudnn.benchmark = before[1:]


def synchronise(device: torch.device | str) -> None:
    """Wait until an accelerator has finished: its kernels run asynchronously."""
    if torch.device(device).type != "cpu":
        torch.accelerator.synchronize(device)


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in kB, macOS in bytes.
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)
