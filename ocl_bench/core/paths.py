"""Locations of bundled tasks and leaderboards, cache, data and results."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent


def bundled(name: str) -> Path:
    """The folder `tasks`, `leaderboards` or `docs`: inside an installed package, or beside it in a source checkout.

    An installed package has only those documents that pages of the site are made of.
    """
    inside = PACKAGE / "_bundled" / name
    return inside if inside.is_dir() else PACKAGE.parent / name


def cache_root() -> Path:
    """`OCL_BENCH_CACHE`, by default `~/.cache/ocl-bench`: stand-ins, features, Arrow files."""
    return Path(os.environ.get("OCL_BENCH_CACHE") or Path.home() / ".cache" / "ocl-bench").expanduser()


def data_root() -> Path | None:
    """`OCL_BENCH_DATA`: the folder with official data sets, or None."""
    value = os.environ.get("OCL_BENCH_DATA")
    return Path(value).expanduser() if value else None


def results_root() -> Path:
    """`OCL_BENCH_RESULTS`, by default `./results`."""
    return Path(os.environ.get("OCL_BENCH_RESULTS") or "results").expanduser()
