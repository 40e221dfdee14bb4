"""`ocl-bench train`: from the name of a model card to weights, a log and the record of how they were made."""

from __future__ import annotations

import importlib
import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..data import open_data, subset
from ..errors import UsageError
from ..registry import get_card, get_model, get_task
from ..results import git_state, write_atomically
from ..spec import ModelCard, TaskSpec
from ..types import Sample
from .checkpoint import export_weights, state_sha256
from .data import TrainingScenes, frozen_features, held_out_scenes, padded_scenes, training_scenes
from .dias_objective import SlotObjective, SlotOptions
from .encoder_objectives import EncoderObjective, EncoderOptions
from .loop import Objective, Trained, fit
from .neighbours import validate_neighbours
from .odis_images import images_of_reader, images_of_scenes
from .odis_objective import OdisObjective, OdisOptions
from .ranks import Ranks, start_ranks
from .recipe import Recipe, read_recipe
from .schedules import stream_seed
from .slotcon_objective import ReaderSource, SceneSource, SlotConObjective, SlotConOptions, validate_vocabulary
from .synchronised_norm import synchronise

CLUSTERS = 7
"""K of the feature clustering that validates an encoder."""


def train(
    model_name: str,
    task: str | TaskSpec | None = None,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    seed: int = 0,
    out: Path | str | None = None,
    device: str = "auto",
    precision: str | None = None,
    compile_model: bool = False,
    world_size: int | None = None,
    scenes: int | None = None,
    data_root: Path | str | None = None,
    overrides: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    resume: bool = True,
    progress: bool = True,
) -> dict[str, Any]:
    """Train a bundled model by the recipe of its card, or go on with a training that was stopped.

    task: validates, by default `train.task` of the card.
    data_root: train on the task's images in this folder instead of rendered scenes (`slotcon` and `odis`).
    minutes: stop this visit after so long, with a checkpoint; the same command goes on later. out: folder, by default
    `runs/<model>-seed<seed>`. overrides: recipe fields by dotted name, such as {"lr": 1e-3, "objective.radius": 3}.
    options: options of the model instead of its card's, such as {"slots": 7}.
    Writes `last.pt`, `log.jsonl`, `<model>.safetensors` (float16), `training.json` and `curves.png` into `out`;
    returns the content of `training.json` with `main_rank`, `weights` (path) and `next` (command). Raises UsageError.
    """
    card = get_card(model_name)
    trained_with = {**card.options, **card.train.get("options", {}), **(options or {})}
    card = card.model_copy(update={"options": trained_with})
    named = {"steps": steps, "precision": precision, "scenes.count": scenes}
    changes = {**(overrides or {}), **{field: value for field, value in named.items() if value is not None}}
    if data_root is not None:
        changes["objective.images"] = "reader"
    if task is not None:
        changes["task"] = task.name if isinstance(task, TaskSpec) else task
    recipe = read_recipe(card.train, f"model card {card.name}", **changes)
    spec = get_task(recipe.task if task is None else task)
    ranks = start_ranks(device, recipe.precision, world_size)
    out = Path(out) if out else Path("runs") / f"{card.name}-seed{seed}"
    model = build_untrained(card, seed)
    objective = build_objective(model, card, spec, recipe, seed, ranks, progress=progress, data_root=data_root)
    data = getattr(objective, "note", "") or _scenes_note(recipe)
    trained = fit(
        model,
        objective,
        recipe,
        seed=seed,
        out=out,
        ranks=ranks,
        identity={"model": card.name, "options": card.options, **getattr(objective, "identity", {})},
        minutes=minutes,
        resume=resume,
        compile_model=compile_model,
        progress=progress,
    )
    record = _record(card, spec, recipe, seed, ranks, trained, data)
    weights = out / f"{card.name}.safetensors"
    if ranks.main:
        record["sha256"] = export_weights(model, weights)
        text = json.dumps(record, indent=2) + "\n"
        write_atomically(out / "training.json", lambda path: path.write_text(text, encoding="utf-8"))
        _draw_curves(out, f"{card.name}, seed {seed}")
    following = _next_command(card, spec, weights, seed, out, options or {}, trained.finished)
    return {**record, "main_rank": ranks.main, "weights": str(weights), "next": following}


def build_untrained(card: ModelCard, seed: int) -> nn.Module:
    """The card's model with fresh weights, a pure function of the seed. Raises UsageError when it cannot be trained."""
    module, attribute = card.source.split(":")
    torch.manual_seed(stream_seed(seed, "weights", 0))
    try:
        model = getattr(importlib.import_module(module), attribute)(**card.options)
    except TypeError as error:
        raise UsageError(f"model {card.name}: {error}; see `ocl-bench show {card.name}` for its options") from error
    if not isinstance(model, nn.Module):
        raise UsageError(f"model {card.name}: is no torch module, there is nothing to train")
    return model


