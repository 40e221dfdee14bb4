"""Measures one model, or two in turns: counts, memory and time, and the ratios of the second model to the first."""

from __future__ import annotations

import os
import platform
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import bootstrap

from ...core.errors import UsageError
from ...core.files import write_atomically
from ...core.log import logger
from ...core.machine import fixed_arithmetic
from ...results.measured import Figure
from .counts import Operations, Parameters, count_operations, count_parameters
from .memory import method, peak_memory
from .subject import ModelChoice, ProfileSetup, Subject

RESAMPLES = 2000
"""Of the bootstrap over turns."""


@dataclass(frozen=True)
class TimingRatio:
    """Time per frame of the second model divided by that of the first: at 2 the first one takes half of the time.

    low, high: 95 % interval.
    """

    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class ModelCost:
    """The cost of one model.

    Attributes:
        model: its name. options: those it was built with by the caller.
        random_weights: whether no weights were loaded.
        video: whether its input was clips instead of images.
        size: side of a frame in pixels.
        frames: frames (or images) of one pass.
        parameters, operations: counts.
        memory: peak of one pass in bytes; None where it cannot be measured.
        seconds: of each timed pass, in order.
    """

    model: str
    options: dict[str, Any]
    random_weights: bool
    video: bool
    size: int
    frames: int
    parameters: Parameters
    operations: Operations
    memory: int | None
    seconds: tuple[float, ...]

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """First quartile, median and third quartile of the seconds of a pass."""
        first, middle, third = np.quantile(self.seconds, [0.25, 0.5, 0.75])
        return float(first), float(middle), float(third)

    @property
    def frames_per_second(self) -> float:
        """Frames per second of the median pass."""
        return self.frames / self.quartiles[1]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        first, middle, third = self.quartiles
        spread = {"median": middle, "q1": first, "q3": third, "all": list(self.seconds)}
        return {**asdict(self), "seconds": spread, "frames_per_second": self.frames_per_second}


@dataclass(frozen=True)
class Profile:
    """Costs of one or two models that were measured in turns, and the conditions."""

    setup: ProfileSetup
    machine: dict[str, Any]
    costs: tuple[ModelCost, ...]

    @property
    def ratios(self) -> dict[str, float]:
        """Counts and memory of the second model divided by those of the first; empty where there is only one model.

        Operations are per frame. A count that is 0 or not measured has no ratio.
        """
        if len(self.costs) < 2:
            return {}
        first, second = self.costs
        pairs = {
            "parameters": (first.parameters.inference, second.parameters.inference),
            "operations": (first.operations.total, second.operations.total),
            "operations_without_attention": (first.operations.without_attention, second.operations.without_attention),
            "memory": (first.memory, second.memory),
        }
        return {name: b / a for name, (a, b) in pairs.items() if a and b}

    @property
    def time_ratio(self) -> TimingRatio | None:
        """The ratio of the times per frame, from the turns; None where there is only one model."""
        return ratio_of_times(*self.costs) if len(self.costs) == 2 else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return {
            "setup": asdict(self.setup),
            "machine": self.machine,
            "memory": method(self.setup.device),
            "models": [cost.to_dict() for cost in self.costs],
            "ratios": self.ratios,
            "time_ratio": asdict(ratio) if (ratio := self.time_ratio) else None,
        }


