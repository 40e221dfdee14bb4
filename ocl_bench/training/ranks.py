"""Devices, precision and communication between the processes (ranks) of a training.

The global batch is split by rank, and gradients are averaged explicitly after the backward pass. An objective may
therefore call any method of the model; a wrapper for data-parallel training would intercept only `forward`.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributed import TCPStore

from ..core.errors import UsageError
from ..core.launcher import PATIENCE, is_starting, one_of_several, remedy, without_others
from ..core.log import logger
from ..core.optional import import_optional
from .recipe import Precision

if TYPE_CHECKING:
    from accelerate import PartialState


@dataclass(frozen=True)
class Ranks:
    """One process of a training, and its view of the others.

    Attributes:
        state: State of `accelerate`.
        rank: Number of this process, 0 to size - 1.
        size: Number of processes.
        device: Device of the model.
        bf16: Whether autocast to bfloat16 is on.
    """

    state: PartialState
    rank: int
    size: int
    device: torch.device
    bf16: bool

    @property
    def main(self) -> bool:
        """True in the one process that writes files and prints."""
        return self.rank == 0

    def autocast(self) -> AbstractContextManager[Any]:
        """Context with bfloat16 autocast, if it is on."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16) if self.bf16 else nullcontext()

    def share(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """This rank's rows of a global batch, on its device. Values that are not tensors are passed on unchanged."""
        return {name: self._rows(value) if isinstance(value, Tensor) else value for name, value in inputs.items()}

    def _rows(self, value: Tensor) -> Tensor:
        """This rank's rows: consecutive, the same number for every rank."""
        rows = len(value) // self.size
        return value[self.rank * rows : (self.rank + 1) * rows].to(self.device, non_blocking=True)

    def sum(self, value: Tensor) -> Tensor:
        """Sum of a tensor over the ranks, without gradient."""
        if self.size == 1:
            return value
        total = value.detach().clone()
        torch.distributed.all_reduce(total)
        return total

    def mean(self, value: Tensor) -> Tensor:
        """Mean of a tensor over the ranks, without gradient."""
        return value if self.size == 1 else self.sum(value) / self.size

    def gather_all(self, rows: Tensor) -> Tensor:
        """Rows (n, ...) of all ranks in rank order, without gradient. Ranks may have different n, also 0."""
        if self.size == 1:
            return rows
        count = torch.tensor(len(rows), device=rows.device)
        counts = torch.stack(_all(count, self.size)).tolist()
        # all_gather needs equal shapes: rows are padded to the longest rank and cut again.
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows.detach()
        return torch.cat([part[:count] for part, count in zip(_all(padded, self.size), counts, strict=True)])

    def average_gradients(self, parameters: list[torch.nn.Parameter]) -> None:
        """Replace each gradient by its mean over the ranks. All gradients travel in one message."""
        if self.size == 1:
            return
        parts = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        flat = self.mean(torch.cat([part.flatten() for part in parts]))
        for parameter, gradient in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            # A parameter that no rank used keeps grad None: optimisers skip it, and do not decay it.
            if parameter.grad is not None or bool(gradient.any()):
                parameter.grad = gradient.view_as(parameter).clone()

    def gather(self, rows: Tensor) -> Tensor:
        """Rows (n, ...) of all ranks in rank order, with gradients. All ranks must have the same n."""
        return rows if self.size == 1 else _Gather.apply(rows, self.rank, self.size)  # type: ignore[no-any-return]

    def any(self, flag: bool) -> bool:
        """True on every rank if `flag` is true on at least one rank."""
        return bool(self.mean(torch.tensor(float(flag), device=self.device)) > 0)

    def largest(self, number: int) -> int:
        """The largest of the ranks' numbers."""
        if self.size == 1:
            return number
        value = torch.tensor(number, device=self.device)
        torch.distributed.all_reduce(value, torch.distributed.ReduceOp.MAX)
        return int(value)


class _Gather(torch.autograd.Function):
    """all_gather with a gradient: the backward pass sums the gradients of all ranks with respect to a rank's rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, rank: int, size: int) -> Tensor:
        ctx.rank, ctx.rows = rank, len(rows)
        return torch.cat(_all(rows, size))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        total = gradient.contiguous().clone()
        torch.distributed.all_reduce(total)
        return total[ctx.rank * ctx.rows : (ctx.rank + 1) * ctx.rows], None, None


def _all(value: Tensor, size: int) -> list[Tensor]:
    """This tensor of every rank, in rank order. All must have the same shape."""
    parts = [torch.empty_like(value, memory_format=torch.contiguous_format) for _ in range(size)]
    torch.distributed.all_gather(parts, value.contiguous())
    return parts


def start_ranks(device: str = "auto", precision: Precision = "auto", world_size: int | None = None) -> Ranks:
    """Join the process group that `torchrun` started (gloo on CPUs, nccl on GPUs), or run as a single process.

    Args:
        device: `auto`, `cpu` or `cuda`.
        precision: `auto` uses bfloat16 where the hardware accelerates it.
        world_size: Expected number of ranks; None accepts the number of torchrun.

    Raises:
        UsageError: The number of ranks differs, the device does not exist, or `accelerate` is not installed.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {device}: unknown; choose auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no GPU; choose --device cpu")
    if precision not in ("auto", "fp32", "bf16"):
        raise UsageError(f"--precision {precision}: unknown; choose auto, fp32 or bf16")
    on_cpu = device == "cpu" or not torch.cuda.is_available()
    accelerate = import_optional("accelerate", "train", "training")
    store = _meet(on_cpu)  # kept until the group has joined: rank 0 holds the server
    with without_others():
        state = accelerate.PartialState(cpu=on_cpu)
    del store
    atexit.register(_leave_gloo)
    expected = world_size if world_size is not None else int(os.environ.get("WORLD_SIZE", "1"))
    if state.num_processes != expected:
        raise UsageError(
            f"--world-size {expected}: {state.num_processes} rank(s) are running; "
            f"start with `torchrun --nproc-per-node {expected} -m ocl_bench.cli train ... --world-size {expected}`"
        )
    place = torch.device("cpu") if on_cpu else state.device
    bf16 = precision == "bf16" or (precision == "auto" and has_fast_bf16(place))
    return Ranks(state, state.process_index, state.num_processes, place, bf16)


def _meet(on_cpu: bool) -> TCPStore | None:
    """Wait for the other ranks, as torch would do for half an hour without a word.

    Returns the store in which they meet; torch finds its server again. None for a single process.

    Raises UsageError when the variables of a launcher are incomplete, or when nobody else is there.
    """
    try:
        world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        port = int(os.environ.get("MASTER_PORT", "0"))
    except ValueError as error:
        raise UsageError(f"RANK, WORLD_SIZE and MASTER_PORT must be integers; {remedy()}") from error
    if other := one_of_several():
        raise UsageError(f"this is {other}")
    if world == 1 and rank == 0 and (on_cpu or "LOCAL_RANK" not in os.environ):
        return None
    absent = [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if absent or not 0 <= rank < world:
        what = f"without {', '.join(absent)}" if absent else f"RANK {rank} is not below WORLD_SIZE {world}"
        raise UsageError(f"the variables of a launcher are incomplete ({what}); {remedy()}")
    from_torchrun = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    pending, said, store = [other for other in range(world) if other != rank], False, None
    while True:
        try:
            wait = timedelta(seconds=PATIENCE)
            if store is None:
                serve = rank == 0 and not from_torchrun
                store = TCPStore(
                    os.environ["MASTER_ADDR"], port, world, serve, wait, wait_for_workers=False, multi_tenant=True
                )
                store.set(f"ocl-bench/{rank}", "here")
            store.wait([f"ocl-bench/{other}" for other in pending], wait)
            return store
        except RuntimeError as error:  # DistStoreError after the wait, DistNetworkError without a server
            if store is not None:
                pending = [other for other in pending if not store.check([f"ocl-bench/{other}"])]
            missing = pending[0] if store is not None else 0
            text = f"rank {rank} of {world} waits for rank {missing}, which has not started"
            if not is_starting(missing):
                raise UsageError(f"{text}; {remedy()}") from error
            if not said:
                logger.info("%s; %s", text, remedy())
            said = True


@contextmanager
def lost_ranks_named(ranks: Ranks, out: Path) -> Iterator[None]:
    """Turn what a backend says of a rank that has died into one line with what to do."""
    try:
        yield
    except RuntimeError as error:  # gloo raises nothing more special
        lost = isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
        if ranks.size == 1 or not lost:
            raise
        raise UsageError(
            f"rank {ranks.rank} of {ranks.size}: another rank has stopped; start the same command again: it goes on "
            f"from {out / 'last.pt'} (if there is none yet, from the start)"
        ) from error


def _leave_gloo() -> None:
    """Stop gloo's threads before Python exits. A thread that frees a tensor during the exit aborts the process."""
    if torch.distributed.is_initialized() and torch.distributed.get_backend() == "gloo":
        torch.distributed.destroy_process_group()


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 autocast is fast: on GPUs that support it, and on CPUs with avx512_bf16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    try:
        words = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return False
    return bool({"avx512_bf16", "amx_bf16"} & set(words))
