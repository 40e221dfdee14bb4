"""Curves of a training log: what is read of it, what is drawn, and logs that are not whole."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ocl_bench.core.errors import UsageError
from ocl_bench.training.curves import read_log, smooth, write_curves
from ocl_bench.training.run import draw_curves


def _log(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_read_log_keeps_the_last_value_of_a_step(tmp_path: Path) -> None:
    log = _log(
        tmp_path / "log.jsonl",
        {"step": 0, "loss": 2.0, "lr": 0.1},
        {"step": 1, "loss": 1.5, "loss_distill": 0.5},
        {"step": 1, "val": {"ari": 0.25}},
        {"step": 1, "loss": 1.0},
    )
    losses, metrics = read_log(log)
    assert losses == {"loss": {0: 2.0, 1: 1.0}, "loss_distill": {1: 0.5}}
    assert metrics == {"ari": {1: 0.25}}


def test_read_log_passes_over_an_unfinished_last_line_only(tmp_path: Path) -> None:
    log = _log(tmp_path / "log.jsonl", {"step": 0, "loss": 2.0})
    whole = log.read_text()
    log.write_text(whole + '{"step": 1, "lo')
    assert read_log(log)[0] == {"loss": {0: 2.0}}
    log.write_text('{"step": 1, "lo\n' + whole)
    with pytest.raises(UsageError, match="line 1"):
        read_log(log)


def test_write_curves(tmp_path: Path) -> None:
    log = _log(tmp_path / "log.jsonl", *({"step": i, "loss": 1 / (i + 1), "val": {"ari": i / 9}} for i in range(9)))
    write_curves(tmp_path / "curves.png", log)
    with Image.open(tmp_path / "curves.png") as both:
        both_width = both.width
    write_curves(tmp_path / "loss.png", _log(log, {"step": 0, "loss": -1.0}, {"step": 1, "loss": 2.0}))
    with Image.open(tmp_path / "loss.png") as one:
        assert one.width * 2 == both_width
    with pytest.raises(UsageError, match="nothing to draw"):
        write_curves(tmp_path / "x.png", _log(log, {"step": 0, "lr": 1.0}))
    with pytest.raises(UsageError, match="cannot be read"):
        write_curves(tmp_path / "x.png", tmp_path / "absent.jsonl")


def test_smooth_keeps_a_constant_and_skips_nan() -> None:
    assert np.allclose(smooth(np.full(500, 3.0)), 3.0)
    assert np.isfinite(smooth(np.array([1.0, math.nan, 1.0]))).all()
    assert smooth(np.array([0.0, 3.0, 0.0]))[1] == 1.0


def test_without_matplotlib_a_training_leaves_its_curves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    with monkeypatch.context() as patch, caplog.at_level("INFO", logger="ocl_bench"):
        patch.setitem(sys.modules, "matplotlib", None)
        draw_curves(tmp_path, "x")
    assert "no curves.png: drawing a picture needs matplotlib; pip install 'ocl-bench[plots]'" in caplog.text
    draw_curves(tmp_path, "x")
    assert (tmp_path / "curves.png").is_file()
