"""`ocl-bench train --suite embedded`: train all bundled models and controls, each after the models that it needs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from ..cards.model import ModelCard
from ..cards.names import CARDS, get_card
from ..core.errors import UsageError
from ..core.files import parse_json
from ..core.log import logger
from .recipe import Recipe, read_recipe
from .run import train

SUITES = ("embedded",)
NEEDS = ("encoder", "teacher")
"""Fields of a recipe's objective that name the card of another trained model."""


@dataclass(frozen=True)
class PlannedTraining:
    """One training of a suite.

    Attributes:
        model: name of the card.
        seed: training seed.
        recipe: the recipe, with its scaled number of steps.
        overrides: the recipe's fields that differ from those of the card.
        needs: weights of other trainings of the suite that it starts from, by the field of the objective.
        out: folder of the training.
        minutes: how long it will take on a machine such as the one that the card records; None where the card has no
            record.
    """

    model: str
    seed: int
    recipe: Recipe
    overrides: dict[str, Any]
    needs: dict[str, Path]
    out: Path
    minutes: float | None

    @property
    def weights(self) -> Path:
        """The file with the trained weights."""
        return self.out / f"{self.model}.safetensors"

    @property
    def images(self) -> int:
        """Number of images, or of clips, that the training sees; each counts as often as it is drawn."""
        return self.recipe.steps * self.recipe.batch

    def is_finished(self) -> bool:
        """Whether `out` holds this training, finished after the weights that it needs."""
        record = self.out / "training.json"
        if not (record.is_file() and self.weights.is_file()):
            return False
        content = parse_json(record.read_bytes())
        if not content["finished"] or content["seed"] != self.seed:
            return False
        made = self.weights.stat().st_mtime
        if any(not path.is_file() or path.stat().st_mtime > made for path in self.needs.values()):
            return False
        return Recipe.model_validate(content["recipe"]).identity == self.recipe.identity


def plan_suite(
    suite: str = "embedded",
    *,
    seeds: int = 1,
    scale: float = 1.0,
    models: Sequence[str] = (),
    out: Path | str = "runs",
) -> list[PlannedTraining]:
    """The trainings of a suite in an order in which each finds what it needs.

    Encoders and teachers are trained with seed 0 only: the seeds of a model share them, so that a difference between
    seeds is one of that model.

    Args:
        suite: `embedded`, all cards whose recipe trains on rendered scenes.
        seeds: training seeds 0 .. seeds - 1 of each model.
        scale: factor of every number of steps.
        models: only these models, and what they need; all of the suite by default.
        out: folder with one folder `<model>-seed<seed>` for each training.

    Raises:
        UsageError: for an unknown suite, a model that is not in it, or a scale or number of seeds that is not positive.
    """
    if suite not in SUITES:
        raise UsageError(f"--suite {suite}: unknown; use {', '.join(SUITES)}")
    if not 0 < scale <= 10_000 or not 0 < seeds <= 100:
        raise UsageError("--scale must be above 0, at most 10000, and --seeds 1 to 100")
    cards = {card.name: card for path in sorted(CARDS.glob("*.yaml")) if _is_embedded(card := get_card(path.stem))}
    if unknown := sorted(set(models) - set(cards)):
        raise UsageError(f"--model {unknown[0]}: is not in suite {suite}; it has {', '.join(cards)}")
    order = _order(cards, models or list(cards))
    needed = {name for card in order for name in _needs(card).values()}
    return [
        _plan(card, seed, scale, Path(out)) for card in order for seed in range(1 if card.name in needed else seeds)
    ]


