"""One sample that a model cannot do is counted, in every family and wherever it falls; a broken model ends the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
from all_families import CASES, FAULTS, FITTED, Everything, annotated, small_task, spoiled
from tiny_evaluation import SlotModel, memory_data, tiny_plan
from tiny_videos import Colours, memory_videos, video_task

from ocl_bench.core.errors import NotApplicableError, UsageError
from ocl_bench.core.types import Batch, Prediction
from ocl_bench.evaluation.failures import GIVE_UP
from ocl_bench.evaluation.plan import make_plan
from ocl_bench.evaluation.run import run
from ocl_bench.results.record import Result
from ocl_bench.results.rows import read_rows

COUNT, TRAIN = 9, 12
PLACES = {"first": "image000", "inside": "image005", "last and alone": "image008"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "cache"))


def result(case: str, model: Any, folder: Path) -> Result:
    train = annotated(TRAIN, 100) if case in FITTED else None
    plan = make_plan(model, small_task(case), data=annotated(COUNT), train=train, batch_size=4, device="cpu")
    return run(plan, results=folder, progress=False)


def rows_of(found: Result) -> pandas.DataFrame:
    assert found.path is not None
    return read_rows(found.path)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("place", PLACES)
def test_a_bad_sample_is_counted_wherever_it_falls(tmp_path: Path, place: str, fault: str) -> None:
    bad = PLACES[place]
    found = result("discovery", Everything(bad, fault), tmp_path / "bad")
    assert [failure.id for failure in found.counts.failed] == [bad]
    text = found.counts.failed[0].error
    assert text.startswith(f"sample {bad}: model everything: ") and "\n" not in text
    assert found.identity.status == "failed samples" and found.counts.scored == COUNT - 1
    # The others have exactly the rows of a run without it.
    whole = rows_of(result("discovery", Everything(), tmp_path / "whole"))
    pandas.testing.assert_frame_equal(rows_of(found), whole[whole["id"] != bad].reset_index(drop=True))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("case", [case for case in CASES if case != "discovery"])
def test_so_it_is_in_every_family(tmp_path: Path, case: str, fault: str) -> None:
    bad = PLACES["inside"]
    found = result(case, Everything(bad, fault), tmp_path)
    assert [failure.id for failure in found.counts.failed] == [bad]
    assert found.counts.scored == COUNT - 1 and bad not in set(rows_of(found)["id"])


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("case", FITTED)
def test_a_bad_sample_of_the_fit_split_is_left_out(
    tmp_path: Path, case: str, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "ocl_bench")
    found = result(case, Everything("image105", fault), tmp_path)
    assert not found.counts.failed and found.counts.scored == COUNT
    assert f"left out: 1 of {TRAIN} images of the fit split fail, first: sample image105" in caplog.text


class BadVideo(Colours):
    """A model of images that goes wrong on one video."""

    def __init__(self, bad: str, fault: str) -> None:
        super().__init__()
        self.bad, self.fault = bad, fault

    def predict(self, batch: Batch) -> Prediction:
        found = super().predict(batch)
        return spoiled(found, list(range(len(batch))), self.fault) if self.bad in batch.ids else found


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("bad", ["video0", "video1", "video2"])
def test_a_bad_video_is_counted(tmp_path: Path, bad: str, fault: str) -> None:
    plan = make_plan(BadVideo(bad, fault), video_task(), data=memory_videos(3), batch_size=4, device="cpu")
    found = run(plan, results=tmp_path, progress=False)
    assert [failure.id for failure in found.counts.failed] == [bad]
    assert found.counts.failed[0].error.startswith(f"sample {bad}: ") and found.counts.scored == 2


def bank_of_widths(batch: Batch) -> Prediction:
    return Prediction(embedding=batch.image.flatten(1)[:, : 7 if "image105" in batch.ids else 6])


def query_of_other_width(batch: Batch) -> Prediction:
    return Prediction(embedding=batch.image.flatten(1)[:, : 7 if "image005" in batch.ids else 6])


class Asked:
    def __init__(self, make: Any) -> None:
        self.make, self.calls = make, 0

    def predict(self, batch: Batch) -> Any:
        self.calls += 1
        return self.make(batch)


@pytest.mark.parametrize("make, failed", [(bank_of_widths, 0), (query_of_other_width, 1)])
def test_features_of_another_length_fail_their_own_images(tmp_path: Path, make: Any, failed: int) -> None:
    """A batch of one image each: the tensor of a batch has one width."""
    data, train = annotated(COUNT), annotated(TRAIN, 100)
    plan = make_plan(Asked(make), small_task("knn"), data=data, train=train, batch_size=1, device="cpu")
    found = run(plan, results=tmp_path, progress=False)
    assert [one.id for one in found.counts.failed] == ["image005"][:failed]


class FailsFor(SlotModel):
    """Raises for the first samples. calls: number of predictions."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count, self.calls = count, 0

    def predict(self, batch: Batch) -> Prediction:
        self.calls += 1
        if any(int(sample_id[1:]) < self.count for sample_id in batch.ids):
            raise ValueError("no")
        return super().predict(batch)


def test_some_bad_samples_at_the_start_are_counted(tmp_path: Path) -> None:
    found = run(tiny_plan(FailsFor(GIVE_UP - 1), count=20), results=tmp_path, progress=False)
    assert len(found.counts.failed) == GIVE_UP - 1 and found.counts.scored == 21 - GIVE_UP


@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_a_broken_model_ends_the_run_at_once_with_its_first_error(tmp_path: Path, batch_size: int) -> None:
    model = FailsFor(1000)
    with pytest.raises(UsageError, match=r"predict failed on .* \(ValueError: no"):
        run(tiny_plan(model, count=100, batch_size=batch_size), results=tmp_path, progress=False)
    assert model.calls <= 2 * GIVE_UP + 1


def test_the_error_of_a_model_that_does_not_fit_is_kept(tmp_path: Path) -> None:
    """`n/a` in a matrix comes from its type."""
    model = Asked(lambda batch: Prediction(embedding=batch.image.flatten(1)))
    with pytest.raises(NotApplicableError, match=r"Prediction\.masks is missing"):
        run(tiny_plan(model, count=30), results=tmp_path, progress=False)
    assert model.calls <= 2 * GIVE_UP + 1


def out_of_memory(batch: Batch) -> Prediction:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


def test_want_of_memory_is_no_fault_of_a_sample(tmp_path: Path) -> None:
    model = Asked(out_of_memory)
    with pytest.raises(UsageError, match="out of memory"):
        run(tiny_plan(model, count=30), results=tmp_path, progress=False)
    assert model.calls == 1


def test_a_resumed_run_remembers_that_the_model_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight bad samples at the start of the second shard do not end it, though nothing was predicted before them."""

    class Second(SlotModel):
        stop = True

        def predict(self, batch: Batch) -> Prediction:
            numbers = [int(sample_id[1:]) for sample_id in batch.ids]
            if self.stop and max(numbers) >= 64:
                raise KeyboardInterrupt
            if any(64 <= number < 64 + GIVE_UP for number in numbers):
                raise ValueError("no")
            return super().predict(batch)

    Second.fingerprint = "second"  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        run(tiny_plan(Second(), data=memory_data(80)), results=tmp_path, progress=False)
    Second.stop = False
    found = run(tiny_plan(Second(), data=memory_data(80)), results=tmp_path, progress=False)
    assert len(found.counts.failed) == GIVE_UP and found.counts.scored == 80 - GIVE_UP
