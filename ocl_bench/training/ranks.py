"""Devices, precision and ranks: what the loop needs of `accelerate`, and the sums over ranks.

The global batch is split by rank and gradients are averaged by hand after the backward pass, so an objective may call
any method of the model (wrappers of data-parallel training see `forward` only).
"""

from __future__ import annotations

import atexit
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor

from ..core.errors import UsageError
from .recipe import Precision


@dataclass(frozen=True)
class Ranks:
    """One process of a training. rank: 0..size-1. device: where its model lives. bf16: autocast to bfloat16."""

    state: PartialState
    rank: int
    size: int
    device: torch.device
    bf16: bool

    @property
    def main(self) -> bool:
        """True in the one process that writes files and talks to the user."""
        return self.rank == 0

    def autocast(self) -> AbstractContextManager[Any]:
        """bfloat16 autocast where the precision asks for it."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16) if self.bf16 else nullcontext()

    def share(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """This rank's rows of a global batch, on its device. Rows are split evenly in order, numbers stay."""
        return {name: self._rows(value) if isinstance(value, Tensor) else value for name, value in inputs.items()}

    def _rows(self, value: Tensor) -> Tensor:
        rows = len(value) // self.size
        return value[self.rank * rows : (self.rank + 1) * rows].to(self.device, non_blocking=True)

    def sum(self, value: Tensor) -> Tensor:
        """Sum of a tensor over the ranks (no gradient)."""
        if self.size == 1:
            return value
        total = value.detach().clone()
        torch.distributed.all_reduce(total)
        return total

    def mean(self, value: Tensor) -> Tensor:
        """Mean of a tensor over the ranks (no gradient)."""
        return value if self.size == 1 else self.sum(value) / self.size

    def gather_all(self, rows: Tensor) -> Tensor:
        """Rows (n, ...) of every rank in rank order (no gradient), where each rank has its own n, which may be 0."""
        if self.size == 1:
            return rows
        own = torch.tensor(len(rows), device=rows.device)
        counts = torch.stack(_all(own, self.size)).tolist()
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows.detach()
        return torch.cat([part[:count] for part, count in zip(_all(padded, self.size), counts, strict=True)])

    def average_gradients(self, parameters: list[torch.nn.Parameter]) -> None:
        """Replace each gradient by its mean over the ranks, in one message."""
        if self.size == 1:
            return
        parts = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        flat = self.mean(torch.cat([part.flatten() for part in parts]))
        for parameter, gradient in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            if parameter.grad is not None or bool(gradient.any()):
                parameter.grad = gradient.view_as(parameter).clone()

    def gather(self, rows: Tensor) -> Tensor:
        """Rows (n, ...) of every rank, concatenated in rank order, with gradients back to their owners."""
        return rows if self.size == 1 else _Gather.apply(rows, self.rank, self.size)  # type: ignore[no-any-return]

    def any(self, flag: bool) -> bool:
        """True on every rank when it is true on one."""
        return bool(self.mean(torch.tensor(float(flag), device=self.device)) > 0)


class _Gather(torch.autograd.Function):
    """all_gather whose backward sums the gradients that all ranks have for a rank's rows."""

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
    """A tensor of the same shape from every rank."""
    parts = [torch.empty_like(value, memory_format=torch.contiguous_format) for _ in range(size)]
    torch.distributed.all_gather(parts, value.contiguous())
    return parts


def start_ranks(device: str = "auto", precision: Precision = "auto", world_size: int | None = None) -> Ranks:
    """Join the process group that `torchrun` started (gloo on the CPU, nccl on GPUs), or be alone.

    device: auto | cpu | cuda. world_size: the number of ranks that was asked for; None accepts torchrun's.
    Raises UsageError when the real number of ranks differs, or the device does not exist.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {device}: unknown; choose auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no GPU; choose --device cpu")
    if precision not in ("auto", "fp32", "bf16"):
        raise UsageError(f"--precision {precision}: unknown; choose auto, fp32 or bf16")
    on_cpu = device == "cpu" or not torch.cuda.is_available()
    state = PartialState(cpu=on_cpu)
    atexit.register(_leave_gloo)
    asked = world_size if world_size is not None else int(os.environ.get("WORLD_SIZE", "1"))
    if state.num_processes != asked:
        raise UsageError(
            f"--world-size {asked}: {state.num_processes} rank(s) are running; "
            f"start with `torchrun --nproc-per-node {asked} -m ocl_bench.cli train ... --world-size {asked}`"
        )
    place = torch.device("cpu") if on_cpu else state.device
    if place.type != state.device.type:
        place = torch.device(place.type)
    bf16 = precision == "bf16" or (precision == "auto" and has_fast_bf16(place))
    return Ranks(state, state.process_index, state.num_processes, place, bf16)


def _leave_gloo() -> None:
    """Joins gloo's worker threads: one that frees a tensor while Python shuts down would abort a finished training."""
    if torch.distributed.is_initialized() and torch.distributed.get_backend() == "gloo":
        torch.distributed.destroy_process_group()


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 autocast is an acceleration here: GPUs that have it, CPUs with avx512_bf16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    try:
        words = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return False
    return bool({"avx512_bf16", "amx_bf16"} & set(words))
