"""Runs a script in two gloo ranks on this machine, as torchrun would (started without it: torch is imported less)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path


def run_two_ranks(script: Path, *arguments: str | Path) -> None:
    """Both must end with 0 within two minutes."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    shared = {"OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, str(script), *map(str, arguments)]
    ranks = [subprocess.Popen(command, env={**os.environ, **shared, "RANK": r, "LOCAL_RANK": r}) for r in "01"]
    try:
        assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
