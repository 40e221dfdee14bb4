"""Experiment trackers: where the numbers of a training or an evaluation go beside files, `--log NAME`.

Each is another package, imported when it is asked for. Trackers get numbers by name and a configuration of plain
values; they decide nothing, and without one everything is as before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from .errors import UsageError
from .optional import import_optional

PROJECT = "ocl-bench"
"""Project or experiment under which trackers list the runs."""


class Tracker(Protocol):
    """One run of an experiment tracker. `start` is called once and first, `finish` once and last."""

    def start(self, config: Mapping[str, Any]) -> None:
        """Begin a run with its settings: plain values by dotted name."""
        ...

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add finite numbers at a step."""
        ...

    def finish(self, summary: Mapping[str, float]) -> None:
        """Add the final numbers, and end the run."""
        ...


MakeTracker: TypeAlias = Callable[[str, Path], Tracker]


class _Tensorboard:
    """Event files of TensorBoard in the folder of the run."""

    def __init__(self, module: Any, name: str, folder: Path) -> None:
        self.writer = module.SummaryWriter(str(folder / "tensorboard" / name))

    def start(self, config: Mapping[str, Any]) -> None:
        lines = [f"| {name} | {value} |" for name, value in config.items()]
        self.writer.add_text("config", "\n".join(["| setting | value |", "|---|---|", *lines]))

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)

    def finish(self, summary: Mapping[str, float]) -> None:
        self.log(0, {f"final/{name}": value for name, value in summary.items()})
        self.writer.close()


class _Wandb:
    """Weights & Biases; without a login or `WANDB_MODE=offline` it says itself what to do."""

    def __init__(self, module: Any, name: str, folder: Path) -> None:
        self.module, self.name, self.folder = module, name, folder

    def start(self, config: Mapping[str, Any]) -> None:
        self.run = self._init(config)

    def _init(self, config: Mapping[str, Any]) -> Any:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.module.init(project=PROJECT, name=self.name, config=dict(config), dir=str(self.folder))

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self.run.log(dict(numbers), step=step)

    def finish(self, summary: Mapping[str, float]) -> None:
        self.run.summary.update(dict(summary))
        self.run.finish()


class _Trackio(_Wandb):
    """Trackio, which has the calls of Weights & Biases, without a folder and a summary."""

    def _init(self, config: Mapping[str, Any]) -> Any:
        return self.module.init(project=PROJECT, name=self.name, config=dict(config))

    def finish(self, summary: Mapping[str, float]) -> None:
        self.run.log({f"final/{name}": value for name, value in summary.items()})
        self.run.finish()


class _Mlflow:
    """MLflow; `MLFLOW_TRACKING_URI` says where."""

    def __init__(self, module: Any, name: str, folder: Path) -> None:
        self.module, self.name = module, name

    def start(self, config: Mapping[str, Any]) -> None:
        self.module.set_experiment(PROJECT)
        self.module.start_run(run_name=self.name)
        self.module.log_params({name: str(value)[:500] for name, value in config.items()})  # 500 is its limit

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self.module.log_metrics(dict(numbers), step=step)

    def finish(self, summary: Mapping[str, float]) -> None:
        self.module.log_metrics({f"final/{name}": value for name, value in summary.items()})
        self.module.end_run()


TRACKERS: dict[str, tuple[str, Callable[[Any, str, Path], Tracker]]] = {
    "wandb": ("wandb", _Wandb),
    "tensorboard": ("torch.utils.tensorboard", _Tensorboard),
    "trackio": ("trackio", _Trackio),
    "mlflow": ("mlflow", _Mlflow),
}
"""What `--log` takes: the module that is imported, and a class that is made of it, a name and a folder."""


class _Nowhere:
    """What stands for no tracker."""

    def start(self, config: Mapping[str, Any]) -> None: ...

    def log(self, step: int, numbers: Mapping[str, float]) -> None: ...

    def finish(self, summary: Mapping[str, float]) -> None: ...


def find_tracker(kind: str | None) -> MakeTracker:
    """A function that makes a tracker, which is not started yet, of the name of a run and a folder for its files.

    kind: a name in `TRACKERS`; None makes trackers that do nothing.

    Raises UsageError for an unknown name, and where the package is not installed.
    """
    if kind is None:
        return lambda name, folder: _Nowhere()
    if kind not in TRACKERS:
        raise UsageError(f"--log {kind}: unknown tracker; use {', '.join(TRACKERS)}")
    place, make = TRACKERS[kind]
    return partial(make, import_optional(place, kind, f"--log {kind}"))


@contextmanager
def tracked(tracker: Tracker, config: Mapping[str, Any]) -> Iterator[dict[str, float]]:
    """Start a tracker, and finish it with the numbers that were put into the yielded summary, also after an error."""
    summary: dict[str, float] = {}
    tracker.start(flat(config))
    try:
        yield summary
    finally:
        tracker.finish(finite(summary))


def finite(numbers: Mapping[str, float | None]) -> dict[str, float]:
    """The numbers that exist and are finite: trackers refuse others."""
    return {name: float(value) for name, value in numbers.items() if value is not None and math.isfinite(value)}


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted names, such as `scenes.count`.

    >>> flat({"lr": 0.1, "scenes": {"count": 8}})
    {'lr': 0.1, 'scenes.count': 8}
    """
    found: dict[str, Any] = {}
    for name, value in config.items():
        inner = flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
        found |= inner
    return found
