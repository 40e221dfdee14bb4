"""Tests have places of their own: no data, cache or results of the person who runs them takes part."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Assertions in helpers explain themselves, too.
pytest.register_assert_rewrite(*(path.stem for path in Path(__file__).parent.glob("helpers/*.py")))


@pytest.fixture(scope="session", autouse=True)
def own_places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Cache and results below pytest's temporary folder, no official data, no network of the hub, no window.

    The processes of pytest-xdist share the cache: what one of them has rendered or checked, the others find.
    """
    temporary = tmp_path_factory.getbasetemp()
    shared = temporary.parent if "PYTEST_XDIST_WORKER" in os.environ else temporary
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OCL_BENCH_CACHE", str(shared / "cache"))
        patch.setenv("OCL_BENCH_RESULTS", str(tmp_path_factory.mktemp("results")))
        patch.delenv("OCL_BENCH_DATA", raising=False)
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("MPLBACKEND", "Agg")
        yield
