"""What a step of a training costs: images per second, and where the time goes (`ocl-bench profile --train`)."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..cards.model import ModelCard
from ..cards.names import get_card, get_task
from ..core.machine import fixed_arithmetic
from .loop import compile_loss, steps_of
from .objectives import build_objective
from .parts import PARTS, Part, Stopwatch, timed
from .ranks import start_ranks
from .recipe import Recipe, read_recipe
from .run import build_untrained, describe_machine

SCENES = 64
"""Scenes that are rendered for a measurement: one file of the cache."""


@dataclass(frozen=True)
class PartCost:
    """Medians over the steps of one part, in seconds: by the clock, and of the processors."""

    wall: float
    processor: float


@dataclass(frozen=True)
class StepCost:
    """The cost of the steps of one training.

    Attributes:
        model: Name of the card. options: Those of the model in training.
        recipe: The recipe, with the number of scenes of the measurement.
        unit: `images` or `clips`.
        scenes: Number of scenes or videos that the batches were drawn from.
        precision: `fp32` or `bf16`.
        compiled: Whether the loss was compiled; the first step, which compiles it, must not be a timed one.
        machine: Device, threads and torch.
        load_before: Programs that wanted a processor before the measurement; None where it is unknown.
        setup_seconds: Until the first step: rendering what the cache lacks, frozen features, fresh weights.
        steps: Number of timed steps.
        parts: Cost of each part of a step, in order.
    """

    model: str
    options: dict[str, Any]
    recipe: dict[str, Any]
    unit: str
    scenes: int
    precision: str
    compiled: bool
    machine: str
    load_before: float | None
    setup_seconds: float
    steps: int
    parts: dict[Part, PartCost]

    @property
    def batch(self) -> int:
        """Images or clips of a step."""
        return int(self.recipe["batch"])

    @property
    def rates(self) -> dict[str, float]:
        """Images or clips per second.

        `in_turn`: all parts one after the other. `prepared_aside`: without the preparation, which `train` does in a
        thread for the next batch; it is reached where a processor is free for it. `processor`: per second of one
        processor, all parts; other programs do not change it.
        """
        wall = {name: cost.wall for name, cost in self.parts.items()}
        return {
            "in_turn": self.batch / sum(wall.values()),
            "prepared_aside": self.batch / max(wall["preparation"], sum(wall.values()) - wall["preparation"]),
            "processor": self.batch / sum(cost.processor for cost in self.parts.values()),
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return {**asdict(self), "rates": self.rates}


def step_cost(
    model: str,
    *,
    options: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    limit: int | None = None,
    device: str = "auto",
    threads: int = 1,
    warmup: int = 2,
    repeats: int = 20,
    compile_model: bool = False,
) -> StepCost:
    """Measure some steps of the training of a card, with fresh weights; nothing is written but the cache.

    Args:
        model: Name of a card with a recipe.
        options: Options of the model that replace those of the card.
        overrides: Recipe fields by dotted name, such as `{"batch": 8}`.
        limit: Number of scenes; by default `SCENES`, and one batch of videos.
        device: `auto`, `cpu` or `cuda`.
        threads: Threads of torch.
        warmup: Steps that are not timed.
        repeats: Timed steps.
        compile_model: Use `torch.compile`, as `train --compile` does.

    Raises:
        UsageError: The card has no recipe, or a name, an option or a field is wrong.
    """
    card = get_card(model)
    card = card.model_copy(update={"options": {**card.options, **card.train.get("options", {}), **dict(options or {})}})
    recipe = _with_few_scenes(card, dict(overrides or {}), limit)
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None  # Windows has none
    start = time.monotonic()
    ranks = start_ranks(device, recipe.precision, 1)
    with fixed_arithmetic(threads):
        network = build_untrained(card, 0)
        objective = build_objective(network, card, get_task(recipe.task), recipe, 0, ranks, progress=True)
        if compile_model:
            compile_loss(network)
        step, setup = steps_of(network, objective, recipe, ranks), time.monotonic() - start
        # From the end of the warm-up on: before, the rate of learning is next to nothing.
        watches = [Stopwatch(ranks.device) for _ in range(warmup + repeats)]
        for number, watch in enumerate(watches, recipe.warmup_steps):
            with timed(watch):
                step(number)
        machine = describe_machine(ranks)
    return StepCost(
        card.name,
        card.options,
        recipe.model_dump(mode="json"),
        "clips" if recipe.objective.get("kind") == "video" else "images",
        recipe.scenes.count,
        "bf16" if ranks.bf16 else "fp32",
        compile_model,
        machine,
        load,
        setup,
        repeats,
        {name: _median(name, watches[warmup:]) for name in PARTS},
    )


def _with_few_scenes(card: ModelCard, overrides: dict[str, Any], limit: int | None) -> Recipe:
    """The recipe of a card with as few scenes as a measurement needs: those of the validation are not even rendered."""
    recipe = read_recipe(card.train, f"model card {card.name}", **overrides)
    kind = recipe.objective.get("kind")
    most = limit if limit is not None else recipe.batch if kind == "video" else SCENES
    few: dict[str, Any] = {"scenes.count": min(most, recipe.scenes.count), "validate_limit": 1}
    few |= {"objective.bank": 1} if kind == "odis" else {}
    return read_recipe(card.train, f"model card {card.name}", **{**few, **overrides})


def _median(name: Part, watches: list[Stopwatch]) -> PartCost:
    """Median of a part over the steps."""
    return PartCost(
        statistics.median(watch.wall[name] for watch in watches),
        statistics.median(watch.processor[name] for watch in watches),
    )
