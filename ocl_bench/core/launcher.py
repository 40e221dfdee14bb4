"""The environment variables with which torchrun and other launchers tell processes apart."""

from __future__ import annotations

import os
import socket

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
PATIENCE = 10.0
"""Seconds that a process waits for others of which it has seen nothing."""


def remedy() -> str:
    """Which of the variables are set, and what to do when no launcher runs."""
    found = [name for name in VARIABLES if name in os.environ]
    text = ", ".join(f"{name}={os.environ[name]}" for name in found)
    return f"{text} in the environment: for one process `unset {' '.join(found)}`, for several start with torchrun"


def is_starting(rank: int) -> bool:
    """Whether a process of which nothing was seen yet will come: its torchrun runs, or it is on this host already."""
    return _torchrun_answers() or _runs_here(rank)


def _torchrun_answers() -> bool:
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return False
    try:
        address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        with socket.create_connection(address, timeout=2):
            return True
    except (OSError, KeyError, ValueError):
        return False


def _runs_here(rank: int) -> bool:
    """Whether a process on this host has the same variables and this rank: on a busy host imports take long."""
    import psutil

    names = ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    wanted = {"RANK": str(rank)} | {name: os.environ[name] for name in names if name in os.environ}
    for process in psutil.process_iter():
        try:
            if wanted.items() <= process.environ().items():
                return True
        except (psutil.Error, OSError):
            continue  # of another user, or ended
    return False