def build_objective(
    model: nn.Module,
    card: ModelCard,
    task: TaskSpec,
    recipe: Recipe,
    seed: int,
    ranks: Ranks,
    *,
    progress: bool = True,
    scenes: TrainingScenes | None = None,
    data_root: Path | str | None = None,
) -> Objective:
    """The objective that `train.objective.kind` names: `slots`, `neighbour`, `boxes`, `slotcon` or `odis`.

    Renders missing scenes and encodes them on the first rank of each machine. Raises UsageError, also when the
    objective looks at boxes and the card does not say so.
    """
    kind = recipe.objective.get("kind")
    if kind == "slotcon":
        return _slotcon_objective(model, card, task, recipe, seed, ranks, data_root, progress)
    if kind == "odis":
        return _odis_objective(model, card, task, recipe, seed, ranks, data_root, progress)
    if data_root is not None:
        raise UsageError(f"--data-root {data_root}: model {card.name} is trained on rendered scenes only")
    with ranks.state.local_main_process_first():
        scenes = scenes or training_scenes(recipe.scenes, progress=progress and ranks.main)
    if kind == "slots":
        return _slot_objective(model, card, task, recipe, seed, ranks, scenes, progress)
    if kind not in ("neighbour", "boxes"):
        known = "use slots, neighbour, boxes, slotcon or odis"
        raise UsageError(f"model card {card.name}: field 'train.objective.kind': {kind!r}; {known}")
    if kind == "boxes" and card.supervision == "none":
        raise UsageError(f"model card {card.name}: the objective sees boxes; set `supervision: boxes` in the card")
    return EncoderObjective(
        scenes,
        _options(EncoderOptions, recipe, card),
        seed,
        recipe.batch,
        partial(validate_encoder, task=task, limit=recipe.validate_limit, device=ranks.device.type),
        ranks.gather,
    )


def _slot_objective(
    model: Any,
    card: ModelCard,
    task: TaskSpec,
    recipe: Recipe,
    seed: int,
    ranks: Ranks,
    scenes: TrainingScenes,
    progress: bool,
) -> SlotObjective:
    options = _options(SlotOptions, recipe, card)
    encoder = get_model(options.encoder, checkpoint=options.encoder_checkpoint or None).model
    try:
        model.encoder.load_state_dict(encoder.state_dict())
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()[:160]
        raise UsageError(f"model {card.name}: its encoder is not that of card {options.encoder} ({reason})") from error
    model.requires_grad_(True).encoder.requires_grad_(False)
    frozen = model.encoder.to(ranks.device).eval()
    make = partial(
        frozen_features, frozen, scenes, state_sha256(frozen), device=ranks.device, progress=progress and ranks.main
    )
    with ranks.state.local_main_process_first():
        features = make()
        mirrored = make(flip=True) if options.flip else None
    return SlotObjective(
        features,
        mirrored,
        options,
        seed,
        recipe.batch,
        slots=model.slots,
        slot_dim=model.slot_dim,
        merge_probability=model.merge_probability if model.merge_threshold is not None else 0.0,
        validator=partial(validate_masks, task=task, limit=recipe.validate_limit, device=ranks.device.type),
    )


def _slotcon_objective(
    model: Any,
    card: ModelCard,
    task: TaskSpec,
    recipe: Recipe,
    seed: int,
    ranks: Ranks,
    data_root: Path | str | None,
    progress: bool,
) -> SlotConObjective:
    options: SlotConOptions = _options(SlotConOptions, recipe, card)
    shown, kept = progress and ranks.main, recipe.validate_limit
    held_out: Sequence[Sample] = []
    source: SceneSource | ReaderSource
    with ranks.state.local_main_process_first():
        if options.images == "scenes":
            source, note = SceneSource(padded_scenes(recipe.scenes, progress=shown)), _scenes_note(recipe)
            if recipe.scenes.variant == "things":
                held_out = held_out_scenes(recipe.scenes, kept, progress=shown)
        else:
            root = Path(data_root) if data_root else None
            data = open_data(task, data_root=root, split=options.split, progress=shown)
            if len(data) <= kept:
                raise UsageError(f"{data.root}: split {options.split} has {len(data)} images, {kept} are held out")
            note = f"{len(data) - kept} images of task {task.name}, {options.split} split, {data.kind} {data.revision}"
            source = ReaderSource(subset(data, range(len(data) - kept)))
            held_out = subset(data, range(len(data) - kept, len(data))).reader  # type: ignore[assignment]
    if ranks.size > 1:
        synchronise(model)
    validator = partial(validate_vocabulary, samples=held_out, rules=task.protocol, device=ranks.device.type)
    return SlotConObjective(source, options, seed, recipe.batch, validator, ranks, note)


