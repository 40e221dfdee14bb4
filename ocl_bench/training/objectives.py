"""Builds the objective that `train.objective` of a model card names, with its data, frozen encoders and validation."""

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
from ..data.base import OpenData
from ..families import find_family
from ..models.encoder import Encoder
from ..models.layers.smooth_initialisation import SmoothGaussian
from ..models.loading import get_model
from ..models.slotcontrast import SlotContrast
from ..models.slotmatch import SlotMatch
from . import ahead
from .background import Background
from .checkpoint import state_sha256
from .clips import (
    MOVING,
    CachedVideos,
    FrameFeatures,
    FrozenEncoders,
    ReadVideos,
    VideoOptions,
    videos_of_reader,
    videos_of_scenes,
)
from .data import (
    ChunkedArray,
    TrainingScenes,
    frozen_features,
    training_scenes,
)
from .dias_objective import SlotObjective, SlotOptions
from .encoder_objectives import EncoderObjective, EncoderOptions
from .held_out import Later, held_out_scenes, hold_out
from .loop import Objective
from .neighbours import validate_neighbours
from .odis_images import images_of_reader, images_of_scenes, scenes_and_boxes
from .odis_objective import OdisObjective, OdisOptions
from .ranks import Ranks
from .recipe import Recipe
from .slotcon_objective import ReaderSource, SceneSource, SlotConObjective, SlotConOptions, validate_vocabulary
from .synchronised_norm import synchronise
from .validation import validate_encoder, validate_masks
from .video_objective import VideoObjective


@dataclass(frozen=True)
class BuildContext:
    """The arguments from which every objective is built.

    Attributes:
        model: The model with fresh weights, on any device.
        card: Its card.
        task: Task whose protocol validates the training.
        recipe: Recipe of the training.
        seed: Seed of the training.
        ranks: Device and processes.
        progress: Whether the user wants progress bars.
        data_root: Folder with the images or videos of the task, if it is not the default one.
        background: Renders and encodes scenes while the model is trained; None does so before.
    """

    model: Any
    card: ModelCard
    task: TaskSpec
    recipe: Recipe
    seed: int
    ranks: Ranks
    progress: bool = True
    data_root: Path | None = None
    background: Background | None = None

    @property
    def shown(self) -> bool:
        """True in the process that draws progress bars."""
        return self.progress and self.ranks.main

    @property
    def device(self) -> str:
        """Type of the device: `cpu` or `cuda`."""
        return self.ranks.device.type

    def options(self, kind: Callable[..., Any]) -> Any:
        """Checked options of the objective. Raises UsageError that names the card and the field."""
        from pydantic import ValidationError

        try:
            return kind(**self.recipe.objective)
        except ValidationError as error:
            field, problem = first_problem(error)
            text = f"field '{'.'.join(filter(None, ('train.objective', field)))}': {problem}"
            raise UsageError(f"model card {self.card.name}: {text}") from error

    def require_boxes(self) -> None:
        """Raise UsageError if the card claims that its training uses no labels."""
        if self.card.supervision == "none":
            problem = "the objective sees boxes; set `supervision: boxes` in the card"
            raise UsageError(f"model card {self.card.name}: {problem}")


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
    background: Background | None = None,
) -> Objective:
    """Build the objective that `train.objective.kind` names.

    Missing scenes are rendered and encoded in the background. Without one, or where there are few, this is done at
    once, on the first rank of each machine while its other ranks wait.

    Args:
        model: Model with fresh weights. The weights of its frozen encoder are loaded into it.
        card: Card of the model.
        task: Task whose protocol validates the training, and whose images or videos a reader supplies.
        recipe: Recipe of the training.
        seed: Seed of the training.
        ranks: Device and processes.
        progress: Draw progress bars.
        data_root: Folder with the data of the task; only for the kinds `slotcon`, `odis` and `video`.
        background: Renders and encodes scenes.

    Raises:
        UsageError: An option is wrong, weights or data are missing, or the objective reads boxes although the card
            declares no supervision.
    """
    kind = recipe.objective.get("kind")
    if kind not in _BUILDERS:
        raise UsageError(f"model card {card.name}: field 'train.objective.kind': {kind!r}; use {', '.join(_BUILDERS)}")
    if data_root is not None and kind not in ("slotcon", "odis", "video"):
        raise UsageError(f"--data-root {data_root}: model {card.name} is trained on rendered scenes only")
    root = Path(data_root) if data_root is not None else None
    if recipe.scenes.count <= ahead.FEW:
        background = None
    return _BUILDERS[kind](BuildContext(model, card, task, recipe, seed, ranks, progress, root, background))


