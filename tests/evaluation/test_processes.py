"""Several processes and one result: nothing is mixed, nothing is lost, and nobody waits for ever."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from tiny_evaluation import HERE, SlotModel, tiny_plan

from ocl_bench.core.errors import UsageError
from ocl_bench.core.types import Batch, Prediction
from ocl_bench.evaluation import heads, ranks
from ocl_bench.evaluation.run import run
from ocl_bench.evaluation.shards import Shard, WorkFolder
from ocl_bench.results.record import Result, read_rows


def evaluate(tmp_path: Path, *arguments: Any, **keywords: Any) -> Result:
    return run(tiny_plan(*arguments, **keywords), results=tmp_path, progress=False)


def test_the_second_of_two_equal_evaluations_waits_and_reuses_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = tiny_plan(count=150), tiny_plan(count=150)
    written, go_on, results = Event(), Event(), {}
    write = WorkFolder.write

    def write_and_pause(self: WorkFolder, index: int, shard: Shard) -> None:
        write(self, index, shard)
        written.set()
        assert go_on.wait(15)

    monkeypatch.setattr(WorkFolder, "write", write_and_pause)
    thread = Thread(target=lambda: results.update(one=run(first, results=tmp_path, progress=False)))
    thread.start()
    assert written.wait(15)
    other = Thread(target=lambda: results.update(two=run(second, results=tmp_path, progress=False)))
    with caplog.at_level(logging.INFO, "ocl_bench"):
        other.start()
        deadline = time.monotonic() + 10
        while "waiting for another process" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.01)
        go_on.set()
        thread.join()
        other.join()
    assert caplog.text.count("waiting for another process, which computes") == 1
    assert second.data.reader.reads == []  # type: ignore[attr-defined]
    assert not results["one"].reused and results["two"].reused
    assert results["two"].rows == results["one"].rows and len(read_rows(results["two"].path)) == 150
    assert sorted(path.suffix for path in results["one"].path.parent.iterdir()) == [".json", ".parquet", ".yaml"]


class Interrupted(SlotModel):
    """While it predicts its third shard, another live object of its class is evaluated."""

    other: Any = None
    fingerprint = "the same for all objects, although their slots differ"

    def predict(self, batch: Batch) -> Prediction:
        if batch.ids[0] == "s0128" and self.other is not None:
            self.other()
        return super().predict(batch)


def test_two_live_models_of_a_class_never_read_each_others_shards(tmp_path: Path) -> None:
    alone = [evaluate(tmp_path / str(slots), Interrupted(slots), count=150) for slots in (2, 4)]
    together = {}
    outer = Interrupted(2)
    object.__setattr__(
        outer, "other", lambda: together.update(inner=evaluate(tmp_path / "both", Interrupted(4), count=150))
    )
    together["outer"] = evaluate(tmp_path / "both", outer, count=150)
    assert together["inner"].identity.key == together["outer"].identity.key  # what made the mix possible
    assert [together["outer"].metrics, together["inner"].metrics] == [one.metrics for one in alone]
    assert alone[0].metrics != alone[1].metrics


def test_each_shard_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, done = WorkFolder.read, []

    def note(self: WorkFolder, wanted: int) -> Shard | None:
        shard = read(self, wanted)
        done.extend([wanted] if shard is not None else [])
        return shard

    monkeypatch.setattr(WorkFolder, "read", note)
    evaluate(tmp_path, count=150)
    assert done == [0, 1, 2]


def test_a_shard_that_is_not_whole_on_the_disk_is_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = WorkFolder.write

    def damage(self: WorkFolder, index: int, shard: Shard) -> None:
        write(self, index, shard)
        if index == 1:
            self.path(index).write_bytes(b"PAR1")

    monkeypatch.setattr(WorkFolder, "write", damage)
    with pytest.raises(OSError, match="cannot be read back after it was written"):
        evaluate(tmp_path / "one", count=150)
    monkeypatch.undo()
    assert not list(tmp_path.rglob("*.json"))
    again, other = (evaluate(tmp_path / place, count=150) for place in ("one", "other"))
    assert not again.reused and read_rows(again.path).equals(read_rows(other.path))


def test_a_result_of_other_rows_than_those_attempted_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, written = WorkFolder.read, []

    def read_another(self: WorkFolder, wanted: int) -> Shard | None:
        """After all is computed, one shard is another one's."""
        written.extend(path for path in self.folder.glob("*-00002.parquet"))
        return read(self, 0 if wanted == 1 and written else wanted)

    monkeypatch.setattr(WorkFolder, "read", read_another)
    with pytest.raises(UsageError, match=r"150 samples were attempted, of which 0 failed, but there are \d+ rows"):
        evaluate(tmp_path, count=150, noise_seeds=[0, 1])
    monkeypatch.undo()
    assert not list(tmp_path.rglob("*.json")) and not list(tmp_path.rglob("*.work"))
    assert not evaluate(tmp_path, count=150, noise_seeds=[0, 1]).reused


@pytest.mark.parametrize("rank", ["0", "1"])
def test_variables_of_a_launcher_that_is_gone_are_named_soon(
    rank: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ranks.PATIENCE == 10
    monkeypatch.setattr(ranks, "PATIENCE", 0.5)
    for name, value in {"WORLD_SIZE": "2", "RANK": rank, "MASTER_ADDR": "node17"}.items():
        monkeypatch.setenv(name, value)
    expected = r"which has not started; .*MASTER_ADDR=node17.* `unset RANK WORLD_SIZE MASTER_ADDR`.*torchrun"
    with pytest.raises(UsageError, match=expected):
        evaluate(tmp_path, HERE)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_world_without_a_rank_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UsageError, match=r"WORLD_SIZE 4 without a RANK; WORLD_SIZE=4 in the environment: .*unset"):
        evaluate(tmp_path)


def test_a_rank_that_is_still_importing_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its process is on this host: it is only slow. When it ends, the waiting ends."""
    monkeypatch.setattr(ranks, "PATIENCE", 0.2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    late = {**os.environ, "RANK": "1"}
    monkeypatch.setenv("RANK", "0")
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(5)"], env=late):
        start = time.monotonic()
        with caplog.at_level(logging.INFO, "ocl_bench"), pytest.raises(UsageError, match="has not started"):
            evaluate(tmp_path)
    assert time.monotonic() - start > 1.5 and caplog.text.count("waits for rank 1, which has not started") == 1


def test_nobody_waits_for_a_rank_that_has_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for its shards nor for its head."""
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RANK", "1")
    with ranks.Companions(ranks.ProcessRank(2, 1), tmp_path / "ranks") as second:
        with ranks.Companions(ranks.ProcessRank(2, 0), tmp_path / "ranks") as first:
            first.meet()
            second.meet()
        monkeypatch.setattr(ranks, "_SILENCE", 0.3)  # not before: on a busy machine a living rank is silent so long
        with pytest.raises(UsageError, match="rank 0 of 2 has stopped; start the same command again"):
            heads.cached("ab" * 32, dict, check=second.check)
        with pytest.raises(UsageError, match="rank 0 of 2 has stopped"):
            WorkFolder(tmp_path / "work", {}).collect(1, [], check=second.check)
    assert not (tmp_path / "ranks").exists()