def train_suite(
    plan: Sequence[PlannedTraining],
    *,
    minutes: float | None = None,
    device: str = "auto",
    progress: bool = True,
    log: str | None = None,
) -> Iterator[tuple[PlannedTraining, dict[str, Any] | None]]:
    """Run the trainings of a plan in order and yield each with its record; None for one that was finished before.

    A stopped training goes on from its checkpoint when the same plan is run again.

    Args:
        plan: from `plan_suite`.
        minutes: stop after so many minutes in all, with a checkpoint.
        device: `auto`, `cpu` or `cuda`.
        progress: draw progress bars.
        log: as in `train`.
    """
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    for number, planned in enumerate(plan, 1):
        if planned.is_finished():
            yield planned, None
            continue
        left = None if deadline is None else (deadline - time.monotonic()) / 60
        if left is not None and left <= 0:
            return
        logger.info("training %d of %d: %s, seed %d", number, len(plan), planned.model, planned.seed)
        record = train(
            planned.model,
            seed=planned.seed,
            out=planned.out,
            minutes=left,
            device=device,
            overrides=planned.overrides,
            resume=not _is_outdated(planned),
            progress=progress,
            log=log,
        )
        yield planned, record
        if not record["finished"]:
            return  # the time is over; what comes next may need these weights


def _is_embedded(card: ModelCard) -> bool:
    """Whether the card's recipe trains on rendered scenes."""
    return bool(card.train) and card.train.get("objective", {}).get("images", "scenes") == "scenes"


def _needs(card: ModelCard) -> dict[str, str]:
    """Names of the cards whose weights the training starts from, by the field of the objective."""
    objective = card.train.get("objective", {})
    return {field: objective[field] for field in NEEDS if objective.get(field)}


def _order(cards: dict[str, ModelCard], wanted: Sequence[str]) -> list[ModelCard]:
    """The wanted cards and all that they need, each after what it needs."""
    graph: dict[str, set[str]] = {}
    waiting = list(wanted)
    while waiting:
        name = waiting.pop()
        if name not in graph:
            graph[name] = set(_needs(cards[name]).values())
            waiting += graph[name]
    # Sorted, because the sorter keeps the order of its input among cards that do not need one another.
    return [cards[name] for name in TopologicalSorter(dict(sorted(graph.items()))).static_order()]


def _plan(card: ModelCard, seed: int, scale: float, out: Path) -> PlannedTraining:
    """The training of one card with one seed."""
    needs = {field: out / f"{name}-seed0" / f"{name}.safetensors" for field, name in _needs(card).items()}
    overrides: dict[str, Any] = {f"objective.{field}_checkpoint": str(path) for field, path in needs.items()}
    if scale != 1:
        overrides["steps"] = max(1, round(card.train["steps"] * scale))
    recipe = read_recipe(card.train, f"model card {card.name}", **overrides)
    recorded = card.training.seconds if card.training is not None else None
    steps = card.training.steps if card.training is not None else None
    minutes = recorded / 60 * recipe.steps / steps if recorded and steps else None
    return PlannedTraining(card.name, seed, recipe, overrides, needs, out / f"{card.name}-seed{seed}", minutes)


def _is_outdated(planned: PlannedTraining) -> bool:
    """Whether the stopped or finished training in the folder started from weights that were trained again since."""
    started = planned.out / "last.pt"
    if not started.is_file():
        return False
    return any(path.stat().st_mtime > started.stat().st_mtime for path in planned.needs.values())


def cost_of(plan: Sequence[PlannedTraining]) -> dict[str, Any]:
    """What a plan costs: the trainings that are not finished, their images, and the minutes that are known.

    `unknown` lists the models whose cards do not record how long the training took.
    """
    waiting = [planned for planned in plan if not planned.is_finished()]
    return {
        "trainings": len(plan),
        "finished": len(plan) - len(waiting),
        "images": sum(planned.images for planned in waiting),
        "minutes": round(sum(planned.minutes or 0.0 for planned in waiting), 1),
        "unknown": sorted({planned.model for planned in waiting if planned.minutes is None}),
    }


def plan_rows(plan: Sequence[PlannedTraining]) -> list[dict[str, Any]]:
    """The plan as plain values, one row for each training, in order."""
    return [
        {
            "model": planned.model,
            "seed": planned.seed,
            "steps": planned.recipe.steps,
            "images": planned.images,
            "minutes": None if planned.minutes is None else round(planned.minutes, 1),
            "needs": sorted(path.parent.name for path in planned.needs.values()),
            "finished": planned.is_finished(),
        }
        for planned in plan
    ]
