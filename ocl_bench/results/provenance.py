"""Where a result comes from: time, command line, versions and commit."""

from __future__ import annotations

import platform
import subprocess
import sys
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from ..core.paths import PACKAGE
from .record import Identity

_PACKAGES = ("torch", "numpy", "scipy", "pandas", "pyarrow", "datasets", "accelerate")


def identity(key: str, status: Literal["complete", "failed samples"]) -> Identity:
    """Provenance of a result made now: time, command line, version, git commit and whether the tree was dirty."""
    commit, dirty = git_state()
    return Identity(
        key=key,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command_line(),
        status=status,
        suite_version=version("ocl-bench"),
        commit=commit,
        dirty=dirty,
    )


def command_line() -> str:
    """The command that runs, with the program by its name and without its folder."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])


@lru_cache(maxsize=1)
def git_state() -> tuple[str, bool]:
    """Commit of the source checkout and whether it has changes; ('', False) for an installed package."""
    root = PACKAGE.parent
    if not (root / ".git").exists():
        return "", False
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
        status = subprocess.run(
            ["git", "status", "--porcelain", "--", "ocl_bench", "tasks"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "", False  # no git on this machine: the version still says what ran
    return commit.stdout.strip(), bool(status.stdout.strip())


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a number."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
