"""From the `train.objective` of a model card to an objective with its data, its frozen networks and its validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from ..cards.model import ModelCard
from ..cards.task import TaskSpec
from ..core.errors import UsageError, first_problem
from ..core.types import Sample
from ..data import open_data
from ..families import find_family
from ..models.loading import get_model
from ..models.slotcontrast import SlotContrast
from ..models.slotmatch import SlotMatch
from .checkpoint import state_sha256
from .clips import CachedVideos, Networks, ReadVideos, VideoOptions, videos_of_reader, videos_of_scenes
from .data import TrainingScenes, frozen_features, held_out_scenes, hold_out, padded_scenes, training_scenes
from .dias_objective import SlotObjective, SlotOptions
from .encoder_objectives import EncoderObjective, EncoderOptions
from .loop import Objective
from .neighbours import validate_neighbours
from .odis_images import images_of_reader, images_of_scenes
from .odis_objective import OdisObjective, OdisOptions
from .ranks import Ranks
from .recipe import Recipe
from .slotcon_objective import ReaderSource, SceneSource, SlotConObjective, SlotConOptions, validate_vocabulary
from .synchronised_norm import synchronise
from .validation import validate_encoder, validate_masks
from .video_objective import VideoObjective


@dataclass(frozen=True)
class Setting:
    """What every objective is built from. model: on any device, with fresh weights."""

    model: Any
    card: ModelCard
    task: TaskSpec
    recipe: Recipe
    seed: int
    ranks: Ranks
    progress: bool = True
    data_root: Path | None = None

    @property
    def shown(self) -> bool:
        """Whether this process draws progress bars."""
        return self.progress and self.ranks.main

    @property
    def device(self) -> str:
        """Type of the device."""
        return self.ranks.device.type

    def options(self, kind: Callable[..., Any]) -> Any:
        """The objective's options, checked. Raises UsageError naming the card and the field."""
        from pydantic import ValidationError

        try:
            return kind(**self.recipe.objective)
        except ValidationError as error:
            field, problem = first_problem(error)
            text = f"field 'train.objective.{field}': {problem}"
            raise UsageError(f"model card {self.card.name}: {text}") from error

    def needs_boxes(self) -> None:
        """Raise UsageError unless the card says that boxes are looked at."""
        if self.card.supervision == "none":
            what = "the objective sees boxes; set `supervision: boxes` in the card"
            raise UsageError(f"model card {self.card.name}: {what}")


def build_objective(
    model: nn.Module,
    card: ModelCard,
    task: TaskSpec,
    recipe: Recipe,
    seed: int,
    ranks: Ranks,
    *,
    progress: bool = True,
    data_root: Path | str | None = None,
) -> Objective:
    """The objective that `train.objective.kind` names.

    Renders missing scenes and encodes them on the first rank of each machine. Raises UsageError, also when the
    objective looks at boxes and the card does not say so.
    """
    kind = recipe.objective.get("kind")
    if kind not in _BUILDERS:
        raise UsageError(f"model card {card.name}: field 'train.objective.kind': {kind!r}; use {', '.join(_BUILDERS)}")
    if data_root is not None and kind not in ("slotcon", "odis", "video"):
        raise UsageError(f"--data-root {data_root}: model {card.name} is trained on rendered scenes only")
    root = Path(data_root) if data_root is not None else None
    return _BUILDERS[kind](Setting(model, card, task, recipe, seed, ranks, progress, root))


def _scenes(at: Setting) -> TrainingScenes:
    with at.ranks.state.local_main_process_first():
        return training_scenes(at.recipe.scenes, progress=at.shown)


def _encoder_objective(at: Setting) -> EncoderObjective:
    scenes, options = _scenes(at), at.options(EncoderOptions)
    if options.kind == "boxes":
        at.needs_boxes()
    validator = partial(validate_encoder, task=at.task, limit=at.recipe.validate_limit, device=at.device)
    return EncoderObjective(scenes, options, at.seed, at.recipe.batch, validator, at.ranks.gather)


def _trained_model(field: str, name: str, checkpoint: str) -> Any:
    """The model of a card with trained weights. Raises UsageError where it would have random ones."""
    loaded = get_model(name, checkpoint=checkpoint or None)
    if not checkpoint and not loaded.card.weights:
        remedy = f"train it and give --set objective.{field}_checkpoint=FILE"
        raise UsageError(f"field 'train.objective.{field}': no weights of {name} are bundled; {remedy}")
    return loaded.model


def _take_encoder(at: Setting, card: str, checkpoint: str) -> Any:
    """Load the encoder of a card into the model and freeze it there; returns it on the device, in evaluation mode."""
    encoder = _trained_model("encoder", card, checkpoint)
    encoder = encoder.as_encoder() if hasattr(encoder, "as_encoder") else encoder
    try:
        at.model.encoder.load_state_dict(encoder.state_dict())
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()[:160]
        raise UsageError(f"model {at.card.name}: its encoder is not that of card {card} ({reason})") from error
    at.model.encoder.requires_grad_(False)
    return at.model.encoder.to(at.ranks.device).eval()


