"""A rank that ends while gloo's threads still hold its tensors, so that the race at the end of a training is lost."""

from __future__ import annotations

import torch

from ocl_bench.training.ranks import start_ranks

if __name__ == "__main__":
    start_ranks("cpu", "fp32", 2)
    for _ in range(40):
        torch.distributed.all_reduce(torch.ones(300_000), async_op=True)
