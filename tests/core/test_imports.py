"""Imports without the collector of garbage."""

from __future__ import annotations

import gc
import subprocess
import sys

from ocl_bench.core.imports import imports_at_once

FRESH = """
import gc
from ocl_bench.core.imports import imports_at_once
with imports_at_once():
    assert not gc.isenabled()
    kept = [[] for _ in range(1000)]
assert gc.isenabled() and gc.get_freeze_count() > 1000
try:
    with imports_at_once():
        raise ImportError
except ImportError:
    assert gc.isenabled()
"""


def test_a_fresh_process_collects_after_its_imports_only() -> None:
    """Also after an import that fails."""
    assert subprocess.run([sys.executable, "-c", FRESH], check=False).returncode == 0


def test_a_process_that_has_torch_goes_on_collecting() -> None:
    """Its garbage would be kept for ever."""
    import torch  # noqa: F401

    frozen = gc.get_freeze_count()
    with imports_at_once():
        assert gc.isenabled()
    assert gc.get_freeze_count() == frozen
