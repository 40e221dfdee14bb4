"""The section `model` of a result against the bundled card that it names, or against what users' models may be."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ...cards.names import CARDS, get_card, model_names
from ...core.errors import UsageError
from ...models.backbone_names import SOURCES, split_name, supervision_of
from ...models.declared import is_as_bundled, is_bundled
from .rows import FieldProblems

if TYPE_CHECKING:
    from ...cards.model import ModelCard
    from ...cards.task import TaskSpec
    from ...results.record import Result


def check_model(result: Result, task: TaskSpec | None) -> FieldProblems:
    """Differences from the bundled card of the model; for a user's model, what its name and role may not be."""
    model = result.model
    base, _, seed = model.name.partition(":")
    if not re.fullmatch(r"[0-9a-f]{64}|", model.checkpoint_sha256):
        yield "model.checkpoint_sha256", f"{model.checkpoint_sha256!r} is not a SHA-256 (64 hexadecimal digits)"
    if not model.card:
        yield from _check_own_model(result)
        return
    try:
        card = get_card(model.card)
    except UsageError as error:
        yield "model.card", str(error)
        return
    renamed = base != card.name
    fixed = is_bundled(base) or card.role in ("floor", "ceiling")
    if renamed and (fixed or is_as_bundled(card, model.checkpoint_sha256, model.options)):
        yield "model.name", f"'{model.name}' is not of the card '{card.name}'"
    if model.role != card.role:
        yield "model.role", f"'{model.role}' is not that of the card, '{card.role}'"
    if model.supervision != (seen := _supervision(result, card)):
        yield "model.supervision", f"'{model.supervision}' is not that of the card, '{seen}'"
    if task is not None:
        boxes = bool(task.protocol.grants) and card.privilege == "none"
        if model.privilege != (wanted := "boxes" if boxes else card.privilege):
            yield "model.privilege", f"'{model.privilege}' is not what card and task give, '{wanted}'"
        if task.family not in card.families:
            yield "task.name", f"the card {card.name} does not do {task.family}"
    for field in ("code_sha256", "state"):
        if getattr(model, field) and not _has_own_encoder(result, card):
            yield f"model.{field}", "is recorded of users' own models only"
    if not renamed:  # what its author trained has seeds of its own
        yield from _check_checkpoint(result, card, seed)


def _has_own_encoder(result: Result, card: ModelCard) -> bool:
    """Whether a floor clusters the features of a user's own encoder, which is the path of its file."""
    encoder = str(result.model.options.get("encoder", "")).partition(":")[0]
    return card.role == "floor" and bool(encoder) and encoder not in model_names()


def _check_own_model(result: Result) -> FieldProblems:
    """Problems of a user's model: a name that breaks a table or looks like that of a bundled model, or another role."""
    name, role = result.model.name, result.model.role
    if not name.strip() or name != name.strip() or not name.isprintable() or "|" in name or len(name) > 100:
        yield "model.name", f"{name!r} does not fit into a table; at most 100 printable characters without '|'"
    stem = stable_name(name).lower()
    if any((CARDS / f"{name_of_card}.yaml").is_file() for name_of_card in (stem, re.sub(r"-seed\w*$", "", stem))):
        yield "model.card", f"is empty, but '{name}' is the name of a bundled model"
    if role != "model":
        yield "model.role", f"'{role}' is reserved for bundled models; write 'model'"


def stable_name(model: str) -> str:
    """The file stem of a committed result: `dias-seed1` for `dias:1`."""
    from ...core.files import path_name

    return path_name(model.replace(":", "-seed"))


def _supervision(result: Result, card: ModelCard) -> str:
    """The supervision by the card. A floor that clusters features of an encoder has that of the encoder."""
    if _has_own_encoder(result, card):
        return result.model.supervision
    options = result.model.options
    encoder = str(options.get("encoder", ""))
    backbone = (card.name, str(options.get("name", ""))) if card.name in SOURCES else split_name(encoder)
    if backbone and (card.name in SOURCES or card.role == "floor"):
        seen = supervision_of(*backbone)
        return result.model.supervision if seen == "undeclared" else seen  # whoever evaluates it may declare it
    encoder = encoder.partition(":")[0]
    if card.role == "floor" and encoder in model_names():
        return get_card(encoder).supervision
    return card.supervision


def _check_checkpoint(result: Result, card: ModelCard, seed: str) -> FieldProblems:
    """Problems of training seed and checkpoint, which belong together: the bundled seed has the bundled weights."""
    model = result.model
    bundled = card.training.seed if card.training else None
    if ":" in model.name and not re.fullmatch(r"0|[1-9][0-9]*", seed):
        yield "model.name", f"'{seed}' is not a training seed; write NAME:0, NAME:1, ..."
        return
    # A plain name is the bundled checkpoint, or one without a recorded seed.
    allowed = (int(seed),) if seed else (None, bundled)
    if model.training_seed not in allowed:
        yield "model.training_seed", f"{model.training_seed} does not belong to '{model.name}'"
    elif card.sha256 and model.checkpoint_sha256 == card.sha256 and model.training_seed not in (None, bundled):
        yield "model.training_seed", f"{model.training_seed}, but the checkpoint is that of the bundled seed {bundled}"
    same = bundled is not None and model.training_seed == bundled
    if same and card.sha256 and model.checkpoint_sha256 != card.sha256:
        yield "model.checkpoint_sha256", f"is not that of the bundled weights {card.weights}, {card.sha256[:16]}..."