def _odis_objective(
    model: Any,
    card: ModelCard,
    task: TaskSpec,
    recipe: Recipe,
    seed: int,
    ranks: Ranks,
    data_root: Path | str | None,
    progress: bool,
) -> OdisObjective:
    options: OdisOptions = _options(OdisOptions, recipe, card)
    if options.boxes and card.supervision == "none":
        raise UsageError(f"model card {card.name}: the objective sees boxes; set `supervision: boxes` in the card")
    shown = progress and ranks.main
    with ranks.state.local_main_process_first():
        if options.images == "scenes":
            images = images_of_scenes(recipe, options, progress=shown)
        else:
            images = images_of_reader(task, recipe, options, Path(data_root) if data_root else None, progress=shown)
    return OdisObjective(
        images.source,
        options,
        seed,
        recipe.batch,
        patch=model.patch,
        objects=model.objects,
        steps=recipe.steps,
        validator=partial(
            validate_neighbours,
            bank=images.bank,
            queries=images.queries,
            rules=task.protocol,
            device=ranks.device.type,
        ),
        ranks=ranks,
        note=images.note,
    )


def _options(kind: Callable[..., Any], recipe: Recipe, card: ModelCard) -> Any:
    from pydantic import ValidationError

    try:
        return kind(**recipe.objective)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"model card {card.name}: field 'train.objective.{field}': {first['msg']}") from error


def validate_masks(model: Any, *, task: TaskSpec, limit: int, device: str) -> dict[str, float]:
    """The task's metrics on the first `limit` samples of its validation split, the main metric first."""
    from ..evaluate import evaluate

    with tempfile.TemporaryDirectory() as results, _alone():
        result = evaluate(
            model,
            task,
            split="val",
            limit=limit,
            noise_seeds=(0,),
            device=device,
            results=Path(results),
            progress=False,
        )
    names = [task.main, *(name for name in task.metrics if name != task.main)]
    values = {name: result.metrics[name].value for name in names}
    return {name: float(value) for name, value in values.items() if value is not None}


@contextmanager
def _alone() -> Iterator[None]:
    """Hide torchrun's names: `evaluate` would split the samples over ranks, but only the first rank validates."""
    hidden = {name: os.environ.pop(name) for name in ("RANK", "WORLD_SIZE") if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def validate_encoder(model: Any, *, task: TaskSpec, limit: int, device: str) -> dict[str, float]:
    """The same for clusters of an encoder's tokens: farthest-point seeds (`fps_*`) and k-means (`kmeans_*`), K = 7.

    The main metric, ARI and FG-ARI only, so that the curves can be read.
    """
    from ..models.clustering import build_fps_features, build_kmeans_features

    numbers: dict[str, float] = {}
    for name, build in (("fps", build_fps_features), ("kmeans", build_kmeans_features)):
        clusters = build(encoder=model, clusters=CLUSTERS)
        values = validate_masks(clusters, task=task, limit=limit, device=device)
        numbers |= {f"{name}_{metric}": values[metric] for metric in (task.main, "ari", "fg_ari") if metric in values}
    return numbers


def _record(
    card: ModelCard, task: TaskSpec, recipe: Recipe, seed: int, ranks: Ranks, trained: Trained, data: str
) -> dict[str, Any]:
    """What a card's `training:` section records, and the share of the training that is done."""
    commit, dirty = git_state()
    return {
        "model": card.name,
        "options": card.options,
        "supervision": card.supervision,
        "finished": trained.finished,
        "trained_on": ranks.device.type,
        "machine": _machine(ranks),
        "recipe": recipe.model_dump(mode="json") | {"precision": "bf16" if ranks.bf16 else "fp32"},
        "seed": seed,
        "steps": trained.steps,
        "seconds": round(trained.seconds, 1),
        "commit": commit + ("-dirty" if dirty else ""),
        "data": data,
        "numbers": {f"val_{name}": round(value, 5) for name, value in trained.numbers.items()},
        "validation": {"task": task.name, "split": "val", "limit": recipe.validate_limit},
    }


def _scenes_note(recipe: Recipe) -> str:
    scenes = recipe.scenes
    return f"{scenes.count} embedded scenes of {scenes.variant} r{scenes.revision}, {scenes.split} split"


def _next_command(
    card: ModelCard, task: TaskSpec, weights: Path, seed: int, out: Path, options: dict[str, Any], finished: bool
) -> str:
    chosen = "".join(f" --option {key}={json.dumps(value)}" for key, value in options.items())
    if not finished:
        return f"ocl-bench train --model {card.name} --task {task.name} --seed {seed} --out {out}{chosen}"
    if card.role == "encoder":
        return f"ocl-bench train --model dias --task {task.name} --set objective.encoder_checkpoint={weights}"
    return f"ocl-bench eval --model {card.name} --task {task.name} --checkpoint {weights}{chosen}"


def _machine(ranks: Ranks) -> str:
    if ranks.device.type == "cuda":
        name = torch.cuda.get_device_name(ranks.device)
    else:
        lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
        models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        name = f"{models[0] if models else platform.machine()}, {torch.get_num_threads()} threads"
    return f"{name}, {ranks.size} rank(s), torch {torch.__version__}"


def _draw_curves(out: Path, title: str) -> None:
    from ..report.curves import write_curves

    write_curves(out / "curves.png", out / "log.jsonl", title=title)
