"""Provenance of a result: time, command line, package versions and git commit."""

from __future__ import annotations

import platform
import subprocess
import sys
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..core.paths import PACKAGE

if TYPE_CHECKING:
    from .record import Identity

_PACKAGES = ("torch", "numpy", "scipy", "pandas", "pyarrow", "datasets", "accelerate")
"""Packages whose version can change a number."""


def identity(
    key: str,
    status: Literal["complete", "failed samples"],
    agreement: tuple[bool | None, bool | None] = (None, None),
) -> Identity:
    """Identity of a result that is computed now.

    Args:
        key: SHA-256 of everything that can change a number (`store.key_of`).
        status: whether every sample was scored.
        agreement: whether two predictions of the first batch agree, and whether one that is made apart does; None where
            that was not tried.

    Returns:
        The key with the time (UTC), the command line, the version of the suite and the state of its git checkout.
    """
    from .record import Identity  # slow: pandas and pyarrow, which `--version` does not need

    commit, dirty = git_state()
    return Identity(
        key=key,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command_line(),
        status=status,
        suite_version=version("ocl-bench"),
        commit=commit,
        dirty=dirty,
        deterministic=agreement[0],
        batch_independent=agreement[1],
    )


def command_line() -> str:
    """The running command, without the folder of the program: a home directory does not belong in a published file."""
    program = Path(sys.argv[0])
    name = "ocl-bench" if program.name == "__main__.py" and program.parent.name == "ocl_bench" else program.name
    return " ".join([name, *sys.argv[1:]])


@lru_cache(maxsize=1)
def git_state() -> tuple[str, bool]:
    """Commit of the source checkout and whether it has uncommitted changes; ('', False) for an installed package."""
    root = PACKAGE.parent
    # Without this check, a package installed below a user's own repository would report that repository's commit.
    if not (root / ".git").exists():
        return "", False
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
        status = subprocess.run(
            ["git", "status", "--porcelain", "--", "ocl_bench", "tasks"],  # other folders cannot change a number
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "", False  # git is not installed or refuses; the version of the suite is recorded anyway
    return commit.stdout.strip(), bool(status.stdout.strip())


def package_versions() -> dict[str, str]:
    """Versions of Python and of the installed packages among `_PACKAGES`."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # an optional extra
            continue
    return versions
