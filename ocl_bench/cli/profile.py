"""Print the outcome of `ocl-bench profile`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from ..evaluation.cost.measure import describe
from ..evaluation.cost.memory import method

if TYPE_CHECKING:
    from rich.console import Console

    from ..evaluation.cost.measure import ModelCost, Profile
    from ..training.step_cost import StepCost

_LINES: tuple[tuple[str, str, Callable[[ModelCost], str]], ...] = (
    ("parameters at inference", "parameters", lambda cost: f"{cost.parameters.inference:,}"),
    ("of the whole model", "", lambda cost: f"{cost.parameters.whole:,}"),
    ("trainable", "", lambda cost: f"{cost.parameters.trainable:,}"),
    ("FLOPs per frame", "operations", lambda cost: f"{cost.operations.total / 1e9:,.4g} G"),
    (
        "without attention",
        "operations_without_attention",
        lambda cost: f"{cost.operations.without_attention / 1e9:,.4g} G",
    ),
    ("time of a pass, median", "time", lambda cost: f"{1000 * cost.quartiles[1]:,.4g} ms"),
    ("quartiles", "", lambda cost: f"{1000 * cost.quartiles[0]:,.4g} to {1000 * cost.quartiles[2]:,.4g} ms"),
    ("frames per second", "", lambda cost: f"{cost.frames_per_second:,.4g}"),
    ("peak memory of a pass", "memory", lambda cost: "-" if cost.memory is None else f"{cost.memory / 1e6:,.4g} MB"),
)


def print_profile(console: Console, profile: Profile) -> None:
    """Print a column for each model, the ratios beside them, and the whole setup below."""
    table = Table("", title_justify="left")
    for cost in profile.costs:
        remark = " (random weights)" if cost.random_weights else ""
        options = " ".join(f"{key}={value}" for key, value in cost.options.items())
        table.add_column(f"{escape(cost.model)}{remark}\n{escape(options)}".strip(), justify="right")
    two = len(profile.costs) > 1
    if two:
        table.add_column("ratio", justify="right")
    for label, name, text in _LINES:
        cells = [text(cost) for cost in profile.costs]
        table.add_row(label, *cells, *([_ratio(profile, name)] if two else []))
    console.print(table)
    unit = "frames" if profile.costs[0].video else "images"
    console.print(f"a pass has {profile.costs[0].frames} {unit}; FLOPs are 2 per multiply-add; see docs/profile.md")
    if two:
        console.print(f"ratio: {profile.costs[1].model} to {profile.costs[0].model}; of the time per frame, with 95 %")
    console.print(f"memory: {method(profile.setup.device)}")
    console.print(f"setup: {escape(describe(profile))}")


def print_step_cost(console: Console, cost: StepCost) -> None:
    """Print a line for each part of a training step, the rates, and the setup below."""
    table = Table(title=f"a training step of {escape(cost.model)}: {cost.batch} {cost.unit}", title_justify="left")
    for column in ("part", "time", "share", "of the processors"):
        table.add_column(column, justify="left" if column == "part" else "right")
    whole = sum(part.wall for part in cost.parts.values())
    for name, part in cost.parts.items():
        table.add_row(
            name, f"{1000 * part.wall:,.4g} ms", f"{part.wall / whole:.0%}", f"{1000 * part.processor:,.4g} ms"
        )
    console.print(table)
    rates = cost.rates
    console.print(f"{rates['in_turn']:,.4g} {cost.unit} per second, one part after the other")
    console.print(f"{rates['prepared_aside']:,.4g} where a processor is free to prepare the next batch, as train does")
    console.print(f"{rates['processor']:,.4g} per second of one processor, whatever other programs do")
    load = "" if cost.load_before is None else f"; load {cost.load_before} before"
    console.print(f"the data of {cost.scenes} scenes were ready after {cost.setup_seconds:.1f} s, not counted above")
    how = f"{cost.precision}{', compiled' if cost.compiled else ''}"
    console.print(f"setup: {escape(cost.machine)}; {how}; median of {cost.steps} steps{load}")


def _ratio(profile: Profile, name: str) -> str:
    """The ratio of the second model to the first; only that of the time has an interval, because it is repeated."""
    time = profile.time_ratio
    if name == "time" and time is not None:
        return f"{time.ratio:.2f} [{time.low:.2f}, {time.high:.2f}]"
    return f"{profile.ratios[name]:.2f}" if name in profile.ratios else ""
