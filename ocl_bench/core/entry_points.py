"""Additions by installed packages: models, tasks, metrics, readers and families, found by entry points.

A package names them in its `pyproject.toml`, for example::

    [project.entry-points."ocl_bench.metrics"]
    boundary_iou = "my_package.metrics:boundary_iou"
"""

from __future__ import annotations

import hashlib
import sys
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

MODELS = "ocl_bench.models"
TASKS = "ocl_bench.tasks"
METRICS = "ocl_bench.metrics"
READERS = "ocl_bench.readers"
FAMILIES = "ocl_bench.families"


def offered(group: str) -> dict[str, EntryPoint]:
    """Name -> entry point of a group, over all installed packages."""
    return dict(_found(group, tuple(sys.path)))


@cache
def _found(group: str, path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """The same, searched once for each `sys.path`: a search opens files of every package, and a board asks often."""
    from importlib.metadata import entry_points  # slow to import

    return {entry.name: entry for entry in entry_points(group=group)}


def source_sha256(entry: EntryPoint) -> str:
    """SHA-256 of the target of an entry point (`module:name`) and of the version of its package.

    A new version of the package is thus a new source: its results are not mixed with those of the old one. Editing the
    code of an installed package without a new version does not change it.
    """
    version = entry.dist.version if entry.dist else ""
    return hashlib.sha256(f"{entry.value}|{version}".encode()).hexdigest()
