"""Files of the work folder: whole, or as good as missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
import pyarrow
import pyarrow.parquet
import pytest

from ocl_bench.evaluation.shards import Shard, WorkFolder
from ocl_bench.results.record import Failure

ROWS = pandas.DataFrame({"id": ["a", "b", "c"], "noise_seed": [0, 0, 1], "ari": [0.25, np.nan, 0.75]})
SHARD = Shard(ROWS, (Failure(id="d", error="no"),), "decoder", 2.0, 1.0)


@pytest.fixture
def work(tmp_path: Path) -> WorkFolder:
    folder = WorkFolder(tmp_path / "work", {"batch_size": 4})
    folder.write(0, SHARD)
    return folder


def same(one: Shard, other: Shard) -> bool:
    return one.rows.equals(other.rows) and replace(one, rows=ROWS) == replace(other, rows=ROWS)


def test_a_shard_comes_back(work: WorkFolder) -> None:
    found = work.read(0)
    assert found is not None and same(found, SHARD) and work.read(1) is None


def test_a_shard_that_was_copied_to_another_place_is_missing(work: WorkFolder) -> None:
    work.path(0).rename(work.path(1))
    assert work.read(1) is None


def test_columns_of_lists_and_shards_without_rows_come_back(work: WorkFolder) -> None:
    lists = {"scores": [np.array([0.5, 0.25]), np.array([]), np.array([1.0])], "names": [["a"], [], ["b", "c"]]}
    cells = [np.array([1, 2], dtype=np.int32), np.array([], dtype=np.int32), np.array([3], dtype=np.int32)]
    for index, rows in enumerate((ROWS.assign(**lists, cells=cells), ROWS.iloc[:0].assign(cells=[])), start=1):
        work.write(index, replace(SHARD, rows=rows))
        found = work.read(index)
        assert found is not None
        pandas.testing.assert_frame_equal(found.rows, rows, check_dtype=False)
    assert len(work.collect(3, [1, 2])) == 3


def test_a_shard_that_cannot_be_read_back_is_said(work: WorkFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocl_bench.evaluation.shards.write_atomically", lambda path, write: path.write_bytes(b"PAR1"))
    work.write(1, SHARD)
    for own in (lambda: work.read_back([0, 1]), lambda: work.collect(2, [0, 1])):
        with pytest.raises(OSError, match=r"cannot be read back after it was written.*00001"):
            own()


def test_a_changed_byte_never_changes_what_is_read(work: WorkFolder) -> None:
    path = work.path(0)
    content = path.read_bytes()
    missing = 0
    for place in range(0, len(content), 3):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x11]) + content[place + 1 :])
        found = work.read(0)
        missing += found is None
        assert found is None or same(found, SHARD), place
    assert missing > 100


@pytest.mark.parametrize("rows", [[], [1, 2], [0, 1, 2, 0, 1, 2]])
def test_a_shard_of_more_or_fewer_rows_is_missing(work: WorkFolder, rows: list[int]) -> None:
    table = pyarrow.parquet.read_table(work.path(0))
    pyarrow.parquet.write_table(table.take(pyarrow.array(rows, pyarrow.int64())), work.path(0))
    assert work.read(0) is None