def _scenes(context: BuildContext) -> TrainingScenes:
    """Open the rendered scenes of the recipe."""
    if context.background is not None:
        return ahead.training_scenes(context.background, context.recipe.scenes)
    with context.ranks.state.local_main_process_first():
        return training_scenes(context.recipe.scenes, progress=context.shown)


def _encoder_objective(context: BuildContext) -> EncoderObjective:
    options, encoder = context.options(EncoderOptions), None
    if options.kind == "boxes":
        context.require_boxes()
    if options.kind == "segments":
        encoder = _trained_model(context, "encoder", options.encoder, options.encoder_checkpoint)
        if not isinstance(encoder, Encoder):
            raise UsageError(f"field 'train.objective.encoder': {options.encoder} is no encoder of tokens")
        encoder = encoder.to(context.ranks.device).eval()
    scenes = _scenes(context)
    clustered = None if encoder is None else _frozen_features(context, encoder, scenes)
    validator = partial(validate_encoder, task=context.task, limit=context.recipe.validate_limit, device=context.device)
    ranks, batch = context.ranks, context.recipe.batch
    return EncoderObjective(scenes, options, context.seed, batch, validator, ranks.gather, clustered)


def _frozen_features(
    context: BuildContext, encoder: Any, scenes: TrainingScenes, *, flip: bool = False
) -> ChunkedArray:
    """Tokens of the training scenes, or of their mirrored images, by a frozen encoder."""
    key, device = state_sha256(encoder), context.ranks.device
    if context.background is not None:
        return ahead.frozen_features(context.background, encoder, scenes, key, device=device, flip=flip)
    with context.ranks.state.local_main_process_first():
        return frozen_features(encoder, scenes, key, device=device, flip=flip, progress=context.shown)


def _trained_model(context: BuildContext, field: str, name: str, checkpoint: str) -> Any:
    """Load the model of a card. Raises UsageError if it has no trained weights, or saw labels that are not declared."""
    loaded = get_model(name, checkpoint=checkpoint or None)
    if (seen := loaded.card.supervision) not in ("none", context.card.supervision):
        own = f"card {context.card.name} declares `supervision: {context.card.supervision}`"
        raise UsageError(f"field 'train.objective.{field}': {name} learnt from {seen}, but {own}; copy and change it")
    if not checkpoint and not loaded.card.weights:
        remedy = f"train it and give --set objective.{field}_checkpoint=FILE"
        raise UsageError(f"field 'train.objective.{field}': no weights of {name} are bundled; {remedy}")
    return loaded.model


def _take_encoder(context: BuildContext, card: str, checkpoint: str) -> Any:
    """Load the encoder of a card into the model and freeze it. Returns it on the device, in evaluation mode."""
    encoder = _trained_model(context, "encoder", card, checkpoint)
    # A model that is not a plain encoder, such as SlotCon, offers its backbone by `as_encoder`.
    encoder = encoder.as_encoder() if hasattr(encoder, "as_encoder") else encoder
    try:
        context.model.encoder.load_state_dict(encoder.state_dict())
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()[:160]
        name = context.card.name
        raise UsageError(f"model {name}: its encoder does not accept the weights of card {card} ({reason})") from error
    context.model.encoder.requires_grad_(False)
    return context.model.encoder.to(context.ranks.device).eval()


