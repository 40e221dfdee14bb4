"""A training that nobody watches writes a line for each validation, and not one for each step."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from ocl_bench.training.progress import training_progress


def test_each_validation_is_one_line(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocl_bench.training.progress.time", SimpleNamespace(monotonic=lambda: 112.4))
    with caplog.at_level(logging.INFO, "ocl_bench"), training_progress(10, 2, True, begun=100.0) as show:
        for step in range(3, 11):
            numbers = {"ari": 0.5} if 4 <= step < 8 else {"ari": 0.75} if step >= 8 else {}
            show(step, {"loss": 1.0}, numbers)
    assert caplog.messages == [
        "training: 8 steps",
        "training: the first step was done after 12 s",
        "training: step 4 of 10, loss 1.0000, validation: ari 0.500",
        "training: step 8 of 10, loss 1.0000, validation: ari 0.750",
    ]


def test_a_training_without_progress_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ocl_bench"), training_progress(1, 0, False) as show:
        show(1, {"loss": 1.0}, {"ari": 0.5})
    assert caplog.messages == []
