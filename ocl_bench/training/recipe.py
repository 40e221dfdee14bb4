"""A training recipe: the `train:` mapping of a model card, checked, with overrides."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..core.errors import UsageError, first_problem
from ..core.schedules import Schedule

Precision = Literal["auto", "fp32", "bf16"]


class Scenes(BaseModel):
    """Which rendered scenes are trained on. Evaluation splits are refused by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    variant: str = "full"
    revision: int = 1
    split: Literal["train"] = "train"
    count: int = Field(default=10_000, gt=0)

    @property
    def note(self) -> str:
        """One line about them, for records."""
        kind = "videos" if self.variant == "motion" else "scenes"
        return f"{self.count} embedded {kind} of {self.variant} r{self.revision}, {self.split} split"


class Recipe(BaseModel):
    """How a model is trained.

    lr: peak learning rate. warmup: steps, or a share of `steps` when below 1. start, floor: first (of a warm-up) and
    last learning rate as shares of the peak. clip: largest global L2 norm of the gradient, 0 = off. clip_each: the same
    for the gradient of each parameter by itself (DINO). weight_decay_end: where a cosine takes the weight decay to,
    None keeps it. decay: `all` parameters, or `matrices`: none with one axis (biases, norms). batch: images of
    all ranks together. objective: `kind` and the options of that objective. options: model options of the training,
    where those of the card were chosen afterwards and need no other weights (the number of slots, say). task: by whose
    protocol it is validated, where nobody says another. The `*_every` fields are in steps and change no number.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    steps: int = Field(gt=0)
    task: str = "clevrtex"
    batch: int = Field(default=32, gt=0)
    lr: float = Field(default=2e-4, gt=0)
    warmup: float = Field(default=0.05, ge=0)
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
    scenes: Scenes = Scenes()
    objective: dict[str, Any] = {}
    options: dict[str, Any] = {}
    validate_every: int = Field(default=500, gt=0)
    validate_limit: int = Field(default=64, gt=0)
    checkpoint_every: int = Field(default=250, gt=0)
    log_every: int = Field(default=10, gt=0)

    @property
    def warmup_steps(self) -> int:
        """Warm-up in steps."""
        return round(self.warmup * self.steps if self.warmup < 1 else self.warmup)

    @property
    def identity(self) -> dict[str, Any]:
        """The fields that must be equal for a resume to continue the same training."""
        left_out = {"validate_every", "validate_limit", "checkpoint_every", "log_every", "precision", "task"}
        later = ("start", "clip_each", "weight_decay_end", "decay")  # as it was before these fields existed
        left_out |= {name for name in later if getattr(self, name) == type(self).model_fields[name].default}
        return self.model_dump(mode="json", exclude=left_out)


def read_recipe(train: dict[str, Any], where: str | Path, **overrides: Any) -> Recipe:
    """Check a card's `train:` mapping after overrides (`lr=1e-3`, dotted: `{"scenes.count": 100}`; None = keep).

    Raises UsageError naming the card and the field.
    """
    if not train:
        raise UsageError(f"{where}: field 'train' is empty; this model has no training recipe")
    merged = _merge(train, {name: value for name, value in overrides.items() if value is not None})
    try:
        return Recipe.model_validate(merged)
    except ValidationError as error:
        field, problem = first_problem(error)
        raise UsageError(f"{where}: field 'train.{field}': {problem}; see docs/training.md") from error


def _merge(train: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    merged = {name: dict(value) if isinstance(value, dict) else value for name, value in train.items()}
    for dotted, value in overrides.items():
        *parents, last = dotted.split(".")
        place = merged
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise UsageError(f"--set {dotted}: '{parent}' is not a mapping; see docs/training.md")
        place[last] = value
    return merged
