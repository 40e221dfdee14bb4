"""Processes that read ahead change no row, no failure and no message, and end when they should."""

from __future__ import annotations

import logging
import pickle
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import forked
import numpy as np
import psutil
import pytest
import torch
from all_families import Everything, annotated, small_task
from readers_in_processes import Buggy, Dying, Locked, Refusing, Warning, Watching, data_of
from sliding_squares import Straight, dynamics_task, sliding
from tiny_evaluation import memory_data, tiny_plan
from tiny_evaluation_in_processes import until_killed
from tiny_videos import Colours, VideoMemory, memory_videos, video_task
from typer.testing import CliRunner

from ocl_bench.cli import app
from ocl_bench.core.errors import SampleError, UsageError
from ocl_bench.core.types import Batch, Prediction
from ocl_bench.evaluation import workers as module
from ocl_bench.evaluation.loop import Runner
from ocl_bench.evaluation.plan import Plan, make_plan
from ocl_bench.evaluation.run import run
from ocl_bench.results.record import Result


@pytest.fixture(scope="module", autouse=True)
def server() -> None:
    """The server from which processes are forked, with everything imported for later tests, too."""
    assert forked.run(int).returncode == 0


def evaluate(place: Path, **keywords: Any) -> Result:
    return run(tiny_plan(**keywords), results=place, progress=False)


def alike(plan: Plan, tmp_path: Path, workers: int = 2) -> Result:
    """The result of a plan, which has the same rows, failures and values with processes that read."""
    with_them, alone = (
        run(replace(plan, workers=number), results=tmp_path / f"{number}", progress=False) for number in (workers, 0)
    )
    assert with_them.rows.sha256 == alone.rows.sha256
    assert with_them.counts == alone.counts and with_them.metrics == alone.metrics and with_them.fit == alone.fit
    return with_them


@pytest.mark.parametrize("workers", [1, 3])
def test_rows_and_failures_of_images_are_the_same(tmp_path: Path, workers: int) -> None:
    broken = (0, 4, 5, 6, 7, 70, 149)  # a whole batch of four among them
    data = memory_data(150, broken=broken)
    done = alike(tiny_plan(data=data, noise_seeds=[0, 1]), tmp_path, workers)
    assert [failure.id for failure in done.counts.failed] == [f"s{number:04d}" for number in broken]
    assert done.counts.failed[0].error == "sample s0000: image cannot be read; repair the file"


@pytest.mark.parametrize("case", ["detection", "linear", "dense", "recognition", "knn"])
def test_rows_of_each_family_are_the_same_with_its_head_or_bank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    task = small_task(case)
    fit = annotated(12, 100) if task.fit else None
    plan = make_plan(Everything(), task, data=annotated(10), train=fit, device="cpu", batch_size=4)
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "cache"))
    alike(plan, tmp_path)


class NotFinite(Colours):
    """Gives NaN in the second clip of a video."""

    def predict(self, batch: Batch) -> Prediction:
        found = super().predict(batch)
        if batch.ids[0] == "video2" and self.calls_of("video2") > 1:
            assert found.masks is not None
            return replace(found, masks=torch.full_like(found.masks, torch.nan))
        return found

    def __init__(self) -> None:
        self.seen: list[str] = []

    def calls_of(self, video: str) -> int:
        self.seen.append(video)
        return self.seen.count(video)


def test_rows_and_failures_of_videos_are_the_same(tmp_path: Path) -> None:
    """The last frame of video 1 is broken, and the prediction of video 2 fails while its last clips are read."""
    for number, model in enumerate((Colours, NotFinite)):
        data = memory_videos(5, frames=13, broken=(1,))
        rows = []
        for workers in (0, 2):
            plan = make_plan(model(), video_task(), data=data, device="cpu", batch_size=3, noise_seeds=[0, 1])
            done = run(replace(plan, workers=workers), results=tmp_path / f"{number}-{workers}", progress=False)
            rows.append((done.rows.sha256, done.counts, done.metrics))
        assert rows[0] == rows[1]
        assert [failure.id for failure in done.counts.failed] == ["video1", "video2"][: 1 + number]


def test_rows_of_videos_of_which_some_frames_count_are_the_same(tmp_path: Path) -> None:
    data = replace(sliding(3, 100), reader=replace(sliding(3, 100).reader, late=5))  # type: ignore[type-var]
    alike(make_plan(Straight(), dynamics_task(), data=data, train=sliding(6, 0), device="cpu", batch_size=4), tmp_path)


def test_a_video_that_cannot_be_opened_fails_and_is_opened_once_more_at_most(tmp_path: Path) -> None:
    class Closed(VideoMemory):
        def __getitem__(self, index: int) -> Any:
            opened.append(index)
            if index == 1:
                raise SampleError("video1", "there is no such folder; unpack the archive again")
            return super().__getitem__(index)

    opened: list[int] = []
    data = replace(memory_videos(3), reader=Closed(3))  # type: ignore[arg-type]
    done = run(make_plan(Colours(), video_task(), data=data, device="cpu"), results=tmp_path, progress=False)
    assert [failure.id for failure in done.counts.failed] == ["video1"]
    assert opened[:3] == [0, 1, 2], "each once; then the first one again, to compare two predictions"


def test_what_reads_is_another_process(tmp_path: Path) -> None:
    reader = Watching(40)
    evaluate(tmp_path / "2", data=data_of(reader), workers=2)
    assert set(reader.reads) == set(range(4)), "only the first batch, to compare two predictions"


