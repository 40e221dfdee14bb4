"""Time of two models in turns, their counts and memory, and the ratios of one to the other."""

from __future__ import annotations

import os
import platform
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import bootstrap

from ...core.errors import UsageError
from ...core.log import logger
from ...core.machine import fixed_arithmetic
from ...results.measured import Figure
from .counts import Operations, Parameters, count_operations, count_parameters
from .memory import method, peak_memory
from .subject import Setup, Side, Subject

RESAMPLES = 2000


@dataclass(frozen=True)
class Ratio:
    """Time per frame of the other model to that of this one: 2 is half of its time. low, high: 95 % interval."""

    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Cost:
    """What one model costs. size: side of a frame in pixels. frames: of one pass. seconds: of each timed pass, in
    order. memory: bytes, None where not measured. video: clips and not images. random_weights: none were loaded.
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
        """Of the median pass."""
        return self.frames / self.quartiles[1]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        first, middle, third = self.quartiles
        spread = {"median": middle, "q1": first, "q3": third, "all": list(self.seconds)}
        return {**asdict(self), "seconds": spread, "frames_per_second": self.frames_per_second}


@dataclass(frozen=True)
class Profile:
    """Costs of one or two models that were measured in turns, and under which conditions."""

    setup: Setup
    machine: dict[str, Any]
    costs: tuple[Cost, ...]

    @property
    def ratios(self) -> dict[str, float]:
        """Counts and memory of the second model to the first; empty where there is one. Operations are per frame."""
        if len(self.costs) < 2:
            return {}
        one, other = self.costs
        pairs = {
            "parameters": (one.parameters.inference, other.parameters.inference),
            "operations": (one.operations.total, other.operations.total),
            "operations_without_attention": (one.operations.without_attention, other.operations.without_attention),
            "memory": (one.memory, other.memory),
        }
        return {name: b / a for name, (a, b) in pairs.items() if a and b}

    @property
    def time_ratio(self) -> Ratio | None:
        """The same of the time per frame, from the turns; None where there is one model."""
        return ratio_of_times(*self.costs) if len(self.costs) == 2 else None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "setup": asdict(self.setup),
            "machine": self.machine,
            "memory": method(self.setup.device),
            "models": [cost.to_dict() for cost in self.costs],
            "ratios": self.ratios,
            "time_ratio": asdict(ratio) if (ratio := self.time_ratio) else None,
        }


def profile_models(
    sides: Sequence[Side],
    setup: Setup,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Profile:
    """Count and time one model, or two in turns (A B A B ...). Where one of two reads videos, both get clips.

    clock: seconds that only grow. Raises UsageError.
    """
    with fixed_arithmetic(setup.threads):
        machine = describe_machine(setup)
        subjects = [Subject(side, setup) for side in sides]
        if len({subject.video for subject in subjects}) > 1:
            subjects = [
                subject if subject.video else Subject(subject.side, setup, as_video=True) for subject in subjects
            ]
        counted = []
        for subject in subjects:
            logger.info("%s: counting parameters, operations and memory", subject.side.name)
            counted.append((count_parameters(subject), count_operations(subject), peak_memory(subject)))
        names = " and ".join(side.name for side in sides)
        logger.info("timing %s: %d passes each after %d", names, setup.repeats, setup.warmup)
        times = in_turns([subject.run for subject in subjects], setup.warmup, setup.repeats, clock)
    costs = (_cost(*entry) for entry in zip(subjects, counted, times, strict=True))
    return Profile(setup, machine, tuple(costs))


def _cost(subject: Subject, counted: tuple[Parameters, Operations, int | None], seconds: NDArray[np.float64]) -> Cost:
    return Cost(
        subject.side.name,
        dict(subject.side.options),
        subject.loaded.untrained,
        subject.video,
        subject.size,
        subject.frames,
        *counted,
        tuple(float(value) for value in seconds),
    )


def in_turns(
    passes: Sequence[Callable[[], None]], warmup: int, repeats: int, clock: Callable[[], float]
) -> NDArray[np.float64]:
    """Seconds (models, repeats) of passes in turns: what slows the machine down for a while slows down all."""
    seconds = np.empty((len(passes), repeats))
    for number in range(-warmup, repeats):
        for row, one in enumerate(passes):
            start = clock()
            one()
            if number >= 0:
                seconds[row, number] = clock() - start
    return seconds


def ratio_of_times(one: Cost, other: Cost) -> Ratio:
    """Median over the turns of the other's seconds per frame to ours; percentile bootstrap over the turns."""
    turns = (np.asarray(other.seconds) / other.frames) / (np.asarray(one.seconds) / one.frames)
    middle = float(np.median(turns))
    if np.ptp(turns) == 0:
        return Ratio(middle, middle, middle)
    found = bootstrap(
        (turns,), np.median, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(0), vectorized=True
    ).confidence_interval
    return Ratio(middle, float(found.low), float(found.high))


def describe_machine(setup: Setup) -> dict[str, Any]:
    """What cannot be chosen: device, its arithmetic, processors, and how busy they were before."""
    on_gpu = torch.device(setup.device).type == "cuda"
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "device": torch.cuda.get_device_name(setup.device) if on_gpu else f"{setup.device}: {_processor()}",
        "tf32": bool(on_gpu and (torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32)),
        "processors": os.cpu_count(),
        "load_before": None if load is None else round(load, 1),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _processor() -> str:
    """The name of the processor."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()


def write_figure(path: Path, profile: Profile, arguments: Sequence[str]) -> Path:
    """Write the ratio of times as JSON for `leaderboards/claims/figures`, see `claims.Figure`; returns the path.

    arguments: of the command line that measured it. Raises UsageError where there is nothing to compare with.
    """
    ratio = profile.time_ratio
    if ratio is None:
        raise UsageError("--out: a figure is a ratio of two models; add --against MODEL")
    command = shlex.join(["ocl-bench", *arguments])
    content = Figure(**asdict(ratio), setup=describe(profile), command=command)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return path


def describe(profile: Profile) -> str:
    """The setup in one line."""
    setup, machine = profile.setup, profile.machine
    video = profile.costs[0].video
    passes = f"clips of {setup.clip} frames" if video else "images"
    sides = " and ".join(dict.fromkeys(f"{cost.size}" for cost in profile.costs))
    parts = [
        machine["device"],
        setup.dtype + (" (autocast)" if setup.dtype != "float32" else ""),
        f"TF32 {'on' if machine['tf32'] else 'off'}",
        f"{setup.threads} of {machine['processors']} processors as threads",
        f"batch {setup.batch}, {passes} of side {sides}" + (", frame by frame" if video and setup.streaming else ""),
        f"{setup.warmup} passes to warm up, median of {setup.repeats} in turns",
        f"load {machine['load_before']} before",
        f"torch {machine['torch']}",
    ]
    return "; ".join(parts)
