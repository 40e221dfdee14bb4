"""Batch norm over the rows that two ranks hold; `main` is what each of them does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ocl_bench.training.synchronised_norm import synchronise

SPLITS = ((3, 5), (1, 0), (0, 4), (0, 0), (1, 1))
"""Rows of the two ranks, step by step."""

CASES: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "rows": (nn.BatchNorm1d, (4,)),
    "maps": (nn.BatchNorm2d, (4, 3, 2)),
}


def rows_of(case: str, step: int) -> tuple[Tensor, Tensor]:
    """Input rows of both ranks, and the weights by which the output counts."""
    draw = torch.Generator().manual_seed(step)
    shape = (sum(SPLITS[step]), *CASES[case][1])
    return tuple(torch.randn(shape, generator=draw, dtype=torch.float64) * 3 + 5 for _ in range(2))  # type: ignore[return-value]


def network(case: str) -> nn.Module:
    """A norm whose parameters are not those of its start."""
    norm = CASES[case][0](4).double()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, -1.0, 2.0, 1.5]))
        norm.bias.copy_(torch.tensor([0.1, 0.2, -0.3, 0.0]))
    return nn.Sequential(norm)


def learn(net: nn.Module, x: Tensor, weights: Tensor) -> dict[str, Any]:
    """Output, gradients and running statistics of one step. The loss is not linear in the output."""
    net.zero_grad()
    x = x.clone().requires_grad_()
    y = net(x)
    (weights * y.sin()).sum().backward()
    gradients = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    buffers = {name: value.clone() for name, value in net.named_buffers()}
    return {"y": y.detach(), "x.grad": x.grad, **gradients, **buffers}


def main(out: Path) -> None:
    """Each rank writes what it saw."""
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    seen = {}
    for case in CASES:
        net = network(case)
        assert synchronise(net) == 1
        for step, split in enumerate(SPLITS):
            first = rank * split[0]
            own = slice(first, first + split[rank])
            seen[f"{case} {step}"] = learn(net, *(rows[own] for rows in rows_of(case, step)))
    torch.save(seen, out / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()