def _slot_objective(at: Setting) -> SlotObjective:
    options, model = at.options(SlotOptions), at.model
    scenes = _scenes(at)
    model.requires_grad_(True)
    frozen = _take_encoder(at, options.encoder, options.encoder_checkpoint)
    make = partial(frozen_features, frozen, scenes, state_sha256(frozen), device=at.ranks.device, progress=at.shown)
    with at.ranks.state.local_main_process_first():
        features = make()
        mirrored = make(flip=True) if options.flip else None
    return SlotObjective(
        features,
        mirrored,
        options,
        at.seed,
        at.recipe.batch,
        slots=model.slots,
        slot_dim=model.slot_dim,
        merge_probability=model.merge_probability if model.merge_threshold is not None else 0.0,
        validator=partial(validate_masks, task=at.task, limit=at.recipe.validate_limit, device=at.device),
    )


def _slotcon_objective(at: Setting) -> SlotConObjective:
    options: SlotConOptions = at.options(SlotConOptions)
    recipe, task = at.recipe, at.task
    held_out: Sequence[Sample] = []
    source: SceneSource | ReaderSource
    with at.ranks.state.local_main_process_first():
        if options.images == "scenes":
            source, note = SceneSource(padded_scenes(recipe.scenes, progress=at.shown)), recipe.scenes.note
            if recipe.scenes.variant == "things":
                held_out = held_out_scenes(recipe.scenes, recipe.validate_limit, progress=at.shown)
        else:
            data = open_data(task, data_root=at.data_root, split=options.split, progress=at.shown)
            trained, kept = hold_out(data, options.split, recipe.validate_limit)
            note = f"{len(trained)} images of task {task.name}, {options.split} split, {data.kind} {data.revision}"
            source, held_out = ReaderSource(trained), kept.reader  # type: ignore[assignment]
    if at.ranks.size > 1:
        synchronise(at.model)
    validator = partial(validate_vocabulary, samples=held_out, rules=task.protocol, device=at.device)
    return SlotConObjective(source, options, at.seed, recipe.batch, validator, at.ranks, note)


def _odis_objective(at: Setting) -> OdisObjective:
    options: OdisOptions = at.options(OdisOptions)
    recipe = at.recipe
    options.images_of(recipe.batch)  # refused before scenes are rendered
    if options.boxes:
        at.needs_boxes()
    with at.ranks.state.local_main_process_first():
        if options.images == "scenes":
            images = images_of_scenes(recipe, options, progress=at.shown)
        else:
            images = images_of_reader(at.task, recipe, options, at.data_root, progress=at.shown)
    validator = partial(
        validate_neighbours, bank=images.bank, queries=images.queries, rules=at.task.protocol, device=at.device
    )
    return OdisObjective(
        images.source,
        options,
        at.seed,
        recipe.batch,
        patch=at.model.patch,
        objects=at.model.objects,
        steps=recipe.steps,
        validator=validator,
        ranks=at.ranks,
        note=images.note,
    )


def _take_teacher(at: Setting, options: VideoOptions) -> Any:
    """The trained teacher of a SlotMatch, frozen on the device; None where there is none to learn from.

    The student begins with its initial slots where its options say so. Raises UsageError when it does not fit.
    """
    name, student = at.card.name, isinstance(at.model, SlotMatch)
    if not options.teacher:
        if student and (at.model.needs_teacher or at.model.start != "fresh"):
            remedy = "name one, or set distillation_weight 0 and initial_slots fresh"
            raise UsageError(f"model card {name}: field 'train.objective.teacher' is empty; {remedy}")
        return None
    if not student:
        raise UsageError(f"model card {name}: field 'train.objective.teacher': only a SlotMatch has one; leave it out")
    teacher = _trained_model("teacher", options.teacher, options.teacher_checkpoint)
    if not isinstance(teacher, SlotContrast):
        raise UsageError(f"field 'train.objective.teacher': {options.teacher} is no SlotContrast; name one")
    if teacher.input_size != at.model.input_size:
        sizes = f"{teacher.input_size} pixels a side, the student {at.model.input_size}"
        raise UsageError(f"field 'train.objective.teacher': {options.teacher} sees {sizes}; both see the same clip")
    at.model.begin_like(teacher)
    return teacher.requires_grad_(False).to(at.ranks.device).eval() if at.model.needs_teacher else None


def _video_objective(at: Setting) -> VideoObjective:
    options: VideoOptions = at.options(VideoOptions)
    recipe, task = at.recipe, at.task
    if find_family(task.family).unit != "videos":
        raise UsageError(f"--task {task.name}: model {at.card.name} is validated by a task of the family video")
    if not isinstance(at.model, SlotContrast):
        raise UsageError(f"model card {at.card.name}: field 'train.objective.kind': video is for SlotContrast models")
    frozen = _take_encoder(at, options.encoder, options.encoder_checkpoint)
    teacher = _take_teacher(at, options)
    source: CachedVideos | ReadVideos
    networks = Networks(frozen, None if teacher is None else teacher.encoder, at.model.input_size, at.ranks.device)
    with at.ranks.state.local_main_process_first():
        if options.images == "scenes":
            source, held_out = videos_of_scenes(task, recipe, options, networks, progress=at.shown)
        else:
            source, held_out = videos_of_reader(task, recipe, options, networks, at.data_root, progress=at.shown)
    validator = partial(validate_masks, task=task, limit=recipe.validate_limit, device=at.device, data=held_out)
    return VideoObjective(source, options, at.seed, recipe.batch, teacher, validator, at.ranks)


_BUILDERS: dict[str, Callable[[Setting], Objective]] = {
    "slots": _slot_objective,
    "neighbour": _encoder_objective,
    "boxes": _encoder_objective,
    "slotcon": _slotcon_objective,
    "odis": _odis_objective,
    "video": _video_objective,
}
