"""The environment variables with which torchrun and other launchers tell processes apart."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
PATIENCE = 10.0
"""Seconds that a process waits for others of which it has seen nothing."""
_OTHERS = (
    ("mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("mpirun", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    ("mpiexec", "PMI_RANK", "PMI_SIZE"),
    ("srun", "SLURM_PROCID", "SLURM_NTASKS"),
    ("srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)
"""Launchers that set neither RANK nor WORLD_SIZE, and what they call the number of a process and of all."""


def remedy(names: tuple[str, ...] = VARIABLES) -> str:
    """Which of the variables are set, and what to do when no launcher runs."""
    found = [name for name in names if name in os.environ]
    text = ", ".join(f"{name}={os.environ[name]}" for name in found)
    return f"{text} in the environment: for one process `unset {' '.join(found)}`, for several start with torchrun"


def one_of_several() -> str:
    """The process and its remedy, where a launcher other than torchrun started several; '' where it did not.

    Such processes do not know each other: RANK and WORLD_SIZE are not set.
    """
    if "RANK" in os.environ or "WORLD_SIZE" in os.environ:
        return ""
    for program, number_name, size_name in _OTHERS:
        number, size = _whole(number_name), _whole(size_name)
        if size_name == "SLURM_NTASKS" and not (number and size):
            continue  # also set in the script of sbatch, which is process 0 and the only one
        if (number or 0) > 0 or (size or 1) > 1:
            of_all = f" of {size}" if size else ""
            return f"process {number or 0}{of_all} of {program}, without RANK and WORLD_SIZE; " + remedy(
                (number_name, size_name)
            )
    return ""


def _whole(name: str) -> int | None:
    """The whole number in a variable; None for anything else."""
    text = os.environ.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


@contextmanager
def without_others() -> Iterator[None]:
    """Hide the variables of other launchers, from which `accelerate` would conclude that there are several ranks."""
    names = {name for _, *pair in _OTHERS for name in pair}
    hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


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
