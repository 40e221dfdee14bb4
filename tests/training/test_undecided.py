"""The monitors of a self-distilling training in its log, and the stop of one whose teacher says nothing."""

from pathlib import Path

import pytest
import torch
from tiny_odis_training import odis_recipe, tiny_model, tiny_objective
from tiny_slotcon_training import slotcon_recipe
from tiny_slotcon_training import tiny_model as tiny_slotcon
from tiny_slotcon_training import tiny_objective as slotcon_objective
from tiny_training import learn_alone, log_rows

from ocl_bench.core.errors import UsageError
from ocl_bench.training.curves import read_log
from ocl_bench.training.undecided import Undecided

MONITORS = {"monitor_target_entropy", "monitor_mean_target_entropy", "monitor_head_cosine"}


def test_a_teacher_that_stays_undecided_is_stopped() -> None:
    watch = Undecided(share=0.5, steps=1000, out=Path("runs/x"))
    for step in range(0, 500, 10):
        watch.check(step, {"monitor_target_entropy": 0.97})
    with pytest.raises(UsageError, match=r"runs/x: since step 0 the teacher .* at step 500 .* 0\.97 of log K"):
        watch.check(500, {"monitor_target_entropy": 0.97})


def test_one_decided_step_begins_a_new_stretch() -> None:
    watch = Undecided(share=0.5, steps=1000, out=Path())
    for step in range(0, 900, 10):
        watch.check(step, {"monitor_target_entropy": 0.9 if step == 450 else 0.95})
    with pytest.raises(UsageError, match="since step 460"):
        watch.check(960, {"monitor_target_entropy": 0.95})


def test_short_trainings_other_losses_and_a_share_of_zero_are_never_stopped() -> None:
    short, off = Undecided(0.5, 100, Path()), Undecided(0.0, 1000, Path())
    for step in range(100):
        short.check(step, {"monitor_target_entropy": 1.0})
    for step in range(1000):
        off.check(step, {"monitor_target_entropy": 1.0})
        Undecided(0.1, 1000, Path(), since=0).check(step, {"total": 2.0})


def test_the_loop_stops_and_keeps_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocl_bench.training.undecided.PATIENCE", 3)
    flat = tiny_model(warmup_temperature=100.0, teacher_temperature=100.0)
    with pytest.raises(UsageError, match=r"at step 3 the entropy .* --set undecided=0"):
        learn_alone(tmp_path, flat, tiny_objective(), odis_recipe(log_every=1))
    assert [row["step"] for row in log_rows(tmp_path)] == [0, 1, 2, 3]
    flat = tiny_model(warmup_temperature=100.0, teacher_temperature=100.0)
    assert learn_alone(tmp_path / "on", flat, tiny_objective(), odis_recipe(log_every=1, undecided=0.0)).finished


def test_monitors_are_in_the_logs_of_odis_and_slotcon(tmp_path: Path) -> None:
    sharp = tiny_model(batch_norm=True, assignment="sinkhorn", warmup_temperature=0.02, teacher_temperature=0.02)
    learn_alone(tmp_path / "odis", sharp, tiny_objective(), odis_recipe(log_every=1))
    learn_alone(tmp_path / "slotcon", tiny_slotcon(), slotcon_objective(), slotcon_recipe(log_every=1))
    for name in ("odis", "slotcon"):
        rows = log_rows(tmp_path / name)
        assert all(row.keys() >= MONITORS and not any(f"loss_{one}" in row for one in MONITORS) for row in rows)
        assert all(0 <= row["monitor_target_entropy"] <= 1 + 1e-6 for row in rows)
        assert all(row["monitor_mean_target_entropy"] >= row["monitor_target_entropy"] - 1e-6 for row in rows)
        losses, _ = read_log(tmp_path / name / "log.jsonl")
        assert not MONITORS & losses.keys()
    assert torch.tensor([row["monitor_target_entropy"] for row in log_rows(tmp_path / "odis")]).mean() < 0.8
