"""What a leaderboard says about a model beside its numbers.

Facts come from the result. What a result does not record comes from the bundled model cards, and only where it is
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
"""End of the `fit` text of a head in a result of format 1, which did not record the split."""
_NUMBER_OF_SEGMENTS = ("slots", "prototypes", "clusters")


@dataclass(frozen=True)
class Facts:
    """Facts about one model as printed text, empty where nothing is known.

    Attributes:
        backbone: the network, from the card.
        pretraining: data and method of the pretrained weights that training started from or kept frozen.
        slots: K, the number of slots, prototypes or clusters.
        input_size: side in pixels of the image that the model sees.
        parameters: number of parameters.
        trained_on: the kind of device.
        training_steps: number of optimizer steps.
        training_data: what the training saw.
        images_per_second: speed of the whole evaluation on `device`.
        device: where the evaluation ran.
        checkpoint: SHA-256 of the weights.
        fit: what the head of the task was fitted on.
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
    """Collect the facts of one result.

    Args:
        result: what the facts are about.
        task: the card of its task; None where the card is not installed.
    """
    model, card = result.model, find_card(result.model.card)
    # A card describes the network only as long as nobody changed an option, such as the width.
    built = card if card is not None and dict(card.options) == model.options else None
    trained = _card_of_checkpoint(model.checkpoint_sha256, card)
    training = trained.training if trained is not None else None
    speed = result.cost.images_per_second
    return Facts(
        backbone=built.backbone if built is not None else "",
        # Weights that are not from a card may have been pretrained differently. A floor has no weights of its own.
        pretraining=built.pretraining if built is not None and (training or model.role == "floor") else "",
        slots=next((str(model.options[name]) for name in _NUMBER_OF_SEGMENTS if model.options.get(name)), ""),
        input_size=str(model.input_size or _input_size(model.options, card, model.role, task) or ""),
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
    """What a head was fitted on, in one line; rows rank against each other only when this line is the same."""
    if fit is None:
        return ""
    if fit.ids_sha256 is None:
        return f"{fit.head}: {fit.kind or 'unknown'} data, {NOT_RECORDED}"
    data = f"{fit.kind} data, split {fit.split}, revision {fit.revision}"
    return f"{fit.head}: {data}, {fit.samples} images (ids {fit.ids_sha256[:8]})"


def common_facts(facts: Sequence[Facts]) -> Facts:
    """The facts of a mean over training seeds: those that all seeds share, '' for the others."""
    values = {field.name: {getattr(of_seed, field.name) for of_seed in facts} for field in fields(Facts)}
    return Facts(**{name: next(iter(texts)) if len(texts) == 1 else "" for name, texts in values.items()})


def find_card(name: str) -> ModelCard | None:
    """The bundled card with this name, or None for a model of a user or of another package."""
    return _cards().get(name)


@cache
def _cards() -> dict[str, ModelCard]:
    """All bundled cards by name, read once: a board asks for them row by row."""
    return {name: get_card(name) for name in model_names() if (CARDS / f"{name}.yaml").is_file()}


def _card_of_checkpoint(sha256: str, card_of_model: ModelCard | None) -> ModelCard | None:
    """A card with these weights, or None. The card of the model itself is tried first.

    Other cards are tried because a floor that clusters features has the checkpoint of its encoder.
    """
    if not sha256:
        return None
    first = [card_of_model] if card_of_model is not None else []
    candidates = [*first, *(card for _, card in sorted(_cards().items()))]
    return next((card for card in candidates if card.sha256 == sha256), None)


def _input_size(options: dict[str, Any], card: ModelCard | None, role: str, task: TaskSpec | None) -> int | None:
    """Side in pixels of the image that the model sees; None where only the model itself could tell."""
    if card is None:
        return None
    encoder = find_card(str(options.get("encoder", "")))
    size = options.get("input_size") or card.input or (encoder.input if encoder is not None else None)
    # A floor or a ceiling without an encoder takes the image as the task hands it out.
    if size is None and role in ("floor", "ceiling") and task is not None:
        size = task.protocol.input
    return size