def test_a_message_is_logged_here_and_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logged: dict[int, list[str]] = {}
    for workers in (0, 2):
        module.warn_once.__globals__["_said"].clear()
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="ocl_bench"):
            evaluate(tmp_path / f"{workers}", data=data_of(Warning(40)), workers=workers)
        logged[workers] = [record.getMessage() for record in caplog.records if "read" in record.getMessage()]
        odd = [record.getMessage() for record in caplog.records if "odd" in record.getMessage()]
        assert odd == ["image 0 is odd, perhaps others are, too"]
    assert logged[2][:40] == logged[0][:40] == [f"read {number}" for number in range(40)]


def test_a_process_that_dies_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a process that reads the data has died; .*--workers") as caught:
        evaluate(tmp_path, data=data_of(Dying(150)), workers=2)
    assert "\n" not in str(caught.value)
    assert len(list(tmp_path.rglob("shard-*.parquet"))) == 0, "image 40 is in the first shard"
    evaluate(tmp_path, data=data_of(Dying(150)))


def test_errors_that_are_of_no_sample_are_those_of_one_process(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^the package av is missing; pip install av$"):
        evaluate(tmp_path, data=data_of(Refusing(9)), workers=1)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        evaluate(tmp_path, data=data_of(Buggy(9)), workers=1)


def test_a_reader_that_cannot_be_sent_is_read_here_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UsageError, match=r"cannot be sent to another process .*; read with --workers 0$"):
        evaluate(tmp_path, data=data_of(Locked(9)), workers=1)
    monkeypatch.setattr(module, "_WORTHWHILE", 0.0)
    with caplog.at_level(logging.INFO, logger="ocl_bench"):
        done = evaluate(tmp_path / "auto", data=data_of(Locked(9)), workers="auto")
    alone = evaluate(tmp_path / "0", data=data_of(Locked(9)))
    assert done.rows.sha256 == alone.rows.sha256
    assert "this process goes on reading" in caplog.text
    monkeypatch.setattr(module, "_LARGEST", 2**20)
    large = Watching(9)
    large.pixels = np.zeros(2**20, np.uint8)  # type: ignore[attr-defined]
    with caplog.at_level(logging.INFO, logger="ocl_bench"):
        done = evaluate(tmp_path / "large", data=data_of(large), workers="auto")
    assert done.rows.sha256 == alone.rows.sha256 and "it takes more than 1 MB" in caplog.text
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: SimpleNamespace(free=1024))
    with caplog.at_level(logging.INFO, logger="ocl_bench"):
        done = evaluate(tmp_path / "container", data=data_of(Watching(9)), workers="auto")
    assert done.rows.sha256 == alone.rows.sha256 and "/dev/shm has 0 MB free" in caplog.text


def test_auto_starts_processes_once_reading_has_taken_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = evaluate(tmp_path / "0", data=data_of(Watching(150)))
    short, long = Watching(150), Watching(150)
    evaluate(tmp_path / "short", data=data_of(short), workers="auto")
    assert set(short.reads) == set(range(150))
    monkeypatch.setattr(module, "_WORTHWHILE", 0.0)
    done = evaluate(tmp_path / "long", data=data_of(long), workers="auto")
    assert set(long.reads) == set(range(4)) and done.rows.sha256 == alone.rows.sha256


def test_kill_and_resume_give_the_same_bytes_and_leave_no_process(tmp_path: Path) -> None:
    killed = forked.run(until_killed, 2, tmp_path / "killed", 2, environment={"MARK": str(tmp_path)})
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(list((tmp_path / "killed").rglob("shard-*.parquet"))) == 2
    resumed = evaluate(tmp_path / "killed", count=150, noise_seeds=[0, 1], workers=2)
    straight = evaluate(tmp_path / "straight", count=150, noise_seeds=[0, 1])
    assert ended(lambda: marked(tmp_path))
    assert resumed.rows.sha256 == straight.rows.sha256


def test_processes_end_with_the_block() -> None:
    runner, me = Runner(tiny_plan(count=150, workers=2)), psutil.Process()
    before = set(me.children(recursive=True))

    def left() -> list[psutil.Process]:
        return [one for one in me.children(recursive=True) if one not in before]

    with runner.reading([range(150)]) as reads:
        next(reads).get()
        assert len(left()) == 2
    assert ended(left)


def marked(place: Path) -> list[psutil.Process]:
    """The processes that were started with this value of MARK."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("MARK") == str(place) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def ended(look: Callable[[], Sequence[psutil.Process]]) -> bool:
    """Whether processes end soon. look: gives those that are left."""
    deadline = time.monotonic() + 15
    while look() and time.monotonic() < deadline:
        time.sleep(0.1)
    return not look()


def test_errors_of_samples_cross_whole() -> None:
    error = pickle.loads(pickle.dumps(SampleError("a", "is broken; repair it")))
    assert (str(error), error.sample_id) == ("sample a: is broken; repair it", "a")


@pytest.mark.parametrize("text", ["-1", "two", "1.5", ""])
def test_wrong_numbers_are_refused(text: str) -> None:
    shown = CliRunner().invoke(app, ["eval", "-m", "grid", "-t", "clevrtex", "--workers", text])
    assert shown.exit_code == 2 and isinstance(shown.exception, UsageError | SystemExit)
    for workers in (-1, "two", 1.5):
        with pytest.raises(UsageError, match="workers"):
            tiny_plan(workers=workers)
