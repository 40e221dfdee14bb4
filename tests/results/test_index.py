"""Results of one model among those of others: files that are remembered as another model's are not read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from results_for_boards import TASK, image_values, write

from ocl_bench.results import index, store
from ocl_bench.results.record import read_result


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two models with old files, and the names of the files that are read of them."""
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "cache"))
    files: list[str] = []

    def noted(path: Path) -> object:
        files.append(path.stem)
        return read_result(path)

    monkeypatch.setattr(store, "read_result", noted)
    monkeypatch.setattr(index, "SETTLED_NS", -1_000_000_000)  # these files are new, and still not touched again
    for name, seed in (("one", 0), ("one", 1), ("other", None)):
        stem = name if seed is None else f"{name}-{seed}"
        write(tmp_path / "r", name, image_values(0.5), seed=seed, stem=stem)
    return files


def names(folder: Path, model: str) -> list[str]:
    return [result.path.stem for result in store.of_model([folder], TASK.name, model) if result.path is not None]


def test_files_of_other_models_are_read_once(tmp_path: Path, read: list[str]) -> None:
    assert names(tmp_path / "r", "one") == ["one-0", "one-1"] and read == ["one-0", "one-1", "other"]
    read.clear()
    assert names(tmp_path / "r", "one") == ["one-0", "one-1"] == read
    read.clear()
    assert store.model_names_in([tmp_path / "r"]) == {"one", "other"} and read == []


def test_a_file_that_was_touched_is_read_again(tmp_path: Path, read: list[str]) -> None:
    names(tmp_path / "r", "one")
    other = tmp_path / "r" / TASK.name / "other.json"
    before = other.stat()
    other.write_text(other.read_text().replace('"name": "other"', '"name": "one"  '))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))  # same size, same time of modification
    assert names(tmp_path / "r", "one") == ["one-0", "one-1", "other"]


def test_a_file_that_may_change_within_a_tick_is_not_remembered(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "SETTLED_NS", 3_600_000_000_000)
    for _ in range(2):
        read.clear()
        assert names(tmp_path / "r", "one") == ["one-0", "one-1"] and len(read) == 3


@pytest.mark.parametrize("text", ["[1, ", "[]", '{"clevrtex/other.json": 1}', '{"clevrtex/other.json": [1, 2]}'])
def test_a_damaged_memory_and_unreadable_results_cost_time_only(tmp_path: Path, read: list[str], text: str) -> None:
    names(tmp_path / "r", "one")
    (memory,) = (tmp_path / "cache" / "models-of-results").iterdir()
    memory.write_text(text)
    (tmp_path / "r" / TASK.name / "broken.json").write_text("{")
    assert names(tmp_path / "r", "one") == ["one-0", "one-1"]
    assert store.model_names_in([tmp_path / "r"]) == {"one", "other"}