def _slot_objective(context: BuildContext) -> SlotObjective:
    options, model = context.options(SlotOptions), context.model
    model.requires_grad_(True)  # all but the encoder, which the next line freezes again
    frozen = _take_encoder(context, options.encoder, options.encoder_checkpoint)
    features, mirrored, held_out = _slot_features(context, frozen, options.flip)
    limit, device = context.recipe.validate_limit, context.device
    validator = partial(validate_masks, task=context.task, limit=limit, device=device, data=held_out)
    return SlotObjective(
        features,
        mirrored,
        options,
        context.seed,
        context.recipe.batch,
        slots=model.slots,
        slot_dim=model.slot_dim,
        merge_probability=model.merge_probability if model.merge_threshold is not None else 0.0,
        smooth=isinstance(model.initialisation, SmoothGaussian),
        validator=validator,
    )


Features = ChunkedArray | FrameFeatures
"""Tokens of images, rows (P, D)."""


def _slot_features(
    context: BuildContext, encoder: Any, flip: bool
) -> tuple[Features, Features | None, OpenData | None]:
    """Tokens of the training images, those of the mirrored ones, and data to validate on where the task's do not fit.

    Scenes that move are taken frame by frame. Raises UsageError if they meet a task of images.
    """
    if context.recipe.scenes.variant not in MOVING:
        scenes = _scenes(context)
        mirrored = _frozen_features(context, encoder, scenes, flip=True) if flip else None
        return _frozen_features(context, encoder, scenes), mirrored, None
    if find_family(context.task.family).unit != "videos":
        raise UsageError(f"--task {context.task.name}: the scenes are videos; choose a video task to validate on")
    frozen = FrozenEncoders(encoder, None, context.model.input_size, context.ranks.device)
    with context.ranks.state.local_main_process_first():
        videos, held_out = videos_of_scenes(context.task, context.recipe, flip, frozen, progress=context.shown)
    plain, turned = videos.features.plain, videos.features.mirrored
    return FrameFeatures(plain), None if turned is None else FrameFeatures(turned), held_out


def _slotcon_objective(context: BuildContext) -> SlotConObjective:
    options: SlotConOptions = context.options(SlotConOptions)
    recipe, task = context.recipe, context.task
    held_out: Sequence[Sample] = []
    source: SceneSource | ReaderSource
    with context.ranks.state.local_main_process_first():
        if options.images == "scenes":
            images, _ = scenes_and_boxes(recipe.scenes, context.background, boxes=False, progress=context.shown)
            source, note = SceneSource(images), recipe.scenes.note
            if recipe.scenes.variant == "things":  # only these scenes have class maps to validate on
                held_out = Later(partial(held_out_scenes, recipe.scenes, recipe.validate_limit, progress=False))
        else:
            data = open_data(task, data_root=context.data_root, split=options.split, progress=context.shown)
            train_data, held_out_data = hold_out(data, options.split, recipe.validate_limit)
            note = f"{len(train_data)} images of task {task.name}, {options.split} split, {data.kind} {data.revision}"
            source, held_out = ReaderSource(train_data), held_out_data.reader  # type: ignore[assignment]
    if context.ranks.size > 1:
        synchronise(context.model)
    validator = partial(validate_vocabulary, samples=held_out, rules=task.protocol, device=context.device)
    return SlotConObjective(source, options, context.seed, recipe.batch, validator, context.ranks, note)


