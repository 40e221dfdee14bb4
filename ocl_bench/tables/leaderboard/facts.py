"""What a leaderboard says of a model beside its numbers.

It comes from the result. What a result does not record comes from the bundled model cards, and only where that is
certain: the backbone from the card whose options the model was built with, the training from the card with the same
checkpoint. Everything else stays empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

from ...cards.model import ModelCard
from ...cards.names import CARDS, get_card, model_names
from ...cards.task import TaskSpec
from ...results.record import FitSection, Result

NOT_RECORDED = "split not recorded"
"""End of what is said of a head in results of format 1."""
_NUMBER_OF_SEGMENTS = ("slots", "prototypes", "clusters")


@dataclass(frozen=True)
class Facts:
    """Text as it is printed, empty where nothing is known.

    pretraining: what the weights that the training started from, or kept frozen, had learnt from. slots: K, how many
    slots, prototypes or clusters. input_size: side in pixels of what the model sees. trained_on: the kind of device.
    images_per_second: of the whole evaluation, on `device`. checkpoint: SHA-256. fit: what the head was fitted on.
    """

    backbone: str = ""
    pretraining: str = ""
    slots: str = ""
    input_size: str = ""
    parameters: str = ""
    trained_on: str = ""
    training_steps: str = ""
    training_data: str = ""
    images_per_second: str = ""
    device: str = ""
    checkpoint: str = ""
    fit: str = ""


def facts_of(result: Result, task: TaskSpec | None) -> Facts:
    """The facts of one result. task: its card, where it is installed."""
    model, card = result.model, _card(result.model.card)
    built = card if card is not None and dict(card.options) == model.options else None
    trained = _card_of_checkpoint(model.checkpoint_sha256, card)
    training = trained.training if trained is not None else None
    speed = result.cost.images_per_second
    return Facts(
        backbone=built.backbone if built is not None else "",
        pretraining=built.pretraining if built is not None and (training or model.role == "floor") else "",
        slots=next((str(model.options[name]) for name in _NUMBER_OF_SEGMENTS if model.options.get(name)), ""),
        input_size=str(_input_size(model.options, card, model.role, task) or ""),
        parameters=str(model.parameters or ""),
        trained_on=training.trained_on if training is not None else "",
        training_steps=str(training.steps or "") if training is not None else "",
        training_data=training.data if training is not None else "",
        images_per_second=f"{speed:.1f}" if speed is not None else "",
        device=result.setup.device,
        checkpoint=model.checkpoint_sha256,
        fit=fit_text(result.fit),
    )


def fit_text(fit: FitSection | None) -> str:
    """What a head was fitted on, in one line; rows with another line never rank against each other."""
    if fit is None:
        return ""
    if fit.ids_sha256 is None:
        return f"{fit.head}: {fit.kind or 'unknown'} data, {NOT_RECORDED}"
    data = f"{fit.kind} data, split {fit.split}, revision {fit.revision}"
    return f"{fit.head}: {data}, {fit.samples} images (ids {fit.ids_sha256[:8]})"


def common_facts(facts: Sequence[Facts]) -> Facts:
    """Facts of a mean over training seeds: those that all seeds share."""
    values = {field.name: {getattr(one, field.name) for one in facts} for field in fields(Facts)}
    return Facts(**{name: next(iter(found)) if len(found) == 1 else "" for name, found in values.items()})


def _card(name: str) -> ModelCard | None:
    """The bundled card of that name, or None for a model of a user or of another package."""
    return _cards().get(name)


@cache
def _cards() -> dict[str, ModelCard]:
    return {name: get_card(name) for name in model_names() if (CARDS / f"{name}.yaml").is_file()}


def _card_of_checkpoint(sha256: str, own: ModelCard | None) -> ModelCard | None:
    """A card with these weights, first the model's own: a clustering of features stands on those of an encoder."""
    if not sha256:
        return None
    candidates = [*([own] if own is not None else []), *(card for _, card in sorted(_cards().items()))]
    return next((card for card in candidates if card.sha256 == sha256), None)


def _input_size(options: dict[str, Any], card: ModelCard | None, role: str, task: TaskSpec | None) -> int | None:
    """As `runner.input_size` finds it; None where only the model itself could say it."""
    if card is None:
        return None
    encoder = _card(str(options.get("encoder", "")))
    own = options.get("input_size") or card.input or (encoder.input if encoder is not None else None)
    if own is None and role in ("floor", "ceiling") and task is not None:
        own = task.protocol.input
    return own
