"""Model cards: what a model is, what it saw in training, and how its weights were made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from .base import Card, load_card
from .families import default_families, family_names

Supervision = Literal["none", "boxes", "masks", "undeclared"]
"""What a model saw in training, its encoder included. `undeclared`: its author has not said; it ranks apart."""

NAME = r"^[a-z0-9][a-z0-9._-]*$"
"""Pattern of the name of a model or a task."""

Privilege = Literal["none", "boxes", "truth"]
"""What a model gets at inference beside the image."""


class Training(Card):
    """How a checkpoint was made, and its numbers at that time."""

    trained_on: str = ""
    machine: str = ""
    recipe: dict[str, Any] = Field(default_factory=dict)
    seed: int | None = None
    steps: int | None = None
    seconds: float | None = None
    """Time of the training on that machine, preparation of the data left out; None for older records."""
    commit: str = ""
    data: str = ""
    numbers: dict[str, float] = Field(default_factory=dict)


class ModelCard(Card):
    """One model card. `load_model_card` reads it from YAML.

    Attributes:
        source: `module:callable`; the callable gets `options` as keyword arguments and returns a model.
        backbone: the network that sees the pixels, and whether it is frozen; printed in leaderboards.
        pretraining: data of the weights that training starts from, or keeps frozen; `none` for training from scratch.
            It is printed in leaderboards.
        input: side in pixels of the square images that the model takes; None takes the task's.
        weights: file name in `ocl_bench/models/weights/` (float16 safetensors); empty for a model without weights.
        sha256: of the file of weights.
        supervision: what the model saw in training. Leaderboards rank within one supervision and privilege only. The
            default is that of bundled cards: a user's card without the field is `undeclared`.
        privilege: what the model gets at inference beside the image.
        role: `floor` and `ceiling` stand in every leaderboard; `control` and `encoder` serve comparisons.
        families: families whose tasks it can do; see `default_families` for cards without.
        train: recipe with which `ocl-bench train` makes the weights.
    """

    name: str = Field(pattern=NAME)
    title: str = ""
    paper: str = ""
    source: str = Field(pattern=r"^[\w.]+:\w+$")
    options: dict[str, Any] = Field(default_factory=dict)
    backbone: str = ""
    pretraining: str = ""
    input: int | None = Field(default=None, ge=8)
    weights: str = Field(default="", pattern=r"^([\w.-]+\.safetensors)?$")
    sha256: str = ""
    supervision: Supervision = "none"
    privilege: Privilege = "none"
    role: Literal["model", "floor", "ceiling", "control", "encoder"] = "model"
    families: tuple[str, ...] = Field(default=(), validate_default=True)
    training: Training | None = None
    train: dict[str, Any] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @field_validator("families")
    @classmethod
    def _known_families(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if not value:
            return default_families(info.data.get("role", "model"))
        if unknown := [name for name in value if name not in family_names()]:
            raise ValueError(f"'{unknown[0]}' is not a family; known are {', '.join(family_names())}")
        return value

    @field_validator("options")
    @classmethod
    def _plain_options(cls, value: dict[str, Any]) -> dict[str, Any]:
        json.dumps(value)  # raises TypeError for dates and other YAML values that results cannot store
        return value


def load_model_card(path: Path) -> ModelCard:
    """Read a model card. Raises UsageError naming the file and the field."""
    return load_card(path, ModelCard)
