"""Reads and checks training recipes: the `train:` mapping of a model card, with overrides from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..core.errors import UsageError, first_problem
from ..core.schedules import Schedule

Precision = Literal["auto", "fp32", "bf16"]
LARGEST_BATCH = 16_384
"""Most images of a step. Batches of the papers have at most 4096."""
MOST_SCENES = 10_000_000
"""Most scenes that are rendered for a training."""
MOST_STEPS = 1_000_000_000
"""Most steps of a training. The longest of the papers has 500,400."""


class SceneSelection(BaseModel):
    """Which rendered scenes a training uses. Only split `train` is accepted: no evaluation shows it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    variant: str = "full"
    revision: int = 1
    split: Literal["train"] = "train"
    count: int = Field(default=10_000, gt=0, le=MOST_SCENES)

    @property
    def note(self) -> str:
        """One line that describes the scenes, for records."""
        kind = "videos" if self.variant == "motion" else "scenes"
        return f"{self.count} embedded {kind} of {self.variant} r{self.revision}, {self.split} split"

    @property
    def key(self) -> str:
        """Name of the scenes in the cache. It has no count, because scene i is the same for every count."""
        return f"{self.variant}-r{self.revision}-{self.split}"


class Recipe(BaseModel):
    """How a model is trained.

    Attributes:
        steps: Number of optimiser steps.
        task: Task whose protocol validates the training, unless `ocl-bench train --task` names another.
        batch: Images per step, all ranks together.
        lr: Peak learning rate.
        warmup: Steps of the warm-up; a share of `steps` when below 1.
        schedule: Shape of the learning rate after the warm-up.
        start: Learning rate at the first step of the warm-up, as a share of the peak.
        floor: Learning rate at the last step, as a share of the peak.
        clip: Largest global L2 norm of the gradient; 0 switches clipping off.
        clip_each: Largest L2 norm of the gradient of each single parameter, as in DINO; 0 switches it off.
        optimizer: Kind of the optimiser.
        weight_decay: Weight decay at the first step.
        weight_decay_end: Weight decay at the last step, reached along a cosine; None keeps it constant.
        decay: Which parameters decay: `all`, or `matrices` (not those with one axis: biases, norms).
        precision: `auto` uses bfloat16 where the hardware accelerates it.
        scenes: The rendered scenes to train on.
        objective: `kind` of the objective, and the options of that kind.
        options: Model options that hold during training only. A card may change options afterwards that need no new
            weights, such as the number of slots.
        undecided: Share of the steps, but at least 200, for which a self-distilling teacher may stay undecided before
            the training is stopped (`undecided.py`); 0 never stops it. It does not influence the weights either.
        validate_every: Steps between validations. Like the next three fields it does not influence the weights.
        validate_limit: Number of validation samples.
        checkpoint_every: Steps between checkpoints.
        log_every: Steps between lines of the log.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    steps: int = Field(gt=0, le=MOST_STEPS)
    task: str = "clevrtex"
    batch: int = Field(default=32, gt=0, le=LARGEST_BATCH)
    lr: float = Field(default=2e-4, gt=0)
    warmup: float = Field(default=0.05, ge=0, le=MOST_STEPS)
    schedule: Schedule = "cosine"
    start: float = Field(default=0.0, ge=0, le=1)
    floor: float = Field(default=1e-3, ge=0, le=1)
    clip: float = Field(default=1.0, ge=0)
    clip_each: float = Field(default=0.0, ge=0)
    optimizer: Literal["adam", "adamw", "lars"] = "adam"
    weight_decay: float = Field(default=0.0, ge=0)
    weight_decay_end: float | None = Field(default=None, ge=0)
    decay: Literal["all", "matrices"] = "all"
    precision: Precision = "auto"
    scenes: SceneSelection = SceneSelection()
    objective: dict[str, Any] = {}
    options: dict[str, Any] = {}
    undecided: float = Field(default=0.5, ge=0, le=1)
    validate_every: int = Field(default=500, gt=0)
    validate_limit: int = Field(default=64, gt=0)
    checkpoint_every: int = Field(default=250, gt=0)
    log_every: int = Field(default=10, gt=0)

    @property
    def warmup_steps(self) -> int:
        """Length of the warm-up in steps."""
        return round(self.warmup * self.steps if self.warmup < 1 else self.warmup)

    @property
    def identity(self) -> dict[str, Any]:
        """The fields that must be equal for a resume to continue the same training."""
        left_out = {"validate_every", "validate_limit", "checkpoint_every", "log_every"}
        left_out |= {"precision", "task", "undecided"}
        # Checkpoints from before these fields existed must still be accepted: a default value is not compared.
        later = ("start", "clip_each", "weight_decay_end", "decay")
        left_out |= {name for name in later if getattr(self, name) == type(self).model_fields[name].default}
        return self.model_dump(mode="json", exclude=left_out)


def read_recipe(train: dict[str, Any], where: str | Path, **overrides: Any) -> Recipe:
    """Check the `train:` mapping of a model card after applying overrides.

    Args:
        train: The mapping; it is not changed.
        where: Name of the card, for error messages.
        **overrides: Values by dotted field name, such as `{"scenes.count": 100}`. None keeps the value of the card.

    Raises:
        UsageError: Names the card and the wrong field.
    """
    if not train:
        raise UsageError(f"{where}: field 'train' is empty; this model has no training recipe, choose another --model")
    merged = _merge(train, {name: value for name, value in overrides.items() if value is not None})
    try:
        return Recipe.model_validate(merged)
    except ValidationError as error:
        field, problem = first_problem(error)
        raise UsageError(f"{where}: field 'train.{field}': {problem}; see docs/training.md") from error


def _merge(train: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """A copy of `train` with the overrides at their dotted places."""
    merged = {name: dict(value) if isinstance(value, dict) else value for name, value in train.items()}
    for dotted, value in overrides.items():
        *parents, last = dotted.split(".")
        mapping = merged
        for parent in parents:
            mapping = mapping.setdefault(parent, {})
            if not isinstance(mapping, dict):
                raise UsageError(f"--set {dotted}: '{parent}' is not a mapping; see docs/training.md")
        mapping[last] = value
    return merged
