"""The command that a user types after a training: go on with it, train on its encoder, or score its weights."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..cards.model import ModelCard
from ..cards.names import CARDS, get_card


def flags(name: str, values: Mapping[str, Any]) -> list[str]:
    """`--name key=value` for each, as the command line reads it back."""
    return [part for key, value in values.items() for part in (f"--{name}", f"{key}={_text(value)}")]


def resume_command(card: ModelCard, task: str, seed: int, out: Path, asked: list[str]) -> str:
    """asked: further arguments of the visit that was stopped; without them it would be another training."""
    return _typed("train", "--model", card.name, "--task", task, "--seed", str(seed), "--out", str(out), *asked)


def next_command(card: ModelCard, task: str, weights: Path, options: Mapping[str, Any]) -> str:
    """Scores weights, or trains a model on those of an encoder. options: of the model, in place of its card's."""
    if card.role != "encoder":
        chosen = flags("option", options)
        return _typed("eval", "--model", card.name, "--task", task, "--checkpoint", str(weights), *chosen)
    user = _user_of(card.name)
    where = [] if "task" in user.train else ["--task", task]
    changed = {"objective.encoder": card.name, "objective.encoder_checkpoint": str(weights)}
    if user.train["objective"]["encoder"] == card.name:
        changed.pop("objective.encoder")
    return _typed("train", "--model", user.name, *where, *flags("set", changed))


def _user_of(encoder: str) -> ModelCard:
    """The card to train on an encoder: one that names it, rather `dias` or one with weights; else `dias`."""
    cards = [get_card(path.stem) for path in sorted(CARDS.glob("*.yaml"))]
    users = [card for card in cards if card.train.get("objective", {}).get("encoder") == encoder]
    return min(users, key=lambda card: (card.name != "dias", not card.weights), default=get_card("dias"))


def _text(value: Any) -> str:
    return value if isinstance(value, str) and yaml.safe_load(value) == value else json.dumps(value)


def _typed(*arguments: str) -> str:
    return shlex.join(["ocl-bench", *arguments])