def profile_models(
    choices: Sequence[ModelChoice],
    setup: ProfileSetup,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Profile:
    """Count and time one model, or two in turns (A B A B ...).

    Where only one of two models reads videos, both get clips: their times per frame are then of the same frames.

    Args:
        choices: one or two models.
        setup: how they are measured.
        clock: seconds that only grow; tests replace it.

    Raises:
        UsageError: for a model that has no weights, or that fails.
    """
    with fixed_arithmetic(setup.threads):
        machine = describe_machine(setup)
        subjects = [Subject(choice, setup) for choice in choices]
        if len({subject.video for subject in subjects}) > 1:
            # A model of images alone would see `batch` frames in a pass, and the other one `batch` clips.
            subjects = [
                subject if subject.video else Subject(subject.choice, setup, as_video=True) for subject in subjects
            ]
        counts = []
        for subject in subjects:
            logger.info("%s: counting parameters, operations and memory", subject.choice.name)
            plain = subject.in_float32
            counts.append((count_parameters(plain), count_operations(plain), peak_memory(subject)))
        names = " and ".join(choice.name for choice in choices)
        logger.info("timing %s: %d passes each after %d", names, setup.repeats, setup.warmup)
        times = in_turns([subject.run for subject in subjects], setup.warmup, setup.repeats, clock)
    costs = (_cost(*entry) for entry in zip(subjects, counts, times, strict=True))
    return Profile(setup, machine, tuple(costs))


def _cost(
    subject: Subject, counts: tuple[Parameters, Operations, int | None], seconds: NDArray[np.float64]
) -> ModelCost:
    """The cost of a subject. counts: parameters, operations, peak memory. seconds: of its passes."""
    return ModelCost(
        subject.choice.name,
        dict(subject.choice.options),
        subject.loaded.untrained,
        subject.video,
        subject.size,
        subject.frames,
        *counts,
        tuple(float(value) for value in seconds),
    )


def in_turns(
    passes: Sequence[Callable[[], None]], warmup: int, repeats: int, clock: Callable[[], float]
) -> NDArray[np.float64]:
    """Seconds (models, repeats) of passes in turns.

    Whatever slows the machine down for a while then slows down all models.

    Args:
        passes: one function for each model.
        warmup: passes of each model that are not timed.
        repeats: passes of each model that are timed.
        clock: seconds that only grow.
    """
    seconds = np.empty((len(passes), repeats))
    for number in range(-warmup, repeats):  # negative numbers are passes to warm up
        for row, run_pass in enumerate(passes):
            start = clock()
            run_pass()
            if number >= 0:
                seconds[row, number] = clock() - start
    return seconds


def ratio_of_times(first: ModelCost, second: ModelCost) -> TimingRatio:
    """The second model's seconds per frame divided by the first's: median and percentile bootstrap over the turns."""
    turns = (np.asarray(second.seconds) / second.frames) / (np.asarray(first.seconds) / first.frames)
    middle = float(np.median(turns))
    if np.ptp(turns) == 0:  # all resamples are equal, and scipy warns about them
        return TimingRatio(middle, middle, middle)
    interval = bootstrap(
        (turns,), np.median, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(0), vectorized=True
    ).confidence_interval
    return TimingRatio(middle, float(interval.low), float(interval.high))


def describe_machine(setup: ProfileSetup) -> dict[str, Any]:
    """Conditions that no option sets: device, TF32, processors and their load before, versions."""
    on_gpu = torch.device(setup.device).type == "cuda"
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None  # Windows has none
    return {
        "device": torch.cuda.get_device_name(setup.device) if on_gpu else f"{setup.device}: {_processor()}",
        "tf32": bool(on_gpu and (torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32)),
        "processors": os.cpu_count(),
        "load_before": None if load is None else round(load, 1),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _processor() -> str:
    """The name of the processor: from Linux where it says so, as `platform` often knows only the architecture."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    model_name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return model_name or platform.processor() or platform.machine()


def write_figure(path: Path, profile: Profile, arguments: Sequence[str]) -> Path:
    """Write the ratio of times as JSON for `leaderboards/claims/figures`.

    Args:
        path: of the file; its folder is created.
        profile: of two models.
        arguments: of the command line that measured it.

    Returns:
        The path.

    Raises:
        UsageError: for a profile of only one model.
    """
    ratio = profile.time_ratio
    if ratio is None:
        raise UsageError("--out: a figure is a ratio of two models; add --against MODEL")
    command = shlex.join(["ocl-bench", *arguments])
    content = Figure(**asdict(ratio), setup=describe(profile), command=command)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content.model_dump_json(indent=2) + "\n"
    write_atomically(path, partial(Path.write_text, data=text, encoding="utf-8"))
    return path


def describe(profile: Profile) -> str:
    """The setup in one line."""
    setup, machine = profile.setup, profile.machine
    video = profile.costs[0].video
    passes = f"clips of {setup.clip} frames" if video else "images"
    sizes = " and ".join(dict.fromkeys(f"{cost.size}" for cost in profile.costs))
    parts = [
        machine["device"],
        setup.dtype + (" (autocast)" if setup.dtype != "float32" else ""),
        f"TF32 {'on' if machine['tf32'] else 'off'}",
        f"{setup.threads} of {machine['processors']} processors as threads",
        f"batch {setup.batch}, {passes} of side {sizes}" + (", frame by frame" if video and setup.streaming else ""),
        f"{setup.warmup} passes to warm up, median of {setup.repeats} in turns",
        f"load {machine['load_before']} before",
        f"torch {machine['torch']}",
    ]
    return "; ".join(parts)