def _odis_objective(context: BuildContext) -> OdisObjective:
    options: OdisOptions = context.options(OdisOptions)
    recipe = context.recipe
    options.images_of(recipe.batch)  # raises UsageError before minutes are spent on rendering scenes
    if options.boxes:
        context.require_boxes()
    with context.ranks.state.local_main_process_first():
        if options.images == "scenes":
            images = images_of_scenes(recipe, options, context.background, progress=context.shown)
        else:
            images = images_of_reader(context.task, recipe, options, context.data_root, progress=context.shown)
    if context.ranks.size > 1:
        synchronise(context.model)  # nothing to do in models without batch norm
    rules, device = context.task.protocol, context.device
    validator = partial(validate_neighbours, bank=images.bank, queries=images.queries, rules=rules, device=device)
    return OdisObjective(
        images.source,
        options,
        context.seed,
        recipe.batch,
        patch=context.model.patch,
        objects=context.model.objects,
        steps=recipe.steps,
        validator=validator,
        ranks=context.ranks,
        note=images.note,
    )


def _take_teacher(context: BuildContext, options: VideoOptions) -> Any:
    """Load the trained teacher of a SlotMatch and freeze it on the device; None for a training without a teacher.

    The student takes over the teacher's initial slots if its options demand it.

    Raises:
        UsageError: The teacher is missing, does not fit the student, or the student is not a SlotMatch.
    """
    name, student = context.card.name, isinstance(context.model, SlotMatch)
    if not options.teacher:
        if student and (context.model.needs_teacher or context.model.start != "fresh"):
            remedy = "name one, or set distillation_weight 0 and initial_slots fresh"
            raise UsageError(f"model card {name}: field 'train.objective.teacher' is empty; {remedy}")
        return None
    if not student:
        raise UsageError(f"model card {name}: field 'train.objective.teacher': only a SlotMatch has one; leave it out")
    teacher = _trained_model(context, "teacher", options.teacher, options.teacher_checkpoint)
    if not isinstance(teacher, SlotContrast):
        raise UsageError(f"field 'train.objective.teacher': {options.teacher} is not a SlotContrast; name one")
    if teacher.input_size != context.model.input_size:
        sizes = f"{teacher.input_size} pixels a side, the student {context.model.input_size}"
        raise UsageError(f"field 'train.objective.teacher': {options.teacher} sees {sizes}; both see the same clip")
    context.model.begin_like(teacher)
    return teacher.requires_grad_(False).to(context.ranks.device).eval() if context.model.needs_teacher else None


def _video_objective(context: BuildContext) -> VideoObjective:
    options: VideoOptions = context.options(VideoOptions)
    recipe, task = context.recipe, context.task
    if find_family(task.family).unit != "videos":
        raise UsageError(f"--task {task.name}: model {context.card.name} is validated on videos; choose a video task")
    if not isinstance(context.model, SlotContrast):
        field = "field 'train.objective.kind'"
        raise UsageError(f"model card {context.card.name}: {field}: 'video' trains SlotContrast models only")
    frozen = _take_encoder(context, options.encoder, options.encoder_checkpoint)
    teacher = _take_teacher(context, options)
    source: CachedVideos | ReadVideos
    teacher_encoder = None if teacher is None else teacher.encoder
    encoders = FrozenEncoders(frozen, teacher_encoder, context.model.input_size, context.ranks.device)
    shown, root = context.shown, context.data_root
    with context.ranks.state.local_main_process_first():
        if options.images == "scenes":
            source, held_out = videos_of_scenes(task, recipe, options.flip, encoders, progress=shown)
        else:
            source, held_out = videos_of_reader(task, recipe, options, encoders, root, progress=shown)
    validator = partial(validate_masks, task=task, limit=recipe.validate_limit, device=context.device, data=held_out)
    return VideoObjective(source, options, context.seed, recipe.batch, teacher, validator, context.ranks)


_BUILDERS: dict[str, Callable[[BuildContext], Objective]] = {
    "slots": _slot_objective,
    "neighbour": _encoder_objective,
    "boxes": _encoder_objective,
    "segments": _encoder_objective,
    "slotcon": _slotcon_objective,
    "odis": _odis_objective,
    "video": _video_objective,
}
