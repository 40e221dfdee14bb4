"""Runs a script in two gloo ranks on this machine, as torchrun would (started without it: torch is imported less)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from torch.distributed import TCPStore


def run_two_ranks(script: Path, *arguments: str | Path) -> None:
    """Both must end with 0 within two minutes."""
    # The store is kept here, as torchrun keeps it: a port that a rank opens later may have been taken by then.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    command = [sys.executable, str(script), *map(str, arguments)]
    ranks = [subprocess.Popen(command, env={**os.environ, **shared, "RANK": r, "LOCAL_RANK": r}) for r in "01"]
    try:
        assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
