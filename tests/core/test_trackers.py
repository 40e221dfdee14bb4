"""`--log`: each tracker gets the settings first, then numbers by step, then the summary, in its own calls."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ocl_bench.core.errors import UsageError
from ocl_bench.core.trackers import TRACKERS, find_tracker, tracked


class Recorder(ModuleType):
    """A package whose functions, and the objects that they return, keep what they are called with."""

    def __init__(self, name: str, calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] | None = None) -> None:
        super().__init__(name)
        self.calls = [] if calls is None else calls

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Recorder(f"{self.__name__}.{name}", self.calls)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        self.calls.append((self.__name__, arguments, keywords))
        return Recorder("run", self.calls)


def calls_of(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """What the package of a tracker is called with, by the last part of each call's name."""
    package = Recorder(kind)
    monkeypatch.setitem(sys.modules, TRACKERS[kind][0], package)
    tracker = find_tracker(kind)("run-1", folder)
    with tracked(tracker, {"lr": 0.1, "scenes": {"count": 8}}) as summary:
        tracker.log(3, {"loss": 0.5})
        summary["ari"] = 0.7
    found: dict[str, list[Any]] = {}
    for name, arguments, keywords in package.calls:
        found.setdefault(name.rpartition(".")[2], []).append((arguments, keywords))
    return found


def test_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = calls_of("wandb", tmp_path, monkeypatch)
    config = {"lr": 0.1, "scenes.count": 8}
    assert calls["init"] == [((), {"project": "ocl-bench", "name": "run-1", "config": config, "dir": str(tmp_path)})]
    assert calls["log"] == [(({"loss": 0.5},), {"step": 3})]
    assert calls["update"] == [(({"ari": 0.7},), {})] and len(calls["finish"]) == 1


def test_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = calls_of("trackio", tmp_path, monkeypatch)
    assert calls["init"][0][1] == {"project": "ocl-bench", "name": "run-1", "config": {"lr": 0.1, "scenes.count": 8}}
    assert calls["log"] == [(({"loss": 0.5},), {"step": 3}), (({"final/ari": 0.7},), {})]
    assert len(calls["finish"]) == 1


def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = calls_of("mlflow", tmp_path, monkeypatch)
    assert list(calls) == ["set_experiment", "start_run", "log_params", "log_metrics", "end_run"]
    assert calls["log_params"] == [(({"lr": "0.1", "scenes.count": "8"},), {})]
    assert calls["log_metrics"] == [(({"loss": 0.5},), {"step": 3}), (({"final/ari": 0.7},), {})]


def test_tensorboard_writes_event_files(tmp_path: Path) -> None:
    tracker = find_tracker("tensorboard")("run-1", tmp_path)
    with tracked(tracker, {"lr": 0.1}) as summary:
        tracker.log(3, {"loss": 0.5})
        summary["ari"] = 0.75
    events = EventAccumulator(str(tmp_path / "tensorboard" / "run-1")).Reload()
    assert [(one.step, one.value) for one in events.Scalars("loss")] == [(3, 0.5)]
    assert [one.value for one in events.Scalars("final/ari")] == [0.75]
    assert "config/text_summary" in events.Tags()["tensors"]


def test_a_run_that_fails_is_finished_and_numbers_that_are_none_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = Recorder("wandb")
    monkeypatch.setitem(sys.modules, "wandb", package)
    with pytest.raises(ZeroDivisionError), tracked(find_tracker("wandb")("x", tmp_path), {}) as summary:
        summary |= {"ari": float("nan"), "fg_ari": 0.5}
        raise ZeroDivisionError
    assert [call[1] for call in package.calls if call[0].endswith("update")] == [({"fg_ari": 0.5},)]
    assert package.calls[-1][0].endswith("finish")


def test_unknown_and_missing_trackers_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"--log neptune: unknown tracker; use wandb, tensorboard, trackio, mlflow"):
        find_tracker("neptune")
    for kind, (module, _) in TRACKERS.items():
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(UsageError, match=rf"--log {kind} needs \w+; pip install 'ocl-bench\[{kind}\]'"):
            find_tracker(kind)
