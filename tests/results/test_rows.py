"""Rows are restored bit by bit, older files stay readable, and committed values can be computed from their rows."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas
import pyarrow.parquet
import pytest
from places import OLD_RESULTS, ROOT

from ocl_bench.cards.names import get_task
from ocl_bench.core.errors import UsageError
from ocl_bench.families.summary import summarise
from ocl_bench.results.record import read_result, write_result
from ocl_bench.results.rows import read_rows, write_rows


def example(count: int = 50) -> pandas.DataFrame:
    """Every kind of column that adapters write, with equal columns, -0.0, NaN, None and empty lists."""
    generator = np.random.default_rng(0)
    scores = [np.sort(generator.random(7).astype(np.float32)).astype(np.float64) for _ in range(count)]
    value = np.where(np.arange(count) % 5 == 0, np.nan, generator.random(count))
    return pandas.DataFrame(
        {
            "id": [f"i{k}" for k in range(count)],
            "noise_seed": np.zeros(count, np.int64),
            "n_objects": generator.integers(0, 9, count),
            "zero": np.zeros(count),
            "negative_zero": -np.zeros(count),
            "value": value,
            "same_value": value.copy(),
            "mask_scores": scores,
            "mask_matched": [np.arange(7, dtype=np.uint16) for _ in range(count)],
            "box_scores": [row.copy() for row in scores],
            "cells": [np.arange(k % 3, dtype=np.int32) for k in range(count)],
            "nothing": [None] * count,
            "nothing_either": [None] * count,
        }
    )


def assert_same_bits(one: pandas.DataFrame, other: pandas.DataFrame) -> None:
    """Assert that two tables have the same columns, order, types and bits."""
    assert list(one.columns) == list(other.columns) and list(one.dtypes) == list(other.dtypes)
    for name in one:
        for left, right in zip(one[name], other[name], strict=True):
            if isinstance(left, np.ndarray | float):
                assert np.asarray(left).tobytes() == np.asarray(right).tobytes(), name
                assert getattr(left, "dtype", None) == getattr(right, "dtype", None), name
            else:
                assert left == right, name


def test_rows_come_back_bit_by_bit(tmp_path: Path) -> None:
    rows = example()
    write_rows(rows, tmp_path / "rows.parquet")
    assert_same_bits(rows, read_rows(tmp_path / "rows.parquet"))


def test_equal_columns_are_stored_once_and_unequal_ones_are_not(tmp_path: Path) -> None:
    rows = example()
    write_rows(rows, tmp_path / "rows.parquet")
    stored = pyarrow.parquet.read_schema(tmp_path / "rows.parquet").names
    assert set(rows.columns) - set(stored) == {"same_value", "box_scores", "nothing_either"}
    rows["box_scores"].iloc[3][2] += 1e-16  # one bit of one score
    assert rows["box_scores"].iloc[3][2] != rows["mask_scores"].iloc[3][2]
    write_rows(rows, tmp_path / "rows.parquet")
    assert "box_scores" in pyarrow.parquet.read_schema(tmp_path / "rows.parquet").names
    assert_same_bits(rows, read_rows(tmp_path / "rows.parquet"))


def test_an_empty_table_keeps_its_columns(tmp_path: Path) -> None:
    rows = example().iloc[:0]
    write_rows(rows, tmp_path / "rows.parquet")
    assert list(read_rows(tmp_path / "rows.parquet").columns) == list(rows.columns)


def test_a_file_written_before_equal_columns_were_shared_gives_the_same_rows_and_values(tmp_path: Path) -> None:
    old, result = read_rows(OLD_RESULTS / "grid.json"), read_result(OLD_RESULTS / "grid.json")
    assert {"mask_scores", "box_scores"} <= set(pyarrow.parquet.read_schema(OLD_RESULTS / "grid.parquet").names)
    write_rows(old, tmp_path / "grid.parquet")
    assert (tmp_path / "grid.parquet").stat().st_size < 0.5 * (OLD_RESULTS / "grid.parquet").stat().st_size
    new = read_rows(tmp_path / "grid.parquet")
    assert_same_bits(old, new)
    task = get_task("coco-detection")
    summary = summarise(new, task, result.model.mask_source)
    assert {name: value.model_dump(exclude={"signature"}) for name, value in summary.items()} == {
        name: value.model_dump(exclude={"signature"}) for name, value in result.metrics.items()
    }


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    write_rows(example(), tmp_path / "rows.parquet")
    content = (tmp_path / "rows.parquet").read_bytes()
    (tmp_path / "rows.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(UsageError, match=r"rows\.parquet: per-image rows cannot be read"):
        read_rows(tmp_path / "rows.parquet")


@pytest.fixture(scope="module")
def commit_results() -> ModuleType:
    path = ROOT / "benchmarks/commit_results.py"
    spec = importlib.util.spec_from_file_location("commit_results", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_rewriting_changes_the_rows_file_and_its_hash_and_nothing_else(
    tmp_path: Path, commit_results: ModuleType
) -> None:
    for name in ("grid.json", "grid.parquet"):
        shutil.copy(OLD_RESULTS / name, tmp_path)
    before, rows = read_result(tmp_path / "grid.json"), read_rows(tmp_path / "grid.json")
    freed = commit_results.rewrite(tmp_path / "grid.json")
    after = read_result(tmp_path / "grid.json")
    assert freed == (OLD_RESULTS / "grid.parquet").stat().st_size - (tmp_path / "grid.parquet").stat().st_size > 0
    assert_same_bits(rows, read_rows(tmp_path / "grid.json"))
    assert after.rows.sha256 == hashlib.sha256((tmp_path / "grid.parquet").read_bytes()).hexdigest()
    assert after.rows.sha256 != before.rows.sha256
    assert after.model_dump(exclude={"rows"}) == before.model_dump(exclude={"rows"})
    again = (tmp_path / "grid.json").read_bytes(), (tmp_path / "grid.parquet").read_bytes()
    assert commit_results.rewrite(tmp_path / "grid.json") == 0
    assert again == ((tmp_path / "grid.json").read_bytes(), (tmp_path / "grid.parquet").read_bytes())


def test_rewriting_refuses_rows_that_the_result_did_not_record(tmp_path: Path, commit_results: ModuleType) -> None:
    shutil.copy(OLD_RESULTS / "grid.json", tmp_path)
    rows = read_rows(OLD_RESULTS / "grid.json")
    rows.loc[0, "ar100_mask"] = 1.0
    write_rows(rows, tmp_path / "grid.parquet")
    content = (tmp_path / "grid.parquet").read_bytes()
    with pytest.raises(UsageError, match=r"rows\.sha256"):
        commit_results.rewrite(tmp_path / "grid.json")
    assert (tmp_path / "grid.parquet").read_bytes() == content
    assert json.loads((tmp_path / "grid.json").read_text())["schema"] == 1


def test_a_result_with_other_options_does_not_replace_a_committed_one(
    tmp_path: Path, commit_results: ModuleType
) -> None:
    """Files are named by model: floors on the slots of two models would otherwise overwrite each other."""
    made, committed = tmp_path / "results/coco/grid", tmp_path / "committed"
    made.mkdir(parents=True)
    (committed / "coco").mkdir(parents=True)
    result = read_result(OLD_RESULTS / "grid.json")
    rows = read_rows(OLD_RESULTS / "grid.json")
    write_result(result, rows, made, stem="key")
    commit_results.copy(tmp_path / "results", "coco", committed)
    commit_results.copy(tmp_path / "results", "coco", committed)  # the same options: replaced
    stored = (committed / "coco/grid.json").read_bytes()
    model = result.model.model_copy(update={"options": {**result.model.options, "rows": 9}})
    write_result(result.model_copy(update={"model": model}), rows, made, stem="key")
    with pytest.raises(UsageError, match=r"grid\.json: was made with the options .*'rows': 9"):
        commit_results.copy(tmp_path / "results", "coco", committed)
    assert (committed / "coco/grid.json").read_bytes() == stored
