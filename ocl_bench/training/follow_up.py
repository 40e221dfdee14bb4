"""Composes the next command after a training: continue it, train a model on its encoder, or score its weights."""

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
    """Arguments `--name key=value`, one pair for each value, in the form that the command line reads back."""
    return [part for key, value in values.items() for part in (f"--{name}", f"{key}={_text(value)}")]


def resume_command(card: ModelCard, task: str, seed: int, out: Path, arguments: list[str]) -> str:
    """Command that continues a stopped training.

    Args:
        card: Card of the model.
        task: Task that validates the training.
        seed: Seed of the training.
        out: Folder with `last.pt`.
        arguments: The other arguments of the stopped command. Without them the recipe would differ, and the checkpoint
            would be refused.
    """
    return _command_line(
        "train", "--model", card.name, "--task", task, "--seed", str(seed), "--out", str(out), *arguments
    )


def next_command(card: ModelCard, task: str, weights: Path, options: Mapping[str, Any]) -> str:
    """Command that scores new weights, or that trains a model on a new encoder.

    Args:
        card: Card of the trained model.
        task: Task to score on.
        weights: File with the new weights.
        options: Model options that differ from the card's.
    """
    if card.role != "encoder":
        model_options = flags("option", options)
        return _command_line("eval", "--model", card.name, "--task", task, "--checkpoint", str(weights), *model_options)
    user = _card_for_encoder(card)
    task_arguments = [] if "task" in user.train else ["--task", task]
    changes = {"objective.encoder": card.name, "objective.encoder_checkpoint": str(weights)}
    if user.train["objective"]["encoder"] == card.name:
        changes.pop("objective.encoder")
    return _command_line("train", "--model", user.name, *task_arguments, *flags("set", changes))


def _card_for_encoder(encoder: ModelCard) -> ModelCard:
    """Card of a model to train on an encoder. Cards that name it come first, among them `dias`, those that learn from
    the same kind of scenes and those with weights, and encoders that learn from this one last.

    The default is `dias`.
    """
    cards = [get_card(path.stem) for path in sorted(CARDS.glob("*.yaml"))]
    users = [card for card in cards if card.train.get("objective", {}).get("encoder") == encoder.name]
    kind = _kind_of_scenes(encoder)

    def rank(card: ModelCard) -> tuple[bool, ...]:
        return card.name != "dias", card.role == "encoder", _kind_of_scenes(card) != kind, not card.weights

    return min(users, key=rank, default=get_card("dias"))


def _kind_of_scenes(card: ModelCard) -> str:
    """Variant of the scenes that a model learns from."""
    return str(card.train.get("scenes", {}).get("variant", ""))


def _text(value: Any) -> str:
    """A value as YAML reads it back: plain where a string stays a string, otherwise JSON (`"1"`, `true`)."""
    return value if isinstance(value, str) and yaml.safe_load(value) == value else json.dumps(value)


def _command_line(*arguments: str) -> str:
    """The arguments as one quoted line for a shell."""
    return shlex.join(["ocl-bench", *arguments])
