"""Values in the cache: computed once for the same parts, and again where the cache is damaged or cannot be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocl_bench.core.remembered import remembered, sources_hash


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "cache"))
    return []


def test_a_value_is_computed_once_for_the_same_parts(calls: list[int]) -> None:
    def compute() -> list[float | None]:
        calls.append(1)
        return [0.1 + 0.2, float("nan"), None]

    first, second = (remembered("kind", ["a", 1], compute) for _ in range(2))
    assert first[0] == second[0] == 0.1 + 0.2 and first[2] is second[2] is None
    assert len(calls) == 1
    remembered("kind", ["a", 2], compute)
    remembered("other", ["a", 1], compute)
    assert len(calls) == 3


def test_a_damaged_file_is_written_anew(calls: list[int], tmp_path: Path) -> None:
    assert remembered("kind", ["a"], lambda: 7) == 7
    (file,) = (tmp_path / "cache" / "kind").iterdir()
    file.write_text("[1, ")
    assert remembered("kind", ["a"], lambda: 8) == 8
    assert remembered("kind", ["a"], lambda: 9) == 8


def test_without_a_cache_every_value_is_computed(calls: list[int], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert [remembered("kind", ["a"], lambda value=value: value) for value in (1, 2)] == [1, 2]


def test_the_hash_of_sources_is_that_of_the_named_ones() -> None:
    assert sources_hash("core") == sources_hash("core") != sources_hash("metrics") != sources_hash("core", "metrics")
    assert sources_hash("models/declared.py") not in (sources_hash(), sources_hash("models"))
