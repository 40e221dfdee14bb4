"""Runs a function in two gloo ranks on this machine, as torchrun would run a script."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import forked
import pytest
import torch
from tiny_training import logged_losses
from torch import Tensor, nn
from torch.distributed import TCPStore

from ocl_bench.training.ranks import Ranks, start_ranks

RunDouble = Callable[[Ranks, Path], dict[str, Tensor]]
"""Trains in float64, where a joint batch and two halves of it differ by rounding only; returns what it learnt."""


def run_two_ranks(act: forked.Act, *arguments: str | Path, expected: int = 0) -> list[str]:
    """Both must end with this exit code within two minutes. Returns what they printed on standard error."""
    # The store is kept here, as torchrun keeps it: a port that a rank opens later may have been taken by then.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    ranks = [forked.start(act, *arguments, environment={**shared, "RANK": r, "LOCAL_RANK": r}) for r in "01"]
    try:
        done = [rank.end() for rank in ranks]
        assert [rank.returncode for rank in done] == [expected, expected], done
        return [rank.stderr for rank in done]
    finally:
        for rank in ranks:
            rank.process.kill()


def learnt(model: nn.Module) -> dict[str, Tensor]:
    """Weights, buffers and gradients of the last step."""
    gradients = {f"{name}.grad": p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {**model.state_dict(), **gradients}


def write_rank(run_double: RunDouble, out: Path) -> Ranks:
    """What each of two ranks does: it writes what it learnt; the first one also the log."""
    torch.set_num_threads(1)
    ranks = start_ranks("cpu", "fp32", 2)
    torch.save(run_double(ranks, out), out / f"rank{ranks.rank}.pt")
    return ranks


def assert_ranks_learn_the_joint_batch(main: forked.Act, run_double: RunDouble, folder: Path) -> None:
    """`main` in two ranks learns what `run_double` does alone. Leaves the logs in `folder`/one and `folder`/two."""
    joint = run_double(start_ranks("cpu", "fp32"), folder / "one")
    (folder / "two").mkdir()
    run_two_ranks(main, folder / "two")
    assert logged_losses(folder / "two") == pytest.approx(logged_losses(folder / "one"), abs=1e-6)  # in float32
    for rank in range(2):
        tensors = torch.load(folder / "two" / f"rank{rank}.pt", weights_only=True)
        assert tensors.keys() == joint.keys() and any(name.endswith("grad") for name in joint)
        for name, value in joint.items():
            torch.testing.assert_close(tensors[name], value, atol=1e-9, rtol=1e-7, msg=name)
